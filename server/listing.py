"""Lists and searches incidents: keyset pages, whatever their number. See `server.db.search_index`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Integer,
    Row,
    Select,
    TextClause,
    column,
    func,
    literal,
    literal_column,
    select,
    table,
    text,
    tuple_,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import DomainType, Outcome, RootCause, Severity, Status, TaskRef
from graph.errors import QueryInvalid
from server.db.database import store_errors
from server.db.search_index import match_expression
from server.db.tables import IncidentRow, UtcDateTime
from server.record import IncidentLine

COUNTED = 1000  # matches; more are said to be more
NEAR = 2000  # rows nearest to where a page begins; Postgres looks at them one by one
WALKED = 5000  # rows that a page by update looks at before it ends short
# Ids rise with time, but for what workers write side by side and clocks that disagree.
SLACK = timedelta(hours=1)
LAST = 2**63 - 2
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Sort = Literal["newest", "oldest", "updated"]


class IncidentQuery(DomainType):
    """What is looked for. Every part that is named must hold; a list holds when one of its members does."""

    text: str = ""
    statuses: tuple[Status, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    severities: tuple[Severity, ...] = ()
    causes: tuple[RootCause, ...] = ()
    dags: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    operators: tuple[str, ...] = ()
    since: datetime | None = None  #: opened at or after
    until: datetime | None = None  #: opened before
    sort: Sort = "newest"

    @property
    def facets(self) -> dict[str, tuple[str, ...]]:
        """Column names and the values of which one must hold."""
        return {
            "status": tuple(one.value for one in self.statuses),
            "outcome": tuple(one.value for one in self.outcomes),
            "severity": tuple(one.value for one in self.severities),
            "root_cause": tuple(one.value for one in self.causes),
            "dag_id": self.dags,
            "task_id": self.tasks,
            "operator": self.operators,
        }


class Found(DomainType):
    """One page; `next` goes on from there, None at the end."""

    items: tuple[IncidentLine, ...]
    next: str | None


@dataclass(frozen=True)
class _Bounds:
    """Ids between which to look, both included."""

    low: int
    high: int


NAMES = tuple(name for name in IncidentLine.model_fields if name not in {"task", "summary"})
TASK = tuple(TaskRef.model_fields)
SUMMARY = col(IncidentRow.diagnosis)["summary"].as_string().label("summary")
SHOWN = (*(col(getattr(IncidentRow, name)) for name in (*NAMES, *TASK)), SUMMARY)


class Listing:
    """Reads pages of incidents."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._sqlite = engine.dialect.name == "sqlite"

    async def page(self, query: IncidentQuery, *, cursor: str | None, limit: int) -> Found:
        """One page. Raises `QueryInvalid` for a cursor of another sort. A page may be short and go on."""
        with store_errors("listing incidents"):
            async with self._engine.connect() as connection:
                if query.sort == "updated":
                    return await self._by_update(connection, query, cursor, limit)
                found = await self._by_id(connection, query, cursor, limit + 1)
        page = found[:limit]
        return Found(items=tuple(page), next=str(page[-1].id) if len(found) > limit else None)

    async def count(self, query: IncidentQuery) -> int:
        """How many match, counted up to one more than `COUNTED`."""
        with store_errors("counting incidents"):
            async with self._engine.connect() as connection:
                bounds = await self._bounds(connection, query, None)
                most, total = COUNTED + 1, 0
                for chosen in self._chosen(query, bounds):
                    counted = select(func.count()).select_from(chosen.limit(most - total).subquery())
                    total += int((await connection.execute(counted)).scalar_one())
                    if total >= most:
                        break
                return total

    # --- by id ---

    async def _by_id(
        self, connection: AsyncConnection, query: IncidentQuery, cursor: str | None, limit: int
    ) -> list[IncidentLine]:
        bounds = await self._bounds(connection, query, _id_of(cursor))
        found: list[IncidentLine] = []
        for chosen in self._chosen(query, bounds):
            few = chosen.limit(limit - len(found))
            rows = await connection.execute(select(*SHOWN).where(col(IncidentRow.id).in_(few)))
            lines = [_line(row) for row in rows]
            found += sorted(lines, key=lambda line: line.id, reverse=query.sort != "oldest")
            if len(found) >= limit:
                break
        return found

    async def _bounds(self, connection: AsyncConnection, query: IncidentQuery, cursor: int | None) -> _Bounds:
        opened, number = col(IncidentRow.opened_at), col(IncidentRow.id)
        low, high = 1, LAST
        if not self._sqlite and (cursor is None or query.sort == "oldest"):
            high = int((await connection.execute(select(func.max(number)))).scalar_one() or 0)
        if query.since is not None:
            first = select(number).where(opened >= query.since - SLACK).order_by(opened).limit(1)
            found = (await connection.execute(first)).scalar_one_or_none()
            low = LAST + 1 if found is None else int(found)
        if query.until is not None:
            last = select(number).where(opened < query.until + SLACK).order_by(opened.desc()).limit(1)
            high = int((await connection.execute(last)).scalar_one_or_none() or 0)
        if cursor is None:
            return _Bounds(low, high)
        if query.sort == "oldest":
            return _Bounds(max(low, cursor + 1), high)
        return _Bounds(low, min(high, cursor - 1))

    def _chosen(self, query: IncidentQuery, bounds: _Bounds) -> Iterator[Select[Any]]:
        """The ids that match, in the order asked for: one statement after the other until it is enough."""
        if bounds.low > bounds.high:
            return
        number = col(IncidentRow.id)
        expression = match_expression(query.text, query.facets, sqlite=self._sqlite)
        if not expression:
            yield _ids(query, bounds, order=number)
        elif self._sqlite:
            yield _full_text(query, bounds, expression)
        else:
            near, rest = _split(bounds, oldest=query.sort == "oldest")
            # So few rows are looked at one by one: adding nothing to the words keeps the index out of it.
            yield _ids(query, near, _matching("incident.words || ''", expression), order=number)
            # What is rare near the cursor is rare: its list is short enough to be sorted. Left to itself
            # the planner may walk the whole table for words that do not occur together.
            if rest.low <= rest.high:
                matching = _matching("incident.words", expression)
                yield _ids(query, rest, matching, order=number + literal_column("0"))

    # --- by update ---

    async def _by_update(
        self, connection: AsyncConnection, query: IncidentQuery, cursor: str | None, limit: int
    ) -> Found:
        if query.text.strip():
            raise QueryInvalid("sort: a search is sorted by newest or oldest")
        updated, number = col(IncidentRow.updated_at), col(IncidentRow.id)
        walk = select(number, updated).order_by(updated.desc(), number.desc())
        if cursor is not None:
            at, last = _place_of(cursor)
            walk = walk.where(tuple_(updated, number) < tuple_(literal(at, UtcDateTime), literal(last)))
        near = walk.limit(WALKED).subquery()
        chosen = (
            select(*SHOWN)
            .join(near, near.c.id == number)
            .where(*_times(query), *_columns(query))
            .order_by(near.c.updated_at.desc(), near.c.id.desc())
            .limit(limit + 1)
        )
        lines = [_line(row) for row in await connection.execute(chosen)]
        if len(lines) > limit:
            end = lines[limit - 1]
            return Found(items=tuple(lines[:limit]), next=_place(end.updated_at, end.id))
        edge = (await connection.execute(walk.offset(WALKED - 1).limit(1))).first()
        more = None if edge is None else _place(edge.updated_at, edge.id)
        return Found(items=tuple(lines), next=more)


