"""What is read from the store, in the types that `server.record` names."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import JsonValue
from sqlalchemy import (
    ColumnElement,
    Executable,
    Integer,
    Text,
    and_,
    bindparam,
    case,
    cast,
    distinct,
    func,
    or_,
    select,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import Diagnosis, IncidentKind, MemberCounts, Outcome, Part, Status, TaskRef
from graph.errors import IncidentNotFound
from nodes.deps import UNVERIFIED
from server.db.database import store_errors
from server.db.packed import AS_TEXT
from server.db.prepared import Prepared
from server.db.rows import answer_of, event_of, incident_of, ledger_of, occurrence_of
from server.db.tables import (
    ActionRow,
    DecisionRow,
    EventRow,
    IncidentRow,
    LogRow,
    OccurrenceRow,
    SettingRow,
    table_of,
)
from server.feedback import FeedbackStore, counting
from server.listing import Listing
from server.observe.figures import Figures
from server.observe.standing import Standing
from server.record import AgentEvent, IncidentDetail, IncidentRecord, LogQuery
from tools.aside import aside
from tools.ledger import WAVES
from tools.memory import Remembered

ENDED = (Status.CLOSED, Status.ESCALATED)
# Spelled out for the index: of what is NOT IN a list a database reads every row.
MOVING = tuple(status.value for status in Status if status not in ENDED)
FAILED = (Outcome.ESCALATED, Outcome.NOT_HEALED)
SHOWN = 200  # occurrences and writes of one incident that are read at once
SHOWN_WAVES = 20  # writes of its waves: the newest, each with the images of all that it touched
RUNS = 300  # pairs that are asked for in one query
WALKED = 5000  # lines of the agent log that one page of a text search looks at


class _Ended(NamedTuple):
    """What memory asks of an incident that ended."""

    id: int
    outcome: str
    attempt: int
    diagnosis: JsonValue


def _members(_dialect: str, _names: tuple[str, ...]) -> Executable:
    row = OccurrenceRow
    query = select(col(row.dag_id), col(row.run_id), col(row.task_id), col(row.map_index))
    return query.where(col(row.incident_id) == bindparam("b_id"), col(row.part) == "")


def _setting(_dialect: str, _names: tuple[str, ...]) -> Executable:
    return select(col(SettingRow.value)).where(col(SettingRow.key) == bindparam("b_key"))


def _remembered(_dialect: str, _names: tuple[str, ...]) -> Executable:
    row = IncidentRow
    return (
        select(col(row.id), col(row.outcome), col(row.attempt), col(row.diagnosis))
        .where(col(row.signature) == bindparam("b_signature"), col(row.outcome).is_not(None))
        .order_by(col(row.id).desc())
        .limit(bindparam("b_limit", type_=Integer()))
    )


def _incident(_dialect: str, _names: tuple[str, ...]) -> Executable:
    return select(table_of(IncidentRow)).where(col(IncidentRow.id) == bindparam("b_id"))


def _member(_dialect: str, _names: tuple[str, ...]) -> Executable:
    """One that joined; most incidents have none, and the index says so at once."""
    row = OccurrenceRow
    return select(col(row.id)).where(col(row.incident_id) == bindparam("b_id"), col(row.part) > "").limit(1)


MEMBERS, SETTING, REMEMBERED = Prepared(_members), Prepared(_setting), Prepared(_remembered)
INCIDENT, MEMBER = Prepared(_incident), Prepared(_member)


class StoreReads:
    """The reading half of the store."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self.listing = Listing(engine)
        self.feedback = FeedbackStore(engine, clock=clock)
        self.figures = Figures(engine)
        self.standing = Standing(engine, clock=clock)

    async def incident(self, incident_id: int) -> IncidentRecord:
        """One incident. Raises `IncidentNotFound`."""
        rows = await self._few(INCIDENT, b_id=incident_id)
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
        """What was true of this signature, how often what was done about it helped, and what people said."""
        rows = await self._few(REMEMBERED, b_signature=signature, b_limit=limit)
        records = [_Ended(*row) for row in rows]
        said = counting(await self.feedback.of(*(one.id for one in records))) if records else []
        about = [one for one in said if one.cause_right is not None]
        healed = [one for one in records if one.outcome == Outcome.HEALED and one.attempt > 0]
        newest = next((one for one in (*healed, *records) if one.diagnosis is not None), None)
        if newest is None or newest.diagnosis is None or not (healed or about):
            return None
        failed = [one for one in records if one.outcome in FAILED and one.attempt > 0]
        last = about[-1] if about else None
        return Remembered(
            incident_id=newest.id,
            diagnosis=Diagnosis.model_validate(newest.diagnosis),
            healed=len(healed),
            failed=len(failed),
            last_failed=bool(failed) and (not healed or failed[0].id > healed[0].id),
            right=sum(one.cause_right is True for one in about),
            wrong=sum(one.cause_right is False for one in about),
            corrected=last.cause if last is not None and last.cause_right is False else None,
            corrected_by=last.by if last is not None else "",
        )

    async def detail(self, incident_id: int) -> IncidentDetail:
        """One incident and all that hangs on it."""
        record = await self.incident(incident_id)
        occurrences = await self._rows(
            select(OccurrenceRow)
            .where(col(OccurrenceRow.incident_id) == incident_id)
            .order_by(col(OccurrenceRow.id))
            .limit(SHOWN)
        )
        number = select(func.count()).where(col(OccurrenceRow.incident_id) == incident_id)
        attempt, position = col(ActionRow.attempt), col(ActionRow.position)
        written = select(ActionRow).where(col(ActionRow.incident_id) == incident_id)
        own = written.where(attempt < WAVES).order_by(attempt, position).limit(SHOWN)
        waves = written.where(attempt >= WAVES).order_by(attempt.desc(), position.desc()).limit(SHOWN_WAVES)
        actions = [*await self._rows(own), *reversed(await self._rows(waves))]
        answers = await self._rows(
            select(DecisionRow)
            .where(col(DecisionRow.incident_id) == incident_id)
            .order_by(col(DecisionRow.id))
        )
        return IncidentDetail(
            incident=record,
            occurrences=tuple(occurrence_of(row) for row in occurrences),
            occurrence_count=int((await self._rows(number))[0]),
            members=await self.member_counts(incident_id, dags=True),
            ledger=tuple(ledger_of(row) for row in actions),
            events=tuple(await self.events(incident_id=incident_id, limit=1000)),
            answers=tuple(answer_of(row) for row in answers),
            feedback=tuple(await self.feedback.of(incident_id)),
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
        query = LogQuery(incident_id=incident_id, node=node, level=level)
        return (await self.log_page(query, cursor=after, limit=limit))[0]

    async def log_page(
        self, query: LogQuery, *, cursor: int = 0, limit: int = 200
    ) -> tuple[list[AgentEvent], int | None]:
        """A page of the agent log, and where to go on; None at the end. A page may be short and go on."""
        number = col(EventRow.id)
        order = number.desc() if query.newest else number
        walk = select(EventRow).where(*_of_log(query)).order_by(order)
        if cursor:
            walk = walk.where(number < cursor if query.newest else number > cursor)
        if not query.text:
            rows = await self._rows(walk.limit(limit))
            return [event_of(row) for row in rows], rows[-1].id if len(rows) == limit else None
        # Text is looked for in so many lines and no more, so that no page takes longer than another.
        near = walk.with_only_columns(number).limit(WALKED).subquery()
        chosen = select(EventRow).join(near, near.c.id == number).where(self._holds(query.text))
        rows = await self._rows(chosen.order_by(order).limit(limit))
        if len(rows) == limit:
            return [event_of(row) for row in rows], rows[-1].id
        edge = await self._rows(walk.offset(WALKED - 1).limit(1))
        return [event_of(row) for row in rows], edge[0].id if edge else None

    async def log_lines(self, query: LogQuery, *, after: int, limit: int) -> list[AgentEvent]:
        """The next lines after this one that hold, oldest first."""
        items, more = await self.log_page(query, cursor=after, limit=limit)
        while not items and more is not None:
            items, more = await self.log_page(query, cursor=more, limit=limit)
        return items

    async def last_event(self) -> int:
        """The number of the newest line of the agent log; 0 before the first."""
        with store_errors("reading"):
            async with self._engine.connect() as connection:
                return int((await connection.execute(select(func.max(col(EventRow.id))))).scalar_one() or 0)

    async def outcomes(self) -> dict[Outcome, int]:
        """How many incidents ended how."""
        ended: dict[Outcome, int] = {}
        for (_, outcome), number in (await self.standing.look()).items():
            if outcome is not None:
                ended[outcome] = ended.get(outcome, 0) + number
        return ended

    async def status_counts(self) -> dict[Status, int]:
        """How many incidents stand where."""
        counts: dict[Status, int] = {}
        for (status, _), number in (await self.standing.look()).items():
            counts[status] = counts.get(status, 0) + number
        return counts

    async def asking(
        self, *, kind: IncidentKind | None = None, runs: Collection[tuple[str, str]] | None = None
    ) -> list[IncidentRecord]:
        """Incidents that wait for a person: of one kind, or of these (dag, run) pairs only."""
        query = select(IncidentRow).where(col(IncidentRow.status) == Status.WAITING_DECISION.value)
        if kind is not None:
            query = query.where(col(IncidentRow.kind) == kind.value)
        if runs is None:
            return [incident_of(row) for row in await self._rows(query)]
        found: list[IncidentRecord] = []
        ordered, run = sorted(runs), tuple_(col(IncidentRow.dag_id), col(IncidentRow.run_id))
        for start in range(0, len(ordered), RUNS):
            page = query.where(run.in_(ordered[start : start + RUNS]))
            found += [incident_of(row) for row in await self._rows(page)]
        return found

    async def member_counts(self, incident_id: int, *, dags: bool = False) -> MemberCounts:
        """How many failures joined an incident for its cause, by what became of them."""
        if not await self._few(MEMBER, b_id=incident_id):
            return MemberCounts(dags=1)
        row = OccurrenceRow
        joined = and_(col(row.incident_id) == incident_id, col(row.part) != "")
        unverified = func.sum(case((col(row.reason) == UNVERIFIED, 1), else_=0))
        query = (
            select(col(row.part), func.count(), func.max(col(row.id)), unverified)
            .where(joined)
            .group_by(col(row.part))
        )
        rows = await self._rows(query)
        number = 1
        if dags and rows:
            every = select(func.count(distinct(col(row.dag_id)))).where(col(row.incident_id) == incident_id)
            number = (await self._rows(every))[0]
        return MemberCounts(
            **{part: count for part, count, *_ in rows},
            unverified=sum(some for part, *_, some in rows if part == Part.HEALED),
            dags=number,
            upto=max((last for _, _, last, _ in rows), default=0),
        )

    async def members(self, incident_id: int) -> tuple[TaskRef, ...]:
        """The task instances whose failures are the incident's own, by map index; none that joined it."""
        found = {
            TaskRef(dag_id=dag, run_id=run, task_id=task, map_index=index)
            for dag, run, task, index in await self._few(MEMBERS, b_id=incident_id)
        }
        return tuple(sorted(found, key=lambda task: task.map_index))

    async def get_log(self, name: str) -> str | None:
        """The log under this digest."""
        rows = await self._rows(select(LogRow).where(col(LogRow.digest) == name))
        if not rows:
            return None
        packed, size = rows[0].body, rows[0].size
        return await aside(lambda: zlib.decompress(packed).decode(), size=size)

    async def setting(self, key: str) -> JsonValue:
        """What was remembered under this key; None when nothing was."""
        rows = await self._few(SETTING, b_key=key)
        value: JsonValue = rows[0][0] if rows else None
        return value

    def _holds(self, words: str) -> ColumnElement[bool]:
        """Whether the line holds this text, in upper or lower case; spelled as the stored JSON spells it."""
        spelled, data = json.dumps(words)[1:-1].lower(), col(EventRow.data)
        sqlite = self._engine.dialect.name == "sqlite"
        stored = getattr(func, AS_TEXT)(data, type_=Text) if sqlite else cast(data, Text)
        name = func.lower(col(EventRow.name))
        found = func.lower(stored).contains(spelled, autoescape=True)
        return or_(found, name.contains(spelled, autoescape=True))

    async def _few(self, query: Prepared, **values: object) -> list[Any]:
        """A few rows by an index, of a question that is asked often."""
        with store_errors("reading"):
            return await query.look(self._engine, values)

    async def _rows(self, query: Any) -> list[Any]:
        """The rows, or the values when the query names one column."""
        with store_errors("reading"):
            async with self._engine.connect() as connection:
                found = await connection.execute(query)
                rows = found.all()
        return [row[0] for row in rows] if len(found.keys()) == 1 else list(rows)


def _of_log(query: LogQuery) -> list[ColumnElement[bool]]:
    wanted: list[ColumnElement[bool]] = []
    if query.incident_id is not None:
        wanted.append(col(EventRow.incident_id) == query.incident_id)
    if query.node is not None:
        wanted.append(col(EventRow.node) == query.node)
    if query.level is not None:
        wanted.append(col(EventRow.level) == query.level)
    if query.since is not None:
        wanted.append(col(EventRow.at) >= query.since)
    if query.until is not None:
        wanted.append(col(EventRow.at) < query.until)
    return wanted
