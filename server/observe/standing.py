"""How many incidents stand where and how they ended, at a cost that does not grow with those that are closed.

The closed ones stay as they are: they are counted once, then only those that were closed since. What
retention has removed meanwhile is noticed when they are counted anew, in the background, every few minutes.

Escalated ones that nobody closes may become many. A look at many serves others for a moment, so that looking
takes a small part of the time at most; a look at few is always of its moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import Outcome, Status
from graph.errors import StoreUnavailable
from server.db.database import store_errors
from server.db.tables import IncidentRow

Standings = dict[tuple[Status, Outcome | None], int]

ANEW = timedelta(minutes=5)  # after which the closed ones are counted again
SETTLED = timedelta(seconds=30)  # after which nobody closes an incident under an earlier moment any more
MANY = 5_000  # incidents that are not closed, which a look counts in some milliseconds
SERVES = 1e-5  # seconds for each of them: about twenty times as long as counting them takes
CLOSED = Status.CLOSED.value
OTHERS = [one.value for one in Status if one is not Status.CLOSED]


class Standing:
    """Counts incidents."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        clock: Callable[[], datetime],
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._timer = timer
        self._last: Standings = {}
        self._serves_until = 0.0
        self._closed: Counter[str | None] | None = None  #: by outcome, of those closed up to `_upto`
        self._upto = self._counted_at = clock()
        self._lock = asyncio.Lock()
        self._counting: asyncio.Task[None] | None = None

    async def look(self) -> Standings:
        """The counts of this moment, or of one not long ago."""
        async with self._lock:
            if self._timer() >= self._serves_until:
                self._last = await self._look()
                many = sum(number for (status, _), number in self._last.items() if status.value != CLOSED)
                self._serves_until = self._timer() + SERVES * many if many >= MANY else 0.0
            return dict(self._last)

    async def _look(self) -> Standings:
        if self._closed is None:
            await self._count()
        if self._clock() - self._counted_at >= ANEW and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._count_quietly(), name="standing")
        since = col(IncidentRow.closed_at) > self._upto
        closed = self._closed or Counter()
        total = closed + Counter(dict(await self._numbers(col(IncidentRow.outcome), CLOSED, since)))
        found: Standings = {(Status.CLOSED, _outcome(name)): number for name, number in total.items()}
        for (status, name), number in await self._others():
            found[Status(status), _outcome(name)] = number
        return found

    async def _count_quietly(self) -> None:
        try:
            await self._count()
        except StoreUnavailable:
            return  # the old ones serve until the next look

    async def _count(self) -> None:
        upto = self._clock() - SETTLED
        before = or_(col(IncidentRow.closed_at) <= upto, col(IncidentRow.closed_at).is_(None))
        counted = Counter(dict(await self._numbers(col(IncidentRow.outcome), CLOSED, before)))
        self._closed, self._upto, self._counted_at = counted, upto, self._clock()

    async def _numbers(self, name: Any, status: str, which: Any) -> list[tuple[str | None, int]]:
        query = select(name, func.count()).where(col(IncidentRow.status) == status, which).group_by(name)
        with store_errors("counting"):
            async with self._engine.connect() as connection:
                return [(row[0], int(row[1])) for row in (await connection.execute(query)).all()]

    async def _others(self) -> list[tuple[tuple[str, str | None], int]]:
        status, outcome = col(IncidentRow.status), col(IncidentRow.outcome)
        query = select(status, outcome, func.count()).where(status.in_(OTHERS)).group_by(status, outcome)
        with store_errors("counting"):
            async with self._engine.connect() as connection:
                return [((row[0], row[1]), int(row[2])) for row in (await connection.execute(query)).all()]


def _outcome(name: str | None) -> Outcome | None:
    return None if name is None else Outcome(name)
