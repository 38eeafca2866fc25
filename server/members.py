"""The failures that joined an incident for its cause: rows of the store, written with the drive's draft."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Executable, and_, bindparam, delete, exists, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import IncidentKind, MemberCounts, Part, Status, TaskRef
from nodes.deps import REFUSED, Fate, Joined, Member
from server.correlation import CauseLook
from server.db.database import store_errors
from server.db.group_writer import Writing
from server.db.prepared import Prepared, insert_once_in, listed, places
from server.db.tables import EventRow, IncidentRow, OccurrenceRow, table_of
from server.db.tables_work import CauseRow
from server.draft import Draft
from server.driving import GIVE_BACK, LINES, NO_CAUSE, Found, StoreDriving
from server.record import IncidentRecord
from tools.correlation import Cause
from tools.diagnosis import Case

TOLD = 20  # lines about joined incidents
CHUNK = 500  # rows that one statement names
SAME_TASK = ("airflow", "dag_id", "run_id", "task_id", "map_index", "kind")
FRESH = timedelta(hours=1)  # after its last failure, in which a cause that a person has takes in more


def _stands(_dialect: str, _names: tuple[str, ...]) -> Executable:
    return select(col(CauseRow.key)).where(col(CauseRow.incident_id) == bindparam("b_id")).limit(1)


def _owners(_dialect: str, names: tuple[str, ...]) -> Executable:
    """Who else stands for these causes, the oldest incident."""
    row = CauseRow
    return (
        select(col(row.incident_id), col(row.resource))
        .where(col(row.key).in_(places("b_key", names)), col(row.incident_id) != bindparam("b_id"))
        .order_by(col(row.incident_id))
        .with_for_update(read=True)
    )


def _standing(_dialect: str, _names: tuple[str, ...]) -> Executable:
    row = CauseRow
    return select(col(row.resource), col(row.family)).where(col(row.incident_id) == bindparam("b_id"))


def _forgetting_stale(_dialect: str, names: tuple[str, ...]) -> Executable:
    cause, incident = table_of(CauseRow), table_of(IncidentRow)
    with_person = select(incident.c.id).where(incident.c.status == Status.ESCALATED.value)
    of_it = incident.c.id == cause.c.incident_id
    old = cause.c.seen_at < bindparam("b_old", type_=cause.c.seen_at.type)
    left = and_(old, with_person.where(of_it).exists())
    over = ~select(incident.c.id).where(of_it, incident.c.open_key.is_not(None)).exists()
    return delete(cause).where(cause.c.key.in_(places("b_key", names)), or_(left, over))


def _ours(_dialect: str, names: tuple[str, ...]) -> Executable:
    row = CauseRow
    mine = col(row.incident_id) == bindparam("b_id")
    return select(col(row.key)).where(col(row.key).in_(places("b_key", names)), mine)


OURS, STANDING = Prepared(_ours), Prepared(_standing)
STANDS, OWNERS, FORGET_STALE = Prepared(_stands), Prepared(_owners), Prepared(_forgetting_stale)
STAND = Prepared(lambda dialect, _names: insert_once_in(dialect, CauseRow))


class StoreMembers:
    """`nodes.deps.Members` on the store, for one drive of one incident."""

    def __init__(
        self,
        engine: AsyncEngine,
        store: StoreDriving,
        draft: Draft,
        record: IncidentRecord,
        *,
        look: CauseLook | None,
        clock: Callable[[], datetime],
    ) -> None:
        self._engine = engine
        self._store = store
        self._draft = draft
        self._record = record
        self._look = look
        self._clock = clock
        self._moves: list[Any] = []  # statements that go with the draft
        self._writing = 0
        draft.parts.append(self)

    # --- one cause, one incident ---

    async def join(self, case: Case) -> Joined | None:
        """Stand for the causes that knowledge reads in the log, or join who stands for one of them."""
        if self._look is None or self._record.kind is not IncidentKind.FAILURE:
            return None
        causes = await self._look.of_case(self._record.airflow, case)
        if not causes or await self._stands_already(causes):
            return None
        lease, now = self._draft.lease, self._clock()

        async def write(writing: Writing) -> Joined | None:
            await self._store.write_found(writing, lease, Found())
            return await self._claim(writing.connection, causes, now)

        with store_errors("looking for others of the same cause"):
            return await self._store.writer.run(write)

    async def _stands_already(self, causes: Sequence[Cause]) -> bool:
        """Whether this incident stands for all of them since intake: then nobody else does."""
        given = {"b_id": self._record.id, **listed("b_key", [one.key for one in causes])}
        with store_errors("looking for others of the same cause"):
            held = await OURS.look(self._engine, given)
        return {row.key for row in held} == {one.key for one in causes}

    async def _claim(
        self, connection: AsyncConnection, causes: Sequence[Cause], now: datetime
    ) -> Joined | None:
        keys = [one.key for one in causes]
        await forget_stale(connection, keys, now)
        ours = bool(await STANDS.fetch(connection, {"b_id": self._record.id}))
        for one in causes:
            await STAND.run(connection, cause_row(one, self._record.id, now))
        owners = await OWNERS.fetch(connection, {"b_id": self._record.id, **listed("b_key", keys)})
        found = owners[0] if owners else None
        # Two that stand for a cause each and meet: the younger joins the older, never both each other.
        if found is None or (ours and found[0] > self._record.id):
            return None
        await self._move_to(connection, found[0], now)
        return Joined(incident_id=found[0], resource=found[1])

    async def _move_to(self, connection: AsyncConnection, target: int, now: datetime) -> None:
        mine = self._record.id
        row = OccurrenceRow
        for statement in (
            update(row)
            .where(col(row.incident_id) == mine, col(row.part) == "")
            .values(part=Part.WAITING.value),
            update(row).where(col(row.incident_id) == mine).values(incident_id=target),
            update(CauseRow).where(col(CauseRow.incident_id) == mine).values(incident_id=target),
            update(CauseRow).where(col(CauseRow.incident_id) == target).values(seen_at=now),
            rousing(target, now),
        ):
            await connection.execute(statement)
        if await self._few_lines(connection, target):
            event: dict[str, JsonValue] = {"name": "gathered", "node": "diagnose", "data": {"incident": mine}}
            await LINES.run(connection, self._store.event_row(target, event, now))

    @staticmethod
    async def _few_lines(connection: AsyncConnection, target: int) -> bool:
        """The first of them are told one by one; after that the numbers tell enough."""
        of_target = and_(col(EventRow.incident_id) == target, col(EventRow.name) == "gathered")
        found = await connection.execute(select(col(EventRow.id)).where(of_target).limit(TOLD))
        return len(found.all()) < TOLD

    async def part(self, case: Case) -> int:
        """Let the others go when the log surely names something else than this incident stands for."""
        if self._look is None:
            return 0
        with store_errors("looking for others of the same cause"):
            held = await STANDING.look(self._engine, {"b_id": self._record.id})
        if not held or not await self._look.parted(case, {row.resource: row.family for row in held}):
            return 0
        return await self.let_go("this one failed of another cause than they did", node="diagnose")

    async def let_go(self, why: str, *, node: str) -> int:
        """Stand for nothing any more; the others are new again."""
        if not await self.correlates():
            return 0
        lease, given = self._draft.lease, {"b_id": self._record.id}

        async def write(writing: Writing) -> int:
            await self._store.write_found(writing, lease, Found())
            # The cause first: whoever joins at this moment has done so before, or finds nobody to join.
            await NO_CAUSE.run(writing.connection, given)
            return await GIVE_BACK.run(writing.connection, given)

        with store_errors("letting others go"):
            gone = await self._store.writer.run(write)
        if gone:
            line = {"name": "let_go", "node": node, "data": {"failures": gone, "why": why}}
            self._draft.add([line], {})
        return gone

    async def correlates(self) -> bool:
        """Whether this incident stands for a cause that others may join."""
        with store_errors("reading members"):
            return bool(await STANDS.look(self._engine, {"b_id": self._record.id}))

    # --- reading ---

    async def counts(self, *, dags: bool = False) -> MemberCounts:
        """How many there are, by what became of them."""
        return await self._store.member_counts(self._record.id, dags=dags)

    async def tasks(self, part: Part | None = None) -> dict[tuple[str, str], int]:
        """How many failures of each (DAG, task)."""
        row = OccurrenceRow
        query = select(col(row.dag_id), col(row.task_id), func.count()).where(
            col(row.incident_id) == self._record.id,
            col(row.part).not_in(["", Part.AGAIN.value]) if part is None else col(row.part) == part.value,
        )
        return {
            (dag, task): number
            for dag, task, number in await self._all(query.group_by(col(row.dag_id), col(row.task_id)))
        }

    async def page(self, part: Part, *, after: int = 0, limit: int) -> tuple[Member, ...]:
        """Members in the order in which they came, by number."""
        row = OccurrenceRow
        query = _members().where(
            col(row.incident_id) == self._record.id, col(row.part) == part.value, col(row.id) > after
        )
        return _read(await self._all(query.order_by(col(row.id)).limit(limit)))

    async def in_dag(self, dag_id: str, *, limit: int) -> tuple[Member, ...]:
        """Members of one DAG that wait, run by run."""
        row = OccurrenceRow
        query = _members().where(
            col(row.airflow) == self._record.airflow,
            col(row.dag_id) == dag_id,
            col(row.part) == Part.WAITING.value,
            col(row.incident_id) == self._record.id,
        )
        return _read(await self._all(query.order_by(col(row.run_id), col(row.id)).limit(limit)))

    async def fates(self, wave: int) -> dict[Fate, tuple[int, ...]]:
        """Those of this wave and the one before it that failed again, by why."""
        table = table_of(OccurrenceRow)
        old, new, other = table.alias(), table.alias(), table_of(IncidentRow)
        later = and_(*(new.c[name] == old.c[name] for name in SAME_TASK), new.c.try_number > old.c.try_number)
        elsewhere = and_(other.c.id == new.c.incident_id, new.c.incident_id != old.c.incident_id)
        query = (
            select(old.c.id, func.max(new.c.incident_id), func.max(other.c.root_cause))
            .select_from(old.outerjoin(new, later).outerjoin(other, elsewhere))
            .where(old.c.incident_id == self._record.id, old.c.part == Part.FAILED.value)
            .where(old.c.wave >= wave - 1)
            .group_by(old.c.id)
        )
        found: dict[Fate, list[int]] = {fate: [] for fate in Fate}
        for number, incident, cause in await self._all(query):
            if incident is None or (incident != self._record.id and cause is None):
                found[Fate.UNKNOWN].append(number)
            else:
                found[Fate.SAME if incident == self._record.id else Fate.OTHER].append(number)
        return {fate: tuple(ids) for fate, ids in found.items()}

    async def _all(self, query: Any) -> list[Any]:
        with store_errors("reading members"):
            async with self._engine.connect() as connection:
                return list((await connection.execute(query)).all())

    # --- changing: with the draft ---

    def mark(self, ids: Sequence[int], part: Part, *, wave: int | None = None, reason: str = "") -> None:
        """What became of these; written with the next flush."""
        values: dict[str, Any] = {"part": part.value}
        if reason:
            values["reason"] = reason[:500]
        if wave is not None:
            values["wave"] = wave
        row = OccurrenceRow
        for start in range(0, len(ids), CHUNK):
            named = col(row.id).in_(ids[start : start + CHUNK])
            here = and_(named, col(row.incident_id) == self._record.id)
            self._moves.append(update(row).where(here).values(values))
        self._draft.touch()

    def move(self, old: Part, new: Part, *, upto: int, reason: str = "") -> None:
        """All of one kind, as far as somebody was shown them."""
        row = OccurrenceRow
        here = and_(col(row.incident_id) == self._record.id, col(row.part) == old.value, col(row.id) <= upto)
        self._moves.append(update(row).where(here).values(part=new.value, reason=reason[:500]))
        self._draft.touch()

    def supersede(self) -> None:
        """A task instance that failed more than once counts once, by its newest failure."""
        table = table_of(OccurrenceRow)
        newer = table.alias()
        same = and_(*(newer.c[name] == table.c[name] for name in SAME_TASK))
        later = exists().where(same, newer.c.try_number > table.c.try_number)
        later = later.where(newer.c.incident_id == table.c.incident_id)
        done = [Part.HEALED.value, Part.RELEASED.value, Part.AGAIN.value, ""]
        mine = and_(table.c.incident_id == self._record.id, table.c.part.not_in(done), later)
        self._moves.append(update(table).where(mine).values(part=Part.AGAIN.value))
        self._draft.touch()

    async def flush(self) -> None:
        """Write everything of this drive now."""
        await self._draft.flush()

    async def write(self, writing: Writing) -> None:
        """See `server.draft.Part`. The draft has locked the incident under our epoch."""
        moves = list(self._moves)
        for statement in moves:
            await writing.execute(statement)
        self._writing = len(moves)

    def written(self) -> None:
        """See `server.draft.Part`."""
        del self._moves[: self._writing]
        self._writing = 0


def _members() -> Any:
    row = OccurrenceRow
    names = (row.id, row.dag_id, row.run_id, row.task_id, row.map_index, row.try_number, row.reason)
    return select(*(col(name) for name in names))


def _read(rows: Sequence[Any]) -> tuple[Member, ...]:
    return tuple(
        Member(
            id=number,
            task=TaskRef(dag_id=dag, run_id=run, task_id=task, map_index=index),
            try_number=tries,
            refused=reason.startswith(REFUSED),
        )
        for number, dag, run, task, index, tries, reason in rows
    )


def cause_row(cause: Cause, incident_id: int, now: datetime) -> dict[str, Any]:
    """A cause as its table wants it."""
    return {
        "key": cause.key,
        "incident_id": incident_id,
        "resource": cause.resource[:300],
        "family": cause.family,
        "seen_at": now,
    }


async def forget_stale(connection: AsyncConnection, keys: Sequence[str], now: datetime) -> None:
    """An incident that a person has for long stands for its own failures only: it may be another outage."""
    if keys:
        await FORGET_STALE.run(connection, {"b_old": now - FRESH, **listed("b_key", keys)})


def rousing(incident_id: int, now: datetime) -> Any:
    """Members that come late are seen soon, and not one by one."""
    soon = now + timedelta(seconds=2)
    row = IncidentRow
    watching = and_(col(row.id) == incident_id, col(row.status) == Status.WAITING_OUTCOME.value)
    return update(row).where(watching, col(row.wake_at) > soon).values(wake_at=soon)
