"""The ledger of one leased incident in the database: each step is committed before the next begins."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Result, exists, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import Action, LedgerEntry, Step, TaskRef
from graph.errors import LeaseLost
from server.audit import AuditTrail
from server.audit_writes import intent_entry, step_entry
from server.database import store_errors
from server.record import Lease
from server.rows import ledger_of
from server.sqlite_connection import in_place
from server.tables import ActionRow, IncidentRow
from tools.ledger import check_same, check_step, ledger_key


class StoreLedger:
    """`tools.ledger.ActionLedger` on the store, fenced by the lease's epoch."""

    def __init__(
        self,
        engine: AsyncEngine,
        lease: Lease,
        task: TaskRef,
        *,
        clock: Callable[[], datetime],
        audit: AuditTrail | None = None,
    ) -> None:
        self._engine = engine
        self._lease = lease
        self._task = task
        self._clock = clock
        self._audit = audit

    async def entries(self, *, attempt: int | None = None) -> tuple[LedgerEntry, ...]:
        query = select(ActionRow).where(col(ActionRow.incident_id) == self._lease.incident_id)
        if attempt is not None:
            query = query.where(col(ActionRow.attempt) == attempt)
        with store_errors("reading the ledger"), in_place():
            async with self._engine.connect() as connection:
                await self._check_fence(connection)
                rows: Result[Any] = await connection.execute(
                    query.order_by(col(ActionRow.attempt), col(ActionRow.position))
                )
                return tuple(ledger_of(row) for row in rows)

    async def intend(self, attempt: int, position: int, action: Action, before: JsonValue) -> LedgerEntry:
        known = [entry for entry in await self.entries(attempt=attempt) if entry.position == position]
        if known:
            check_same(known[0], action)
            return known[0]
        values = {
            "incident_id": self._lease.incident_id,
            "attempt": attempt,
            "position": position,
            "key": ledger_key(self._lease.incident_id, attempt, position),
            "name": action.name,
            "dag_id": self._task.dag_id,
            "task_id": self._task.task_id,
            "target": action.target,
            "args": action.args,
            "step": Step.INTENT.value,
            "before": before,
            "error": "",
            "epoch": self._lease.epoch,
            "intended_at": self._clock(),
        }
        with store_errors("writing the ledger"):
            async with self._engine.begin() as connection:
                await self._check_fence(connection, lock=True)
                await connection.execute(insert(ActionRow).values(**values))
                if self._audit is not None:
                    key, incident_id = str(values["key"]), self._lease.incident_id
                    line = await intent_entry(connection, incident_id, key=key, action=action, before=before)
                    await self._audit.append(connection, line)
        return LedgerEntry(
            incident_id=self._lease.incident_id,
            attempt=attempt,
            position=position,
            action=action,
            step=Step.INTENT,
            key=str(values["key"]),
            before=before,
            at=self._clock(),
        )

    async def advance(
        self, entry: LedgerEntry, step: Step, *, after: JsonValue = None, error: str = ""
    ) -> LedgerEntry:
        check_step(entry, step)
        now = self._clock()
        times: dict[str, datetime | None] = {"sent_at": now} if step is Step.SENT else {"ended_at": now}
        fence = exists().where(
            col(IncidentRow.id) == self._lease.incident_id, col(IncidentRow.epoch) == self._lease.epoch
        )
        move = (
            update(ActionRow)
            .where(
                col(ActionRow.incident_id) == entry.incident_id,
                col(ActionRow.attempt) == entry.attempt,
                col(ActionRow.position) == entry.position,
                col(ActionRow.step) == entry.step.value,
                fence,
            )
            .values(step=step.value, after=after, error=error, epoch=self._lease.epoch, **times)
        )
        with store_errors("writing the ledger"):
            async with self._engine.begin() as connection:
                if (await connection.execute(move)).rowcount != 1:
                    raise LeaseLost(f"ledger {entry.key} was moved on by another worker")
                if self._audit is not None:
                    await self._audit.append(connection, step_entry(entry, step, after=after, error=error))
        return entry.model_copy(update={"step": step, "after": after, "error": error, "at": now})

    async def _check_fence(self, connection: AsyncConnection, *, lock: bool = False) -> None:
        query = select(literal(1)).where(
            col(IncidentRow.id) == self._lease.incident_id, col(IncidentRow.epoch) == self._lease.epoch
        )
        if lock:
            # The row stays ours until this transaction ends: no takeover between check and insert.
            query = query.with_for_update(of=IncidentRow)
        if (await connection.execute(query)).first() is None:
            raise LeaseLost(f"incident {self._lease.incident_id} is driven by another worker")
