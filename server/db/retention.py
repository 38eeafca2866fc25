"""Removes what is old or too much, in small batches beside the work. The audit trail is never touched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy import Select, and_, delete, func, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel, col

from graph.domain import Status
from server.audit.trail import AuditTrail
from server.db.database import store_errors
from server.db.tables import (
    ActionRow,
    DecisionRow,
    DeliveryRow,
    EventRow,
    IncidentRow,
    LogRow,
    OccurrenceRow,
)
from server.db.tables_api import FeedbackRow
from server.db.tables_chat import RequestRow, ThreadRow
from server.db.tables_watch import FindingRow
from server.db.tables_work import CheckpointRow
from server.people.outbox import Outbox
from server.settings import Settings

log = structlog.get_logger("retention")

ROUND_EVERY = 3600.0  # seconds
AFTER_START = 60.0  # seconds: the service's own start goes first
BATCH = 200  # rows, with all that hangs on them, in one transaction
PAUSE = 0.05  # seconds between two batches, for others who write
ROUNDS = 500  # batches of one kind in one round
# A delivery is refused by its timestamp long before; unsigned ones have nothing but their id.
KEEP_DELIVERIES = timedelta(days=1)
CHILDREN: tuple[tuple[type[SQLModel], Any], ...] = (
    (EventRow, EventRow.incident_id),
    (OccurrenceRow, OccurrenceRow.incident_id),
    (ActionRow, ActionRow.incident_id),
    (DecisionRow, DecisionRow.incident_id),
    (FeedbackRow, FeedbackRow.incident_id),
    (RequestRow, RequestRow.incident_id),
    (CheckpointRow, CheckpointRow.incident_id),
)


@dataclass(frozen=True)
class Keep:
    """How long and how much is kept."""

    incidents: timedelta  #: closed ones, with all that hangs on them
    most_incidents: int  #: closed ones; the oldest go first
    logs: timedelta  #: task logs, lines of the agent log that belong to no incident, notices, findings
    log_bytes: int  #: of all task logs, as stored

    @classmethod
    def of(cls, settings: Settings) -> Keep:
        """What the settings say."""
        return cls(
            incidents=settings.keep_incidents,
            most_incidents=settings.keep_incidents_most,
            logs=settings.keep_logs,
            log_bytes=settings.keep_logs_bytes,
        )


class Retention:
    """One round after the other."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        keep: Keep,
        saver: BaseCheckpointSaver[str],
        outbox: Outbox,
        audit: AuditTrail,
        clock: Callable[[], datetime],
        before: Callable[[], Awaitable[None]],
    ) -> None:
        """`before` counts what is about to go, so that no total shrinks."""
        self._engine = engine
        self._keep = keep
        self._saver = saver
        self._outbox = outbox
        self._audit = audit
        self._clock = clock
        self._before = before

    async def round(self) -> dict[str, int]:
        """Remove what is due; how much of what was removed."""
        now = self._clock()
        await self._before()
        old = now - self._keep.logs
        gone = {
            "checkpoints": await self._finished(),
            "chats": await self._chats(old),
            "incidents": await self._incidents(now - self._keep.incidents),
            "task_logs": await self._old_logs(old) + await self._surplus_logs(),
            "log_lines": await self._by_id(EventRow, self._lines(old)),
            "occurrences": await self._by_id(
                OccurrenceRow,
                and_(col(OccurrenceRow.status) == "rejected", col(OccurrenceRow.check_at) < old),
            ),
            "findings": await self._by_id(FindingRow, col(FindingRow.until) < old),
            "deliveries": await self._deliveries(now - KEEP_DELIVERIES),
            "notices": await self._outbox.prune(old),
        }
        some = {name: number for name, number in gone.items() if number}
        if some:
            log.info("pruned", **some)
            await self._audit.note("pruned", by="airmedic", **some)
        return gone

    # --- incidents ---

    async def _incidents(self, before: datetime) -> int:
        row = IncidentRow
        closed = and_(col(row.status) == Status.CLOSED.value, col(row.closed_at).is_not(None))
        total = 0
        surplus = await self._count(row, closed) - self._keep.most_incidents
        oldest = select(col(row.id)).where(closed).order_by(col(row.closed_at))
        for _ in range(ROUNDS):
            more = oldest.limit(min(BATCH, surplus)) if surplus > 0 else None
            query = more if more is not None else oldest.where(col(row.closed_at) < before).limit(BATCH)
            ids = await self._ids(query)
            if not ids:
                break
            await self._forget(ids)
            total, surplus = total + len(ids), surplus - len(ids)
        return total

    async def _forget(self, ids: Sequence[Any]) -> None:
        with store_errors("removing old incidents"):
            async with self._engine.begin() as connection:
                for table, number in CHILDREN:
                    await connection.execute(delete(table).where(col(number).in_(ids)))
                await connection.execute(delete(IncidentRow).where(col(IncidentRow.id).in_(ids)))
        await asyncio.sleep(PAUSE)

    async def _finished(self) -> int:
        """Checkpoints of incidents that nothing goes on with: a person closed them, or they are gone."""
        row = IncidentRow
        living = select(col(row.id)).where(col(row.status) != Status.CLOSED.value)
        left = select(col(CheckpointRow.incident_id)).where(col(CheckpointRow.incident_id).not_in(living))
        return await self._drain(CheckpointRow, col(CheckpointRow.incident_id), left.limit(BATCH))

    async def _chats(self, before: datetime) -> int:
        """Threads in which nobody has said anything for long, with what was said."""
        row, total = ThreadRow, 0
        old = select(col(row.id), col(row.owner), col(row.thread)).where(col(row.updated_at) < before)
        for _ in range(ROUNDS):
            with store_errors("looking for old threads"):
                async with self._engine.connect() as connection:
                    found = (await connection.execute(old.limit(BATCH))).all()
            if not found:
                break
            for _number, owner, thread in found:
                await self._saver.adelete_thread(f"chat:{owner}:{thread}")  # as server.chat names it
            total += await self._delete(row, col(row.id).in_([one[0] for one in found]))
        return total

    # --- logs ---

    async def _old_logs(self, before: datetime) -> int:
        """Those of incidents that are not closed stay."""
        row = LogRow
        old = select(col(row.digest)).where(col(row.stored_at) < before, self._unneeded())
        return await self._drain(row, col(row.digest), old.order_by(col(row.stored_at)).limit(BATCH))

    async def _surplus_logs(self) -> int:
        row, size = LogRow, func.length(LogRow.body)
        with store_errors("measuring logs"):
            async with self._engine.connect() as connection:
                total = int((await connection.execute(select(func.sum(size)))).scalar_one() or 0)
        gone = 0
        while (surplus := total - self._keep.log_bytes) > 0:
            query = select(col(row.digest), size).where(self._unneeded()).order_by(col(row.stored_at))
            with store_errors("looking for old logs"):
                async with self._engine.connect() as connection:
                    oldest = (await connection.execute(query.limit(BATCH))).all()
            names = []
            for name, bytes_ in oldest:
                if surplus <= 0:
                    break
                names.append(name)
                surplus, total = surplus - bytes_, total - bytes_
            if not names:
                break
            gone += await self._delete(row, col(row.digest).in_(names))
        return gone

    @staticmethod
    def _unneeded() -> Any:
        row = IncidentRow
        open_ = select(col(row.log)).where(col(row.open_key).is_not(None), col(row.log).is_not(None))
        return col(LogRow.digest).not_in(open_)

    @staticmethod
    def _lines(before: datetime) -> Any:
        # The newest line stays whatever its age: SQLite would give its number away again.
        newest = select(func.max(col(EventRow.id))).scalar_subquery()
        return and_(col(EventRow.incident_id).is_(None), col(EventRow.at) < before, col(EventRow.id) < newest)

    async def _deliveries(self, before: datetime) -> int:
        row = DeliveryRow
        old = select(col(row.webhook_id)).where(col(row.received_at) < before).limit(BATCH)
        return await self._drain(row, col(row.webhook_id), old)

    # --- rows ---

    async def _by_id(self, table: Any, wanted: Any) -> int:
        return await self._drain(table, col(table.id), select(col(table.id)).where(wanted).limit(BATCH))

    async def _drain(self, table: type[SQLModel], key: Any, query: Select[Any]) -> int:
        total = 0
        for _ in range(ROUNDS):
            found = await self._ids(query)
            if not found:
                break
            total += await self._delete(table, key.in_(found))
        return total

    async def _delete(self, table: type[SQLModel], wanted: Any) -> int:
        with store_errors("removing what is old"):
            async with self._engine.begin() as connection:
                gone = max((await connection.execute(delete(table).where(wanted))).rowcount, 0)
        await asyncio.sleep(PAUSE)
        return gone

    async def _ids(self, query: Select[Any]) -> list[Any]:
        with store_errors("looking for what is old"):
            async with self._engine.connect() as connection:
                return list((await connection.execute(query)).scalars())

    async def _count(self, table: type[SQLModel], wanted: Any) -> int:
        with store_errors("counting"):
            async with self._engine.connect() as connection:
                query = select(func.count()).select_from(table).where(wanted)
                return int((await connection.execute(query)).scalar_one())
