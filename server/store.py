"""All SQL but the ledger's. Writes for an incident name the lease's epoch; a lost lease changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue
from sqlalchemy import (
    CursorResult,
    Executable,
    Integer,
    Update,
    and_,
    bindparam,
    insert,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlmodel import col

from graph.domain import Answer, AnswerKind, Door, FailureId, IncidentKind, Status, TaskSnapshot
from graph.errors import DecisionConflict, LeaseLost
from server.audit.chain import AuditEntry
from server.audit.trail import audited, bounded
from server.db.arrivals import Arrival, write_arrivals
from server.db.database import store_errors
from server.db.group_writer import Writing
from server.db.prepared import Prepared, insert_once_in
from server.db.rows import occurrence_of, opened_record
from server.db.tables import (
    DecisionRow,
    EventRow,
    IncidentRow,
    LogRow,
    OccurrenceRow,
    SettingRow,
    table_of,
)
from server.db.tables_people import NoticeRow
from server.drift import STEP
from server.driving import FORGET, LINES, NO_CAUSE, Taken, Taker, log_row
from server.driving import LEASE as LEASE
from server.driving import insert_once as insert_once
from server.folding import StoreFolding
from server.members import STAND, cause_row, forget_stale
from server.opening import open_key, opened, reopening
from server.record import IncidentRecord, Lease, Occurrence
from server.store_reads import ENDED, MOVING
from tools.correlation import Cause

LONGEST_PAUSE = timedelta(seconds=60)  # between two questions about one occurrence
OPENED = Prepared(lambda dialect, _names: insert_once_in(dialect, IncidentRow))
# Locked: it is not closed until who found it there has joined it.
OF_KEY = Prepared(
    lambda _dialect, _names: (
        select(col(IncidentRow.id)).where(col(IncidentRow.open_key) == bindparam("b_key")).with_for_update()
    )
)


def _belonging(_dialect: str, _names: tuple[str, ...]) -> Update:
    table = table_of(OccurrenceRow)
    columns: dict[str, Any] = {name: bindparam(name) for name in ("status", "incident_id")}
    new = table.c.status == literal("new")
    return update(table).where(table.c.id == bindparam("b_id"), new).values(columns)


def _new(_dialect: str, _names: tuple[str, ...]) -> Executable:
    table = table_of(OccurrenceRow)
    due = and_(
        table.c.status == literal("new"),
        table.c.check_at <= bindparam("b_now", type_=table.c.check_at.type),
    )
    return select(table).where(due).order_by(table.c.id).limit(bindparam("b_limit", type_=Integer()))


BELONGS = Prepared(_belonging)
NEW = Prepared(_new)


class IncidentStore(StoreFolding):
    """Incidents, occurrences, decisions, logs and the agent log, in SQLite or Postgres."""

    # --- coming in ---

    async def accept(
        self, failures: Sequence[FailureId], *, door: Door, error: str = "", delivery: str | None = None
    ) -> int:
        """Store failures that were not known yet; committed on return. The number of new ones comes back.

        What the error says is redacted before it is stored.
        """
        rows: list[dict[str, Any]] = [
            {
                "airflow": failure.airflow,
                "dag_id": failure.task.dag_id,
                "run_id": failure.task.run_id,
                "task_id": failure.task.task_id,
                "map_index": failure.task.map_index,
                "try_number": failure.try_number,
                "kind": failure.kind.value,
                "door": door.value,
                "checks": 0,
                "status": "new",
                "reason": "",
            }
            for failure in failures
        ]
        arrival = Arrival(rows, error=error, delivery=delivery)
        with store_errors("storing an event"):
            return await self.writer.run_together(self._write_arrivals, arrival)

    async def _write_arrivals(self, writing: Writing, arrivals: Sequence[Arrival]) -> list[int]:
        return await write_arrivals(writing, arrivals, now=self._clock())

    async def new_occurrences(self, *, limit: int = 50) -> list[Occurrence]:
        """Occurrences that no incident holds yet and whose check is due, oldest first."""
        with store_errors("reading events"):
            rows = await NEW.look(self._engine, {"b_now": self._clock(), "b_limit": limit})
        return [occurrence_of(row) for row in rows]

    async def reject_occurrence(self, occurrence_id: int, reason: str) -> None:
        """It is no failure: nothing comes of it."""
        await self._set_occurrence(occurrence_id, status="rejected", reason=reason)

    async def postpone_occurrence(self, occurrence: Occurrence, *, until: datetime) -> None:
        """Airflow could not be asked; ask again later."""
        await self._set_occurrence(occurrence.id, check_at=until, checks=occurrence.checks + 1)

    async def _set_occurrence(self, occurrence_id: int, **values: object) -> None:
        with store_errors("marking an event"):
            async with self._engine.begin() as connection:
                ours = and_(col(OccurrenceRow.id) == occurrence_id, col(OccurrenceRow.status) == "new")
                await connection.execute(update(OccurrenceRow).where(ours).values(**values))

    async def open_incident(
        self,
        occurrence: Occurrence,
        snapshot: TaskSnapshot,
        *,
        data: JsonValue = None,
        cause: Cause | None = None,
        taker: Taker | None = None,
    ) -> tuple[int, bool]:
        """The incident this occurrence belongs to, and whether it is new. An open one is woken.

        With `data` the agent log says in the same transaction that it was opened or joined. With `cause` it
        stands for that from now on, unless another one does. A new one is opened under the lease of `taker`,
        who is handed it at once. Raises `LeaseLost` when another process has decided about this occurrence
        since it was read.
        """
        now = self._clock()
        key = await self._key_of_open(occurrence) or open_key(occurrence)
        row = opened(occurrence, snapshot, key, now)
        if taker is not None:
            row |= {"lease_owner": taker.owner, "lease_until": now + self._lease}

        async def write(writing: Writing) -> tuple[int, bool]:
            connection = writing.connection
            created = False
            found: list[Any] = []
            while not found:  # it may be closed between the two
                created = bool(await OPENED.run(connection, row))
                found = await OF_KEY.fetch(connection, {"b_key": key})
            incident_id = found[0][0]
            if not created:
                await self._rouse(connection, incident_id, occurrence, now)
            belongs = {"status": "incident", "incident_id": incident_id, "b_id": occurrence.id}
            if not await BELONGS.run(connection, belongs):
                raise LeaseLost(f"event {occurrence.id} was taken up by another process")
            if created and cause is not None:
                await forget_stale(connection, [cause.key], now)
                await STAND.run(connection, cause_row(cause, incident_id, now))
            if data is not None:
                await self._note_opening(connection, incident_id, data, now, created=created)
            return incident_id, created

        with store_errors("opening an incident"):
            incident_id, created = await self.writer.run(write)
        if created and taker is not None:
            lease = Lease(incident_id=incident_id, epoch=0, owner=taker.owner, since=now)
            seen = snapshot if occurrence.kind is IncidentKind.FAILURE else None
            taker.take(lease, Taken(opened_record(row | {"id": incident_id}), None, seen=seen))
        return incident_id, created

    async def _note_opening(
        self, connection: AsyncConnection, incident_id: int, data: JsonValue, now: datetime, *, created: bool
    ) -> None:
        event: dict[str, Any] = {"name": "opened" if created else "joined", "node": "intake", "data": data}
        await LINES.run(connection, self.event_row(incident_id, event, now))

    async def _rouse(
        self, connection: AsyncConnection, incident_id: int, occurrence: Occurrence, now: datetime
    ) -> None:
        mine = update(IncidentRow).where(col(IncidentRow.id) == incident_id)
        awake = col(IncidentRow.status) != Status.ESCALATED.value
        await connection.execute(mine.where(awake).values(wake_at=now))
        # Somebody ran it again and it failed again: that is news, even with a person.
        again = col(IncidentRow.try_number) < occurrence.try_number
        await connection.execute(reopening(incident_id, now).where(again))

    async def _key_of_open(self, occurrence: Occurrence) -> str | None:
        """A map index that the poll found without its error joins what its siblings opened."""
        if occurrence.error or occurrence.task.map_index < 0:
            return None
        query = (
            select(IncidentRow)
            .where(
                col(IncidentRow.open_key).is_not(None),
                col(IncidentRow.kind) == occurrence.kind.value,
                col(IncidentRow.airflow) == occurrence.airflow,
                col(IncidentRow.dag_id) == occurrence.task.dag_id,
                col(IncidentRow.run_id) == occurrence.task.run_id,
                col(IncidentRow.task_id) == occurrence.task.task_id,
            )
            .order_by(col(IncidentRow.id))
            .limit(1)
        )
        rows = await self._rows(query)
        return rows[0].open_key if rows else None

    async def withdraw(self, incident_id: int, *, version: int, reason: str) -> None:
        """The world moved under a question or a timer: the plan is looked at afresh, the question is gone."""
        answer = Answer(kind=AnswerKind.STALE, by="airmedic", message=reason)
        await self._write(
            update(IncidentRow)
            .where(
                col(IncidentRow.id) == incident_id,
                col(IncidentRow.version) == version,
                col(IncidentRow.status) == Status.WAITING_DECISION.value,
            )
            .values(answer=answer.model_dump(mode="json"), status=Status.OPEN.value, wake_at=self._clock())
        )

    async def add_event(self, name: str, *, incident_id: int | None = None, **event: Any) -> None:
        """One line in the agent log, outside any incident's lease."""
        with store_errors("writing the agent log"):
            async with self._engine.begin() as connection:
                line = {"name": name, **event}
                await connection.execute(
                    insert(EventRow).values(**self.event_row(incident_id, line, self._clock()))
                )
                await self._audit_last(connection, audited(incident_id, [line]))

    async def wake(self, runs: Collection[tuple[str, str]]) -> int:
        """Make the incidents of these (dag, run) pairs due now, but for those that wait for a person."""
        asleep = [status.value for status in (*ENDED, Status.WAITING_DECISION)]
        woken = 0
        for dag_id, run_id in sorted(runs):
            woken += await self._write(
                update(IncidentRow)
                .where(
                    col(IncidentRow.dag_id) == dag_id,
                    col(IncidentRow.run_id) == run_id,
                    col(IncidentRow.status).not_in(asleep),
                )
                .values(wake_at=self._clock())
            )
        return woken

    async def sleeps_by_another_clock(self) -> bool:
        """Whether something sleeps that was put to sleep in time to come: by a clock that is put back since.

        Who runs meanwhile notices that itself. This finds what was stored by somebody who is gone, or stored
        a moment after all sleepers were woken.
        """
        now = self._clock()
        ahead = now + timedelta(seconds=STEP)
        moving = [status for status in MOVING if status != Status.WAITING_DECISION.value]
        told = and_(
            col(OccurrenceRow.status) == "new",
            col(OccurrenceRow.check_at) > now,
            or_(
                col(OccurrenceRow.received_at) > ahead,
                col(OccurrenceRow.check_at) > ahead + LONGEST_PAUSE,
            ),
        )
        driven = and_(
            col(IncidentRow.status).in_(moving),
            col(IncidentRow.wake_at) > now,
            col(IncidentRow.updated_at) > ahead,
        )
        asked = select(
            or_(
                select(col(OccurrenceRow.id)).where(told).exists(),
                select(col(IncidentRow.id)).where(driven).exists(),
            )
        )
        with store_errors("looking for sleepers"):
            async with self._engine.connect() as connection:
                return bool((await connection.execute(asked)).scalar_one())

    async def wake_sleepers(self) -> int:
        """Make due now whatever sleeps until some time, when that time was of another clock."""
        now = self._clock()
        asleep = [status.value for status in (*ENDED, Status.WAITING_DECISION)]
        sleeping = and_(col(IncidentRow.status).not_in(asleep), col(IncidentRow.wake_at) > now)
        postponed = and_(col(OccurrenceRow.status) == "new", col(OccurrenceRow.check_at) > now)
        await self._write(update(OccurrenceRow).where(postponed).values(check_at=now))
        untold = and_(col(NoticeRow.status) == "due", col(NoticeRow.due_at) > now)
        await self._write(update(NoticeRow).where(untold).values(due_at=now))
        return await self._write(update(IncidentRow).where(sleeping).values(wake_at=now))

    # --- people ---

    async def answer(self, incident_id: int, *, version: int, answer: Answer) -> IncidentRecord:
        """Store the first answer to the question of this version and make the incident due.

        Raises `IncidentNotFound`, or `DecisionConflict` when nothing is asked, the version is another, the
        time is over, or somebody answered first.
        """
        now = self._clock()
        asked = and_(
            col(IncidentRow.id) == incident_id,
            col(IncidentRow.version) == version,
            col(IncidentRow.status) == Status.WAITING_DECISION.value,
            or_(col(IncidentRow.expires_at).is_(None), col(IncidentRow.expires_at) > now),
        )
        values = {"answer": answer.model_dump(mode="json"), "status": Status.OPEN.value, "wake_at": now}
        given = DecisionRow(
            incident_id=incident_id,
            version=version,
            at=now,
            **answer.model_dump(mode="json"),
        )
        try:
            with store_errors("storing a decision"):
                async with AsyncSession(self._engine) as session, session.begin():
                    result = await session.execute(update(IncidentRow).where(asked).values(**values))
                    if not isinstance(result, CursorResult) or result.rowcount != 1:
                        raise DecisionConflict(await self._why_not(incident_id, version))
                    session.add(given)
                    await session.flush()
                    await self._audit_last(await session.connection(), [_answered(given)])
        except IntegrityError as exc:
            raise DecisionConflict(f"incident {incident_id} was answered already") from exc
        return await self.incident(incident_id)

    async def end_question(self, lease: Lease) -> IncidentRecord:
        """Take no answers any more; the incident as it is then, with an answer that came before."""
        asked = and_(
            col(IncidentRow.id) == lease.incident_id,
            col(IncidentRow.epoch) == lease.epoch,
            col(IncidentRow.status) == Status.WAITING_DECISION.value,
        )
        await self._write(update(IncidentRow).where(asked).values(status=Status.OPEN.value))
        return await self.incident(lease.incident_id)

    async def _why_not(self, incident_id: int, version: int) -> str:
        record = await self.incident(incident_id)
        if record.version != version:
            return f"incident {incident_id} moved on: it is at version {record.version}, not {version}"
        if record.status is not Status.WAITING_DECISION:
            return f"incident {incident_id} asks nothing now; it is {record.status}"
        return f"the question of incident {incident_id} has expired"

    async def reopen(self, incident_id: int, *, by: str, reason: str) -> IncidentRecord:
        """A person gives an escalated incident back: it is looked at afresh, spent plans stay spent."""
        entry = AuditEntry(kind="reopened", by=by, incident_id=incident_id, data={"reason": reason})
        done = await self._write(reopening(incident_id, self._clock()), entry=entry)
        record = await self.incident(incident_id)
        if not done:
            raise DecisionConflict(
                f"incident {incident_id} is {record.status}; only an escalated one is reopened"
            )
        await self.add_event("reopened", incident_id=incident_id, data={"by": by, "reason": reason})
        return record

    async def close(self, incident_id: int, *, by: str, reason: str) -> IncidentRecord:
        """A person closes an escalated incident with all that joined it; who comes now finds it closed."""
        now = self._clock()
        closing = (
            update(IncidentRow)
            .where(col(IncidentRow.id) == incident_id, col(IncidentRow.status) == Status.ESCALATED.value)
            .values(status=Status.CLOSED.value, closed_at=now, updated_at=now, open_key=None, wake_at=None)
        )
        line: dict[str, JsonValue] = {"name": "closed", "data": {"by": by, "reason": reason}}
        entry = AuditEntry(kind="closed", by=by, incident_id=incident_id, data={"reason": reason})

        async def write(writing: Writing) -> bool:
            connection = writing.connection
            if (await connection.execute(closing)).rowcount != 1:
                return False
            await NO_CAUSE.run(connection, {"b_id": incident_id})
            await FORGET.run(connection, {"b_id": incident_id})
            await LINES.run(connection, self.event_row(incident_id, line, now))
            writing.entries.append(entry)
            return True

        with store_errors("closing an incident"):
            done = await self.writer.run(write)
        record = await self.incident(incident_id)
        if not done:
            raise DecisionConflict(
                f"incident {incident_id} is {record.status}; only an escalated one is closed"
            )
        return record

    # --- logs and settings ---

    async def put_log(self, text: str) -> str:
        """Store a redacted log once; its digest comes back."""
        row = await log_row(text, self._clock())
        await self._write(insert_once(self._engine, LogRow, row))
        return str(row["digest"])

    async def remember(self, key: str, value: JsonValue, *, entry: AuditEntry | None = None) -> None:
        """Remember a value under this key; with `entry`, the audit trail says so in the same transaction."""
        now = self._clock()
        await self._write(
            insert_once(self._engine, SettingRow, {"key": key, "value": value, "updated_at": now})
        )
        await self._write(
            update(SettingRow).where(col(SettingRow.key) == key).values(value=value, updated_at=now),
            entry=entry,
        )

    async def _audit_last(self, connection: AsyncConnection, entries: Sequence[AuditEntry]) -> None:
        """The last statements of a transaction: the audit trail's head is locked until it commits."""
        if entries and self._audit is not None:
            await self._audit.append_all(connection, entries)

    async def _write(self, statement: Any, *, entry: AuditEntry | None = None) -> int:
        with store_errors("writing"):
            async with self._engine.begin() as connection:
                done = max((await connection.execute(statement)).rowcount, 0)
                if done and entry is not None:
                    await self._audit_last(connection, [entry])
                return done


def _answered(given: DecisionRow) -> AuditEntry:
    data: dict[str, JsonValue] = {
        "kind": given.kind,
        "version": given.version,
        "message": given.message,
        "plan_id": given.plan_id,
        "args": bounded(given.args),
    }
    return AuditEntry(kind="answered", by=given.by, incident_id=given.incident_id, data=data)
