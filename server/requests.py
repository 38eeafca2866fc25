"""A person's request becomes an incident, or joins the one that stands with people already.

From there it goes the way of every fix: plan, policy, approval, ledger, verification. Nothing here writes to
Airflow, and every target is one that Airflow or the store named.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Executable, bindparam, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import Door, IncidentKind, TaskRef, TaskSnapshot
from graph.errors import DecisionConflict
from server.audit.chain import AuditEntry
from server.audit.trail import AuditTrail
from server.db.database import store_errors
from server.db.prepared import Prepared
from server.db.tables import EventRow, IncidentRow, table_of
from server.db.tables_chat import RequestRow
from server.opening import open_key, opened, reopening
from server.record import IncidentRecord, Occurrence
from server.store import IncidentStore, insert_once
from tools.requested import Request, Wish, asked_for, request_ref

# Of these an incident may hold the task instance that a retry is asked for.
ON_A_TASK = (IncidentKind.FAILURE, IncidentKind.STUCK, IncidentKind.STUCK_RUNNING)


def _newest(_dialect: str, _names: tuple[str, ...]) -> Executable:
    query = select(table_of(RequestRow))
    query = query.where(col(RequestRow.incident_id) == bindparam("b_id"))
    return query.order_by(col(RequestRow.id).desc()).limit(1)


NEWEST = Prepared(_newest)


class Requests:
    """What people asked for, in the store. It is `nodes.deps.Requests`."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        store: IncidentStore,
        airflow_id: str,
        clock: Callable[[], datetime],
        audit: AuditTrail | None = None,
    ) -> None:
        self.engine = engine  #: the database, for what else the chat keeps
        self._store = store
        self._airflow_id = airflow_id
        self._clock = clock
        self._audit = audit

    async def of(self, incident_id: int) -> Request | None:
        """The newest request on this incident."""
        with store_errors("reading a request"):
            rows = await NEWEST.look(self.engine, {"b_id": incident_id})
        return Request.model_validate(rows[0]._asdict()) if rows else None

    async def open_on(self, task: TaskRef) -> IncidentRecord | None:
        """The incident that holds this task instance and is not closed."""
        same_map = (
            col(IncidentRow.map_index) >= 0
            if task.map_index >= 0
            else col(IncidentRow.map_index) == task.map_index
        )
        query = select(col(IncidentRow.id)).where(
            col(IncidentRow.open_key).is_not(None),
            col(IncidentRow.kind).in_([one.value for one in ON_A_TASK]),
            col(IncidentRow.airflow) == self._airflow_id,
            col(IncidentRow.dag_id) == task.dag_id,
            col(IncidentRow.run_id) == task.run_id,
            col(IncidentRow.task_id) == task.task_id,
            same_map,
        )
        return await self._first(query)

    async def open_switch(self, dag_id: str) -> IncidentRecord | None:
        """The request about this DAG that is not closed."""
        query = select(col(IncidentRow.id)).where(
            col(IncidentRow.open_key).is_not(None),
            col(IncidentRow.kind) == IncidentKind.REQUEST.value,
            col(IncidentRow.airflow) == self._airflow_id,
            col(IncidentRow.dag_id) == dag_id,
        )
        return await self._first(query)

    async def _first(self, query: Any) -> IncidentRecord | None:
        with store_errors("looking for an incident"):
            async with self.engine.connect() as connection:
                newest = query.order_by(col(IncidentRow.id).desc()).limit(1)
                found = (await connection.execute(newest)).scalar_one_or_none()
        return None if found is None else await self._store.incident(int(found))

    async def retry(self, failure: TaskSnapshot, *, by: str, confirm: bool) -> int:
        """Ask for another try of a failed task instance; the incident's number comes back.

        An incident that was handed to people is given back; one that Airmedic works on is left alone
        (`DecisionConflict`).
        """
        return await self._open(IncidentKind.FAILURE, failure, wish=Wish.RETRY, by=by, confirm=confirm)

    async def switch(
        self, dag_id: str, wish: Wish, *, paused: bool, by: str, until: datetime | None, confirm: bool
    ) -> int:
        """Ask for a DAG to be paused or unpaused; the incident's number comes back."""
        subject = asked_for(request_ref(dag_id, self._clock()), paused=paused)
        return await self._open(IncidentKind.REQUEST, subject, wish=wish, by=by, until=until, confirm=confirm)

    async def _open(
        self,
        kind: IncidentKind,
        subject: TaskSnapshot,
        *,
        wish: Wish,
        by: str,
        confirm: bool,
        until: datetime | None = None,
    ) -> int:
        now = self._clock()
        known = await self.open_on(subject.task) if kind is IncidentKind.FAILURE else None
        with store_errors("storing a request"):
            async with self.engine.begin() as connection:
                if known is None:
                    incident_id = await self._new_incident(connection, kind, subject, now)
                else:
                    incident_id = known.id
                    await self._give_back(connection, known, now)
                row = {"incident_id": incident_id, "wish": wish.value, "by": by, "at": now}
                await connection.execute(insert(RequestRow).values(**row, until=until, confirm=confirm))
                data: dict[str, JsonValue] = {
                    "by": by,
                    "wish": wish.value,
                    "subject": str(subject.task),
                    "until": until.isoformat() if until is not None else None,
                }
                await self._note(connection, incident_id, "requested", data, now)
                if self._audit is not None:
                    entry = AuditEntry(kind="requested", by=by, incident_id=incident_id, data=data)
                    await self._audit.append(connection, entry)
        return incident_id

    async def _new_incident(
        self, connection: AsyncConnection, kind: IncidentKind, subject: TaskSnapshot, now: datetime
    ) -> int:
        occurrence = Occurrence(
            id=0,
            kind=kind,
            airflow=self._airflow_id,
            task=subject.task,
            try_number=subject.try_number,
            door=Door.POLL,
            received_at=now,
        )
        key = open_key(occurrence)
        row = opened(occurrence, subject, key, now)
        created = await connection.execute(insert_once(self.engine, IncidentRow, row))
        if created.rowcount != 1:
            raise DecisionConflict(f"an incident about {subject.task} was opened in this very moment")
        found = await connection.execute(select(col(IncidentRow.id)).where(col(IncidentRow.open_key) == key))
        incident_id: int = found.scalar_one()  # type: ignore[assignment]
        data: dict[str, JsonValue] = {
            "door": "person",
            "kind": kind.value,
            "try_number": subject.try_number,
            "state": subject.state,
            "failed_at": subject.end.isoformat() if subject.end else None,
        }
        await self._note(connection, incident_id, "opened", data, now)
        return incident_id

    async def _give_back(self, connection: AsyncConnection, known: IncidentRecord, now: datetime) -> None:
        """The same as a person's reopening: the graph looks at it afresh, and finds the request."""
        if (await connection.execute(reopening(known.id, now))).rowcount != 1:
            raise DecisionConflict(f"incident {known.id} is {known.status}: Airmedic works on it")

    async def _note(
        self,
        connection: AsyncConnection,
        incident_id: int,
        name: str,
        data: dict[str, JsonValue],
        now: datetime,
    ) -> None:
        line = {"incident_id": incident_id, "at": now, "node": "intake", "level": "info"}
        await connection.execute(insert(EventRow).values(**line, name=name, data=data))
