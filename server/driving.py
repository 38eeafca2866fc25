"""The store's half that drives incidents: leases, what a drive records, and where its graph goes on."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Protocol

from pydantic import JsonValue
from sqlalchemy import (
    ColumnElement,
    Delete,
    Executable,
    Insert,
    Integer,
    Select,
    Update,
    and_,
    bindparam,
    case,
    delete,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel, col

from graph.domain import Part, Status, TaskSnapshot
from graph.errors import LeaseLost
from server.audit.trail import AuditTrail, audited
from server.db.database import store_errors
from server.db.group_writer import GroupWriter, Writing
from server.db.prepared import Prepared, insert_once_in, listed, places
from server.db.rows import incident_of
from server.db.tables import EventRow, IncidentRow, LogRow, OccurrenceRow, table_of
from server.db.tables_work import CauseRow, CheckpointRow
from server.people.notifier import Notice, NoticePost
from server.record import IncidentRecord, Lease
from server.store_reads import MOVING, StoreReads
from tools.aside import aside

LEASE = timedelta(seconds=30)
SETTLING = timedelta(seconds=2)  # in which a lease of our own may not be known yet to who holds it


@dataclass
class Found:
    """What a drive has found and the database does not know yet."""

    events: list[dict[str, Any]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)  #: columns of the incident
    logs: list[dict[str, Any]] = field(default_factory=list)
    notices: Sequence[Notice] = ()
    checkpoint: bytes | None = None  #: None leaves the stored one as it is
    closed: bool = False  #: nothing goes on from here: the checkpoint goes


class Fresh(Enum):
    """How incidents that nobody has looked at yet stand to those that were waited for."""

    ALIKE = "alike"
    FIRST = "first"
    ALONE = "alone"


@dataclass(frozen=True)
class Taken:
    """A leased incident as it was when it was taken up."""

    record: IncidentRecord
    checkpoint: bytes | None
    seen: TaskSnapshot | None = None  #: its task instance, when admission has read it a moment ago


class Taker(Protocol):
    """Who drives what it is handed, without claiming it first."""

    owner: str

    def take(self, lease: Lease, taken: Taken) -> None:
        """Drive this incident, which has just been opened under its lease."""


def insert_once(engine: AsyncEngine, table: type[SQLModel], values: dict[str, Any]) -> Insert:
    """INSERT that does nothing when the row is there already, in the engine's dialect."""
    if engine.dialect.name == "sqlite":
        insertion: Insert = sqlite.insert(table).values(**values).on_conflict_do_nothing()
    else:
        insertion = postgresql.insert(table).values(**values).on_conflict_do_nothing()
    # Without it SQLAlchemy does not say how many rows an INSERT added.
    return insertion.execution_options(preserve_rowcount=True)


def _changing(_dialect: str, names: tuple[str, ...]) -> Update:
    """The leased incident's columns; with `b_since` a ring after that moment is louder than `wake_at`."""
    table = table_of(IncidentRow)
    columns: dict[str, Any] = {
        name: bindparam(name, type_=table.c[name].type) for name in names if name in table.c
    }
    if "b_since" in names:
        rung = table.c.wake_at > bindparam("b_since", type_=table.c.wake_at.type)
        columns["wake_at"] = case((rung, table.c.wake_at), else_=columns["wake_at"])
    ours = and_(table.c.id == bindparam("b_id"), table.c.epoch == bindparam("b_epoch"))
    return update(table).where(ours).values(columns)


def _carrying_on(dialect: str, _names: tuple[str, ...]) -> Insert:
    row: Any = (sqlite if dialect == "sqlite" else postgresql).insert(CheckpointRow)
    carrying: Insert = row.on_conflict_do_update(
        index_elements=["incident_id"], set_={"body": row.excluded.body}
    )
    return carrying


def _forgetting(_dialect: str, _names: tuple[str, ...]) -> Delete:
    return delete(CheckpointRow).where(col(CheckpointRow.incident_id) == bindparam("b_id"))


def _no_longer_standing(_dialect: str, _names: tuple[str, ...]) -> Delete:
    return delete(CauseRow).where(col(CauseRow.incident_id) == bindparam("b_id"))


def _given_back(_dialect: str, _names: tuple[str, ...]) -> Update:
    """Members that nothing was done about when their incident closed: they are looked at afresh."""
    table = table_of(OccurrenceRow)
    left = or_(table.c.part == Part.WAITING.value, table.c.part == Part.RELEASED.value)
    fresh = {"status": "new", "incident_id": None, "part": "", "wave": 0, "checks": 0}
    return update(table).where(table.c.incident_id == bindparam("b_id"), left).values(fresh)


