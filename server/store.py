"""All SQL but the ledger's. Writes for an incident name the lease's epoch; a lost lease changes nothing."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue
from sqlalchemy import CursorResult, Insert, Update, and_, case, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlmodel import SQLModel, col

from graph.domain import Answer, AnswerKind, Door, FailureId, Status, TaskSnapshot, digest
from graph.errors import DecisionConflict, LeaseLost
from server.audit import AuditTrail, audited, bounded
from server.audit_chain import AuditEntry
from server.database import store_errors
from server.notifier import Notice, NoticePost
from server.record import IncidentRecord, Lease, Occurrence
from server.rows import occurrence_of
from server.store_reads import ENDED, StoreReads
from server.tables import (
    DecisionRow,
    DeliveryRow,
    EventRow,
    IncidentRow,
    LogRow,
    OccurrenceRow,
    SettingRow,
)
from tools.signature import template

REOPENED = {"reopened": True}  # stands in `answer` until the graph has begun again
LEASE = timedelta(seconds=30)


def open_key(occurrence: Occurrence) -> str:
    """What one open incident is about, for the unique index: a task, or a mapped task with one error.

    The map indexes of one task that fail with the same error have one cause, and are one incident.
    """
    task = occurrence.task
    error = template(occurrence.error) if task.map_index >= 0 else ""
    return digest(
        [
            occurrence.kind,
            occurrence.airflow,
            task.dag_id,
            task.run_id,
            task.task_id,
            task.map_index >= 0,
            error,
        ]
    )


def insert_once(engine: AsyncEngine, table: type[SQLModel], values: dict[str, Any]) -> Insert:
    """INSERT that does nothing when the row is there already, in the engine's dialect."""
    if engine.dialect.name == "sqlite":
        insertion: Insert = sqlite.insert(table).values(**values).on_conflict_do_nothing()
    else:
        insertion = postgresql.insert(table).values(**values).on_conflict_do_nothing()
    # Without it SQLAlchemy does not say how many rows an INSERT added.
    return insertion.execution_options(preserve_rowcount=True)


