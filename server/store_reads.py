"""What is read from the store, in the types that `server.record` names."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from graph.domain import Outcome, Status, TaskRef
from graph.errors import IncidentNotFound
from server.database import store_errors
from server.record import AgentEvent, IncidentDetail, IncidentRecord
from server.rows import event_of, incident_of, ledger_of, occurrence_of, task_of
from server.tables import ActionRow, EventRow, IncidentRow, LogRow, OccurrenceRow, SettingRow
from tools.memory import Remembered

ENDED = (Status.CLOSED, Status.ESCALATED)


class StoreReads:
    """The reading half of the store."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    async def incident(self, incident_id: int) -> IncidentRecord:
        """One incident. Raises `IncidentNotFound`."""
        rows = await self._rows(select(IncidentRow).where(col(IncidentRow.id) == incident_id))
        if not rows:
            raise IncidentNotFound(f"no incident {incident_id}")
        return incident_of(rows[0])

    async def incidents(
        self,
        *,
        statuses: Sequence[Status] = (),
        dag_id: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[IncidentRecord]:
        """Newest first; `before` is the id to go on from."""
        wanted: list[ColumnElement[bool]] = []
        if statuses:
            wanted.append(col(IncidentRow.status).in_([status.value for status in statuses]))
        if dag_id is not None:
            wanted.append(col(IncidentRow.dag_id) == dag_id)
        if before is not None:
            wanted.append(col(IncidentRow.id) < before)
        query = select(IncidentRow).where(*wanted).order_by(col(IncidentRow.id).desc()).limit(limit)
        return [incident_of(row) for row in await self._rows(query)]

    async def recall(self, signature: str, *, limit: int = 20) -> Remembered | None:
        """What was true of this signature, and how often what was done about it helped; newest first."""
        query = (
            select(IncidentRow)
            .where(
                col(IncidentRow.signature) == signature,
                col(IncidentRow.outcome).is_not(None),
                col(IncidentRow.attempt) > 0,
            )
            .order_by(col(IncidentRow.id).desc())
            .limit(limit)
        )
        records = [incident_of(row) for row in await self._rows(query)]
        healed = [one for one in records if one.outcome is Outcome.HEALED]
        if not healed or healed[0].diagnosis is None:
            return None
        failed = [one for one in records if one.outcome in (Outcome.ESCALATED, Outcome.NOT_HEALED)]
        return Remembered(
            incident_id=healed[0].id,
            diagnosis=healed[0].diagnosis,
            healed=len(healed),
            failed=len(failed),
            last_failed=bool(failed) and failed[0].id > healed[0].id,
        )

    async def detail(self, incident_id: int) -> IncidentDetail:
        """One incident and all that hangs on it."""
        record = await self.incident(incident_id)
        occurrences = await self._rows(
            select(OccurrenceRow)
            .where(col(OccurrenceRow.incident_id) == incident_id)
            .order_by(col(OccurrenceRow.id))
        )
        actions = await self._rows(
            select(ActionRow)
            .where(col(ActionRow.incident_id) == incident_id)
            .order_by(col(ActionRow.attempt), col(ActionRow.position))
        )
        return IncidentDetail(
            incident=record,
            occurrences=tuple(occurrence_of(row) for row in occurrences),
            ledger=tuple(ledger_of(row) for row in actions),
            events=tuple(await self.events(incident_id=incident_id, limit=1000)),
        )

    async def events(
        self,
        *,
        incident_id: int | None = None,
        node: str | None = None,
        level: str | None = None,
        after: int = 0,
        limit: int = 200,
    ) -> list[AgentEvent]:
        """The agent log in order, after the event with id `after`."""
        wanted: list[ColumnElement[bool]] = [col(EventRow.id) > after]
        if incident_id is not None:
            wanted.append(col(EventRow.incident_id) == incident_id)
        if node is not None:
            wanted.append(col(EventRow.node) == node)
        if level is not None:
            wanted.append(col(EventRow.level) == level)
        query = select(EventRow).where(*wanted).order_by(col(EventRow.id)).limit(limit)
        return [event_of(row) for row in await self._rows(query)]

    async def outcomes(self) -> dict[Outcome, int]:
        """How many incidents ended how."""
        query = (
            select(col(IncidentRow.outcome), func.count())
            .where(col(IncidentRow.outcome).is_not(None))
            .group_by(col(IncidentRow.outcome))
        )
        with store_errors("counting"):
            async with self._engine.connect() as connection:
                return {Outcome(str(name)): int(n) for name, n in (await connection.execute(query)).all()}

    async def status_counts(self) -> dict[Status, int]:
        """How many incidents stand where."""
        query = select(col(IncidentRow.status), func.count()).group_by(col(IncidentRow.status))
        with store_errors("counting"):
            async with self._engine.connect() as connection:
                return {Status(name): int(count) for name, count in (await connection.execute(query)).all()}

    async def asking(self) -> list[IncidentRecord]:
        """Incidents that wait for a person: the world may move under them."""
        query = select(IncidentRow).where(col(IncidentRow.status) == Status.WAITING_DECISION.value)
        return [incident_of(row) for row in await self._rows(query)]

    async def any_open(self) -> bool:
        """Whether any incident still goes on."""
        query = select(func.count(col(IncidentRow.id))).where(
            col(IncidentRow.status).not_in([status.value for status in ENDED])
        )
        async with self._engine.connect() as connection:
            return bool((await connection.execute(query)).scalar_one())

    async def members(self, incident_id: int) -> tuple[TaskRef, ...]:
        """The task instances whose failures an incident holds, by map index."""
        query = select(OccurrenceRow).where(col(OccurrenceRow.incident_id) == incident_id)
        found = {task_of(row) for row in await self._rows(query)}
        return tuple(sorted(found, key=lambda task: task.map_index))

    async def get_log(self, name: str) -> str | None:
        """The log under this digest."""
        rows = await self._rows(select(LogRow).where(col(LogRow.digest) == name))
        return zlib.decompress(rows[0].body).decode() if rows else None

    async def setting(self, key: str) -> JsonValue:
        """What was remembered under this key; None when nothing was."""
        rows = await self._rows(select(SettingRow).where(col(SettingRow.key) == key))
        return rows[0].value if rows else None

    async def _rows(self, query: Any) -> list[Any]:
        with store_errors("reading"):
            async with AsyncSession(self._engine) as session:
                return list((await session.execute(query)).scalars().all())