def _due(names: tuple[str, ...]) -> Select[int]:
    """Incidents whose time has come and that nobody drives, the longest due first.

    With `b_fresh`, a status, those that have it go before the others; with `b_only` there are no others.
    """
    table = table_of(IncidentRow)
    now = bindparam("b_now", type_=table.c.wake_at.type)
    moving = table.c.status.in_([literal(status) for status in MOVING])
    due = and_(moving, table.c.wake_at <= now, _free(names))
    if "b_only" in names:
        due = and_(due, table.c.status == bindparam("b_only"))
    number = bindparam("b_limit", type_=Integer())
    order: list[Any] = [table.c.wake_at]
    if "b_fresh" in names:
        order.insert(0, case((table.c.status == bindparam("b_fresh"), 0), else_=1))
    chosen: Select[int] = select(table.c.id).where(due).order_by(*order).limit(number)
    return chosen


def _free(names: tuple[str, ...]) -> ColumnElement[bool]:
    table = table_of(IncidentRow)
    now = bindparam("b_now", type_=table.c.wake_at.type)
    free = or_(table.c.lease_until.is_(None), table.c.lease_until < now)
    if "b_owner" not in names:
        return free
    hands = places("b_hand", names)
    time = table.c.lease_until.type
    # Not what was opened under our lease a moment ago. Of a clock put back since, `lease_until` is too late.
    lately = table.c.lease_until.between(bindparam("b_just", type_=time), bindparam("b_full", type_=time))
    opened = and_(table.c.epoch == literal(0), lately)
    ours = and_(table.c.lease_owner == bindparam("b_owner"), table.c.id.not_in(hands), not_(opened))
    return or_(free, ours)


def _take(_dialect: str, names: tuple[str, ...]) -> Executable:
    table = table_of(IncidentRow)
    # Rows that another process claims at this moment are passed over, not waited for.
    chosen = _due(names).with_for_update(skip_locked=True).scalar_subquery()
    leased = {name: bindparam(name, type_=table.c[name].type) for name in ("lease_owner", "lease_until")}
    taking = update(table).where(table.c.id.in_(chosen), _free(names))
    return taking.values(epoch=table.c.epoch + 1, **leased).returning(table.c.id, table.c.epoch)


def _taken(_dialect: str, names: tuple[str, ...]) -> Executable:
    table = table_of(IncidentRow)
    return (
        select(table, col(CheckpointRow.body))
        .outerjoin(CheckpointRow, col(CheckpointRow.incident_id) == table.c.id)
        .where(table.c.id.in_(places("b_id", names)))
    )


DUE, TAKE, TAKEN = Prepared(lambda _dialect, names: _due(names)), Prepared(_take), Prepared(_taken)
CHANGE = Prepared(_changing)
LINES = Prepared(lambda _dialect, _names: insert(EventRow))
KEEP_LOG = Prepared(lambda dialect, _names: insert_once_in(dialect, LogRow))
CARRY_ON = Prepared(_carrying_on)
FORGET = Prepared(_forgetting)
NO_CAUSE = Prepared(_no_longer_standing)
GIVE_BACK = Prepared(_given_back)