class IncidentStore(StoreReads):
    """Incidents, occurrences, decisions, logs and the agent log, in SQLite or Postgres."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        clock: Callable[[], datetime],
        audit: AuditTrail | None = None,
        post: NoticePost | None = None,
    ) -> None:
        super().__init__(engine, clock=clock)
        self._audit = audit
        self._post = post

    # --- coming in ---

    async def accept(
        self, failures: Sequence[FailureId], *, door: Door, error: str = "", delivery: str | None = None
    ) -> int:
        """Store failures that were not known yet; committed on return. The number of new ones comes back."""
        now = self._clock()
        new = 0
        with store_errors("storing an event"):
            async with self._engine.begin() as connection:
                if delivery is not None:
                    row = {"webhook_id": delivery, "received_at": now}
                    if not await self._insert_once(connection, DeliveryRow, row):
                        return 0
                for failure in failures:
                    row = {
                        "airflow": failure.airflow,
                        **failure.task.model_dump(),
                        "try_number": failure.try_number,
                        "kind": failure.kind.value,
                        "door": door.value,
                        "received_at": now,
                        "check_at": now,
                        "checks": 0,
                        "status": "new",
                        "reason": "",
                        "error": error.replace("\0", "")[:2000],
                    }
                    new += await self._insert_once(connection, OccurrenceRow, row)
        return new

    async def _insert_once(
        self, connection: AsyncConnection, table: type[SQLModel], values: dict[str, Any]
    ) -> int:
        result = await connection.execute(insert_once(self._engine, table, values))
        return max(result.rowcount, 0)

    async def new_occurrences(self, *, limit: int = 50) -> list[Occurrence]:
        """Occurrences that no incident holds yet and whose check is due, oldest first."""
        query = (
            select(OccurrenceRow)
            .where(col(OccurrenceRow.status) == "new", col(OccurrenceRow.check_at) <= self._clock())
            .order_by(col(OccurrenceRow.id))
            .limit(limit)
        )
        return [occurrence_of(row) for row in await self._rows(query)]

    async def reject_occurrence(self, occurrence_id: int, reason: str) -> None:
        """It is no failure: nothing comes of it."""
        await self._set_occurrence(occurrence_id, status="rejected", reason=reason)

    async def postpone_occurrence(self, occurrence: Occurrence, *, until: datetime) -> None:
        """Airflow could not be asked; ask again later."""
        await self._set_occurrence(occurrence.id, check_at=until, checks=occurrence.checks + 1)

    async def _set_occurrence(self, occurrence_id: int, **values: object) -> None:
        with store_errors("marking an event"):
            async with self._engine.begin() as connection:
                await connection.execute(
                    update(OccurrenceRow).where(col(OccurrenceRow.id) == occurrence_id).values(**values)
                )

    async def open_incident(self, occurrence: Occurrence, snapshot: TaskSnapshot) -> tuple[int, bool]:
        """The incident this occurrence belongs to, and whether it is new. An open one is woken."""
        now = self._clock()
        key = await self._key_of_open(occurrence) or open_key(occurrence)
        row = {
            "open_key": key,
            "kind": occurrence.kind.value,
            "airflow": occurrence.airflow,
            **occurrence.task.model_dump(),
            "try_number": occurrence.try_number,
            "operator": snapshot.operator,
            "severity": "high",
            "status": Status.OPEN.value,
            "reason": "",
            "version": 1,
            "attempt": 0,
            "failures": 0,
            "epoch": 0,
            "opened_at": now,
            "updated_at": now,
            "wake_at": now,
            "failed_at": snapshot.end,
        }
        with store_errors("opening an incident"):
            async with self._engine.begin() as connection:
                created = bool(await self._insert_once(connection, IncidentRow, row))
                found = await connection.execute(
                    select(col(IncidentRow.id)).where(col(IncidentRow.open_key) == key)
                )
                incident_id: int = found.scalar_one()  # type: ignore[assignment]
                if not created:
                    mine = update(IncidentRow).where(col(IncidentRow.id) == incident_id)
                    awake = col(IncidentRow.status) != Status.ESCALATED.value
                    await connection.execute(mine.where(awake).values(wake_at=now))
                    # Somebody ran it again and it failed again: that is news, even with a person.
                    again = col(IncidentRow.try_number) < occurrence.try_number
                    await connection.execute(self._reopening(incident_id, now).where(again))
                await connection.execute(
                    update(OccurrenceRow)
                    .where(col(OccurrenceRow.id) == occurrence.id)
                    .values(status="incident", incident_id=incident_id)
                )
        return incident_id, created

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

    # --- driving ---

    async def claim_due(self, *, owner: str, limit: int) -> list[Lease]:
        """Take the lease of incidents whose time has come. Each claim raises the incident's epoch."""
        now = self._clock()
        free = or_(col(IncidentRow.lease_until).is_(None), col(IncidentRow.lease_until) < now)
        due = and_(
            col(IncidentRow.status).not_in([status.value for status in ENDED]),
            col(IncidentRow.wake_at) <= now,
            free,
        )
        query = select(col(IncidentRow.id), col(IncidentRow.epoch)).where(due)
        leases = []
        with store_errors("claiming incidents"):
            async with self._engine.connect() as connection:
                seen = (await connection.execute(query.order_by(col(IncidentRow.wake_at)).limit(limit))).all()
            for incident_id, epoch in seen:
                claim = (
                    update(IncidentRow)
                    .where(col(IncidentRow.id) == incident_id, col(IncidentRow.epoch) == epoch, free)
                    .values(epoch=epoch + 1, lease_owner=owner, lease_until=now + LEASE)
                )
                if await self._write(claim):
                    leases.append(Lease(incident_id=incident_id, epoch=epoch + 1, owner=owner, since=now))
        return leases

    async def free_leases(self, *, dead: Callable[[str], bool]) -> int:
        """Give up the leases whose owner is known to be gone, so that nobody waits for them to run out."""
        held = select(col(IncidentRow.lease_owner)).where(col(IncidentRow.lease_owner).is_not(None))
        with store_errors("reading leases"):
            async with self._engine.connect() as connection:
                owners = [str(owner) for owner in (await connection.execute(held.distinct())).scalars()]
        gone = [owner for owner in owners if dead(owner)]
        if not gone:
            return 0
        freed = update(IncidentRow).where(col(IncidentRow.lease_owner).in_(gone))
        return await self._write(freed.values(lease_owner=None, lease_until=None))

    async def renew(self, lease: Lease) -> None:
        """Keep the lease; raises `LeaseLost` when somebody took it over."""
        await self.record(lease, lease_until=self._clock() + LEASE)

    async def record(
        self,
        lease: Lease,
        *,
        events: Sequence[dict[str, Any]] = (),
        notices: Sequence[Notice] = (),
        **values: object,
    ) -> None:
        """Change the leased incident, its agent log and audit trail, and post notices, in one transaction."""
        now = self._clock()
        change = (
            update(IncidentRow)
            .where(col(IncidentRow.id) == lease.incident_id, col(IncidentRow.epoch) == lease.epoch)
            .values(updated_at=now, **values)
        )
        with store_errors("recording a step"):
            async with self._engine.begin() as connection:
                result = await connection.execute(change)
                if result.rowcount != 1:
                    raise LeaseLost(f"incident {lease.incident_id} is driven by another worker")
                for event in events:
                    await connection.execute(self._event_insert(lease.incident_id, event, now))
                await self._tell_and_audit(connection, notices, audited(lease.incident_id, events))

    async def _tell_and_audit(
        self, connection: AsyncConnection, notices: Sequence[Notice], entries: Sequence[AuditEntry]
    ) -> None:
        """The last statements of a transaction: the audit trail's head is locked until it commits."""
        for notice in notices:
            if self._post is not None:
                await self._post.post(connection, notice)
        for entry in entries:
            if self._audit is not None:
                await self._audit.append(connection, entry)

    @staticmethod
    def _event_insert(incident_id: int | None, event: dict[str, Any], now: datetime) -> Insert:
        return insert(EventRow).values(
            **{"incident_id": incident_id, "at": now, "node": "", "level": "info", "data": None, **event}
        )

    async def settle(
        self,
        lease: Lease,
        *,
        wake_at: datetime | None,
        events: Sequence[dict[str, Any]] = (),
        notices: Sequence[Notice] = (),
        **values: object,
    ) -> None:
        """Give the lease back and sleep until `wake_at`, or not at all when somebody rang meanwhile."""
        rung = case((col(IncidentRow.wake_at) > lease.since, col(IncidentRow.wake_at)), else_=wake_at)
        given_back: dict[str, Any] = {"lease_owner": None, "lease_until": None, "wake_at": rung, **values}
        await self.record(lease, events=events, notices=notices, **given_back)

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
                await connection.execute(self._event_insert(incident_id, line, self._clock()))
                await self._tell_and_audit(connection, (), audited(incident_id, [line]))

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
                    await self._tell_and_audit(await session.connection(), (), [_answered(given)])
        except IntegrityError as exc:
            raise DecisionConflict(f"incident {incident_id} was answered already") from exc
        return await self.incident(incident_id)

    async def _why_not(self, incident_id: int, version: int) -> str:
        record = await self.incident(incident_id)
        if record.version != version:
            return f"incident {incident_id} moved on: it is at version {record.version}, not {version}"
        if record.status is not Status.WAITING_DECISION:
            return f"incident {incident_id} asks nothing now; it is {record.status}"
        return f"the question of incident {incident_id} has expired"

    @staticmethod
    def _reopening(incident_id: int, now: datetime) -> Update:
        return (
            update(IncidentRow)
            .where(col(IncidentRow.id) == incident_id, col(IncidentRow.status) == Status.ESCALATED.value)
            .values(
                status=Status.OPEN.value,
                outcome=None,
                reason="",
                answer=REOPENED,
                wake_at=now,
                updated_at=now,
                version=col(IncidentRow.version) + 1,
            )
        )

    async def reopen(self, incident_id: int, *, by: str, reason: str) -> IncidentRecord:
        """A person gives an escalated incident back: it is looked at afresh, spent plans stay spent."""
        entry = AuditEntry(kind="reopened", by=by, incident_id=incident_id, data={"reason": reason})
        done = await self._write(self._reopening(incident_id, self._clock()), entry=entry)
        record = await self.incident(incident_id)
        if not done:
            raise DecisionConflict(
                f"incident {incident_id} is {record.status}; only an escalated one is reopened"
            )
        await self.add_event("reopened", incident_id=incident_id, data={"by": by, "reason": reason})
        return record

    async def close(self, incident_id: int, *, by: str, reason: str) -> IncidentRecord:
        """A person closes an escalated incident."""
        now = self._clock()
        closing = (
            update(IncidentRow)
            .where(col(IncidentRow.id) == incident_id, col(IncidentRow.status) == Status.ESCALATED.value)
            .values(status=Status.CLOSED.value, closed_at=now, updated_at=now, open_key=None, wake_at=None)
        )
        entry = AuditEntry(kind="closed", by=by, incident_id=incident_id, data={"reason": reason})
        done = await self._write(closing, entry=entry)
        record = await self.incident(incident_id)
        if not done:
            raise DecisionConflict(
                f"incident {incident_id} is {record.status}; only an escalated one is closed"
            )
        await self.add_event("closed", incident_id=incident_id, data={"by": by, "reason": reason})
        return record

    # --- logs and settings ---

    async def put_log(self, text: str) -> str:
        """Store a redacted log once; its digest comes back."""
        body = text.encode("utf-8", "replace")
        name = hashlib.sha256(body).hexdigest()
        row = {
            "digest": name,
            "body": zlib.compress(body, 6),
            "size": len(body),
            "stored_at": self._clock(),
        }
        await self._write(insert_once(self._engine, LogRow, row))
        return name

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

    async def _write(self, statement: Any, *, entry: AuditEntry | None = None) -> int:
        with store_errors("writing"):
            async with self._engine.begin() as connection:
                done = max((await connection.execute(statement)).rowcount, 0)
                if done and entry is not None:
                    await self._tell_and_audit(connection, (), [entry])
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