def _line(row: Row[Any]) -> IncidentLine:
    known = row._mapping
    task = TaskRef.model_construct(**{name: known[name] for name in TASK})
    given = {name: known[name] for name in NAMES}
    return IncidentLine(**given, task=task, summary=known["summary"] or "")


def _ids(query: IncidentQuery, bounds: _Bounds, *matching: Any, order: Any) -> Select[Any]:
    number = col(IncidentRow.id)
    wanted = [number >= bounds.low, number <= bounds.high, *_times(query), *matching]
    return select(number).where(*wanted).order_by(order if query.sort == "oldest" else order.desc())


def _matching(words: str, expression: str) -> TextClause:
    return text(f"({words}) @@ cast(:asked AS tsquery)").bindparams(asked=expression)


def _full_text(query: IncidentQuery, bounds: _Bounds, expression: str) -> Select[Any]:
    """FTS5 walks its lists in the order of the ids, from where it is told."""
    words = table("incident_words", column("rowid", Integer))
    matching = text("incident_words MATCH :expression").bindparams(expression=expression)
    chosen = select(words.c.rowid).where(matching, words.c.rowid.between(bounds.low, bounds.high))
    for exactly in _times(query):
        # The id's own row, one at a time: the words lead.
        row = select(literal(1)).where(col(IncidentRow.id) == words.c.rowid, exactly).correlate(words)
        chosen = chosen.where(row.exists())
    order = words.c.rowid
    return chosen.order_by(order if query.sort == "oldest" else order.desc())


def _split(bounds: _Bounds, *, oldest: bool) -> tuple[_Bounds, _Bounds]:
    """The part nearest to where the page begins, and the rest."""
    if oldest:
        edge = min(bounds.high, bounds.low + NEAR - 1)
        return _Bounds(bounds.low, edge), _Bounds(edge + 1, bounds.high)
    edge = max(bounds.low, bounds.high - NEAR + 1)
    return _Bounds(edge, bounds.high), _Bounds(bounds.low, edge - 1)


def _times(query: IncidentQuery) -> list[ColumnElement[bool]]:
    opened = col(IncidentRow.opened_at)
    wanted = [] if query.since is None else [opened >= query.since]
    return wanted if query.until is None else [*wanted, opened < query.until]


def _columns(query: IncidentQuery) -> list[ColumnElement[bool]]:
    chosen = {name: values for name, values in query.facets.items() if values}
    return [col(getattr(IncidentRow, name)).in_(values) for name, values in chosen.items()]


def _id_of(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not cursor.isdigit():
        raise QueryInvalid("cursor: it belongs to another sort")
    return int(cursor)


def _place(updated: datetime, number: int) -> str:
    return f"{(updated - EPOCH) // timedelta(microseconds=1)}-{number}"


def _place_of(cursor: str) -> tuple[datetime, int]:
    micros, _, number = cursor.partition("-")
    if not number:
        raise QueryInvalid("cursor: it belongs to another sort")
    try:
        return EPOCH + timedelta(microseconds=int(micros)), int(number)
    except OverflowError as exc:
        raise QueryInvalid("cursor: no such place") from exc