class StoreDriving(StoreReads):
    """Leases, and all that is written under them."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        clock: Callable[[], datetime],
        audit: AuditTrail | None = None,
        post: NoticePost | None = None,
        lease: timedelta = LEASE,
    ) -> None:
        super().__init__(engine, clock=clock)
        self._audit = audit
        self._post = post
        self._lease = lease
        self.writer = GroupWriter(engine, audit=audit)

    async def claim_due(
        self,
        *,
        owner: str,
        limit: int,
        in_hand: Collection[int] | None = None,
        fresh: Fresh = Fresh.ALIKE,
    ) -> list[Lease]:
        """Take the lease of incidents whose time has come. Each claim raises the incident's epoch.

        `fresh`: how those that nobody has looked at yet, or that have an answer, stand to the others.
        With `in_hand`, the incidents that the owner drives now, what else is leased to it is free too: it was
        claimed or driven while the database went away.
        """
        now = self._clock()
        hands: dict[str, Any] = {}
        if in_hand is not None:
            until = now + self._lease
            hands = {"b_owner": owner, "b_just": until - SETTLING, "b_full": until}
            hands |= listed("b_hand", in_hand or (0,))
        given = {"b_now": now, "b_limit": limit, **hands}
        if fresh is not Fresh.ALIKE:
            given["b_fresh" if fresh is Fresh.FIRST else "b_only"] = Status.OPEN.value
        with store_errors("claiming incidents"):
            if not await DUE.look(self._engine, given | {"b_limit": 1}):
                return []
            claiming = given | {"lease_owner": owner, "lease_until": now + self._lease}

            async def claim(writing: Writing) -> list[tuple[int, int]]:
                return await TAKE.fetch(writing.connection, claiming)

            taken = await self.writer.run(claim)
        return [Lease(incident_id=one, epoch=epoch, owner=owner, since=now) for one, epoch in taken]

    async def taken(self, leases: Sequence[Lease]) -> dict[int, Taken]:
        """The leased incidents, by id, and where their graphs go on."""
        given = listed("b_id", [lease.incident_id for lease in leases])
        with store_errors("reading incidents"):
            rows = await TAKEN.look(self._engine, given)
        return {row.id: Taken(incident_of(row), row.body) for row in rows}

    async def free_leases(self, *, dead: Callable[[str], bool]) -> int:
        """Give up the leases whose owner is known to be gone, so that nobody waits for them to run out."""
        held = select(col(IncidentRow.lease_owner)).where(
            col(IncidentRow.status).in_(MOVING), col(IncidentRow.lease_owner).is_not(None)
        )
        with store_errors("reading leases"):
            async with self._engine.connect() as connection:
                owners = [str(owner) for owner in (await connection.execute(held.distinct())).scalars()]
        gone = [owner for owner in owners if dead(owner)]
        if not gone:
            return 0
        freed = update(IncidentRow).where(col(IncidentRow.lease_owner).in_(gone))
        freed = freed.values(lease_owner=None, lease_until=None)

        async def free(writing: Writing) -> int:
            return max((await writing.connection.execute(freed)).rowcount, 0)

        with store_errors("freeing leases"):
            return await self.writer.run(free)

    async def renew(self, lease: Lease) -> None:
        """Keep the lease; raises `LeaseLost` when somebody took it over."""
        await self.record(lease, lease_until=self._clock() + self._lease)

    async def record(
        self,
        lease: Lease,
        *,
        events: Sequence[dict[str, Any]] = (),
        notices: Sequence[Notice] = (),
        **values: object,
    ) -> None:
        """Change the leased incident, its agent log and audit trail, and post notices, in one transaction."""
        found = Found(events=list(events), values=dict(values), notices=notices)

        async def write(writing: Writing) -> None:
            await self.write_found(writing, lease, found)

        with store_errors("recording a step"):
            await self.writer.run(write, beside=True)

    async def write_found(self, writing: Writing, lease: Lease, found: Found) -> None:
        """Write it within a shared transaction. Raises `LeaseLost` when the lease is another's."""
        connection, now, number = writing.connection, self._clock(), lease.incident_id
        named = {"b_id": number, "b_epoch": lease.epoch, "updated_at": now}
        if await CHANGE.run(connection, found.values | named) != 1:
            raise LeaseLost(f"incident {number} is driven by another worker")
        if found.events:
            await LINES.run_many(connection, [self.event_row(number, event, now) for event in found.events])
        for row in found.logs:
            await KEEP_LOG.run(connection, row)
        if found.closed:
            await FORGET.run(connection, {"b_id": number})
            # The cause first: whoever joins at this moment has done so before, or finds nobody to join.
            await NO_CAUSE.run(connection, {"b_id": number})
            await GIVE_BACK.run(connection, {"b_id": number})
        elif found.checkpoint is not None:
            await CARRY_ON.run(connection, {"incident_id": number, "body": found.checkpoint})
        for notice in found.notices:
            if self._post is not None:
                await self._post.post(connection, notice)
        writing.entries += audited(number, found.events)

    @staticmethod
    def event_row(incident_id: int | None, event: dict[str, JsonValue], now: datetime) -> dict[str, Any]:
        """A line of the agent log as its table wants it."""
        return {"incident_id": incident_id, "at": now, "node": "", "level": "info", "data": None, **event}

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
        given_back = self.given_back(lease, wake_at) | values
        await self.record(lease, events=events, notices=notices, **given_back)

    @staticmethod
    def given_back(lease: Lease, wake_at: datetime | None) -> dict[str, Any]:
        """The columns of an incident that nobody drives any more."""
        return {"lease_owner": None, "lease_until": None, "wake_at": wake_at, "b_since": lease.since}


async def log_row(text: str, now: datetime) -> dict[str, Any]:
    """A log as its table wants it: compressed, under its digest."""

    def packed() -> dict[str, Any]:
        body = text.encode("utf-8", "replace")
        name = hashlib.sha256(body).hexdigest()
        return {"digest": name, "body": zlib.compress(body, 6), "size": len(body), "stored_at": now}

    return await aside(packed, size=len(text))
