"""Figures over a window of time, counted from the incidents opened in it and their agent log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from statistics import quantiles
from typing import Any

from sqlalchemy import Float, Integer, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import DomainType, Outcome, RootCause, Status
from server.db.database import store_errors
from server.db.packed import asked_of
from server.db.tables import EventRow, IncidentRow, OccurrenceRow

MOST = 20_000  # incidents that are looked at; the newest, when there are more
MILESTONES = ("diagnosed", "fix_applied", "asked", "answered", "expired")
HELPED = (Outcome.HEALED, Outcome.RECOVERED_UNVERIFIED)


class Spread(DomainType):
    """How long something took; seconds."""

    count: int
    p50: float | None
    p95: float | None


class Bucket(DomainType):
    """One stretch of the window."""

    start: datetime
    opened: int
    outcomes: dict[Outcome, int]
    causes: dict[RootCause, int]


class ModelUse(DomainType):
    """What asking the language model cost."""

    asked: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None  #: None when no price is known


class Queue(DomainType):
    """What waits to be worked on."""

    occurrences: int  #: failures not yet looked at
    due: int  #: incidents whose time has come
    deciding: int  #: incidents that wait for a person


class Story(DomainType):
    """One incident's moments."""

    opened: datetime
    failed: datetime | None
    closed: datetime | None
    status: Status
    outcome: Outcome | None
    cause: RootCause | None
    moments: dict[str, datetime]  #: the first of each

    def took(self, name: str) -> float | None:
        """Seconds of one of `TIMES`; None when it did not happen."""
        begin, end = {
            "detect": (self.failed, self.opened),
            "diagnose": (self.opened, self.moments.get("diagnosed")),
            "fix": (self.moments.get("diagnosed"), self.moments.get("fix_applied")),
            "recover": (self.failed or self.opened, self.moments.get("recovered")),
            "decide": (self.moments.get("asked"), self.moments.get("answered")),
        }[name]
        if begin is None or end is None:
            return None
        return max(0.0, (end - begin).total_seconds())


TIMES = ("detect", "diagnose", "fix", "recover", "decide")


class Counted(DomainType):
    """Everything the store tells of a window."""

    stories: tuple[Story, ...]
    complete: bool  #: False when there were more incidents than are looked at
    model: ModelUse
    queue: Queue


class Figures:
    """Counts in the store."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def count(self, *, since: datetime, now: datetime) -> Counted:
        """What happened since then."""
        with store_errors("counting"):
            async with self._engine.connect() as connection:
                rows = await self._incidents(connection, since)
                moments = await self._moments(connection, since)
                return Counted(
                    stories=tuple(_story(row, moments.get(row.id, {})) for row in rows[:MOST]),
                    complete=len(rows) <= MOST,
                    model=await self._model(connection, since),
                    queue=await self._queue(connection, now),
                )

    async def queue(self, now: datetime) -> Queue:
        """What waits at this moment."""
        with store_errors("counting"):
            async with self._engine.connect() as connection:
                return await self._queue(connection, now)

    @staticmethod
    async def _incidents(connection: AsyncConnection, since: datetime) -> list[Any]:
        row = IncidentRow
        query = (
            select(
                col(row.id),
                col(row.opened_at),
                col(row.failed_at),
                col(row.closed_at),
                col(row.status),
                col(row.outcome),
                col(row.root_cause),
            )
            .where(col(row.opened_at) >= since)
            .order_by(col(row.opened_at).desc())
            .limit(MOST + 1)
        )
        return list((await connection.execute(query)).all())

    @staticmethod
    async def _moments(connection: AsyncConnection, since: datetime) -> dict[int, dict[str, datetime]]:
        number, at, name = col(EventRow.incident_id), col(EventRow.at), col(EventRow.name)
        first = select(number, name, func.min(at).label("at")).where(at >= since).group_by(number, name)
        data = asked_of(col(EventRow.data), sqlite=connection.dialect.name == "sqlite")
        outcome = data["outcome"].as_string()
        well = first.where(name == "checked", outcome.in_([one.value for one in HELPED]))
        found: dict[int, dict[str, datetime]] = {}
        for row in (await connection.execute(first.where(name.in_(MILESTONES)))).all():
            found.setdefault(row.incident_id, {})[row.name] = row.at
        for row in (await connection.execute(well)).all():
            found.setdefault(row.incident_id, {})["recovered"] = row.at
        return found

    @staticmethod
    async def _model(connection: AsyncConnection, since: datetime) -> ModelUse:
        used = asked_of(col(EventRow.data), sqlite=connection.dialect.name == "sqlite")["model"]
        query = select(
            func.count().label("asked"),
            func.sum(cast(used["input_tokens"].as_string(), Integer)).label("input"),
            func.sum(cast(used["output_tokens"].as_string(), Integer)).label("output"),
            func.sum(cast(used["cost_usd"].as_string(), Float)).label("cost"),
        ).where(
            col(EventRow.name) == "diagnosed",
            col(EventRow.at) >= since,
            used["model"].as_string().is_not(None),
        )
        row = (await connection.execute(query)).one()
        return ModelUse(
            asked=row.asked, input_tokens=row.input or 0, output_tokens=row.output or 0, cost_usd=row.cost
        )

    @staticmethod
    async def _queue(connection: AsyncConnection, now: datetime) -> Queue:
        async def number(table: type[Any], *wanted: Any) -> int:
            query = select(func.count()).select_from(table).where(*wanted)
            return int((await connection.execute(query)).scalar_one())

        deciding = col(IncidentRow.status) == Status.WAITING_DECISION.value
        moving = [one.value for one in Status if one not in (Status.CLOSED, Status.ESCALATED)]
        due = col(IncidentRow.status).in_(moving)
        return Queue(
            occurrences=await number(OccurrenceRow, col(OccurrenceRow.status) == "new"),
            due=await number(IncidentRow, due, col(IncidentRow.wake_at) <= now),
            deciding=await number(IncidentRow, deciding),
        )


def _story(row: Any, moments: dict[str, datetime]) -> Story:
    return Story(
        opened=row.opened_at,
        failed=row.failed_at,
        closed=row.closed_at,
        status=Status(row.status),
        outcome=None if row.outcome is None else Outcome(row.outcome),
        cause=None if row.root_cause is None else RootCause(row.root_cause),
        moments=moments,
    )


def spread(values: Iterable[float | None]) -> Spread:
    """Median and 95th percentile of what is known."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return Spread(count=0, p50=None, p95=None)
    if len(known) == 1:
        return Spread(count=1, p50=known[0], p95=known[0])
    cuts = quantiles(known, n=20, method="inclusive")
    return Spread(count=len(known), p50=round(cuts[9], 3), p95=round(cuts[18], 3))


def buckets(stories: Iterable[Story], *, since: datetime, now: datetime, step: timedelta) -> list[Bucket]:
    """The window in equal stretches, empty ones too."""
    number = -(-(now - since) // step)
    placed: list[list[Story]] = [[] for _ in range(number)]
    for story in stories:
        place = (story.opened - since) // step
        if 0 <= place < number:
            placed[place].append(story)
    return [
        Bucket(
            start=since + step * place,
            opened=len(held),
            outcomes=dict(Counter(one.outcome for one in held if one.outcome is not None)),
            causes=dict(Counter(one.cause for one in held if one.cause is not None)),
        )
        for place, held in enumerate(placed)
    ]
