"""What waits to be worked on, and for how long already."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import DomainType, Status
from server.db.database import store_errors
from server.db.tables import IncidentRow, OccurrenceRow
from server.observe.figures import Queue
from server.store import IncidentStore
from server.store_reads import ENDED

LATE = 120.0  # seconds of waiting that people should know of
TOO_LATE = 900.0  # seconds after which the work is not being done


class Waiting(DomainType):
    """The queue, and how long ago the oldest piece of work in it was due; seconds."""

    queue: Queue
    oldest: float


class Backlog:
    """Looks at the queue in the store."""

    def __init__(self, engine: AsyncEngine, *, store: IncidentStore, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock

    async def look(self) -> Waiting:
        """The queue of this moment."""
        now = self._clock()
        ended = [status.value for status in ENDED]
        moving = [one.value for one in Status if one.value not in ended]
        row = IncidentRow
        unheld = or_(col(row.lease_until).is_(None), col(row.lease_until) < now)
        due = select(func.min(col(row.wake_at))).where(
            col(row.status).in_(moving), col(row.wake_at) <= now, unheld
        )
        new = select(func.min(col(OccurrenceRow.check_at))).where(
            col(OccurrenceRow.status) == "new", col(OccurrenceRow.check_at) <= now
        )
        with store_errors("looking at the queue"):
            async with self._engine.connect() as connection:
                found: list[Any] = [(await connection.execute(query)).scalar_one() for query in (due, new)]
        ages = [(now - moment).total_seconds() for moment in found if moment is not None]
        return Waiting(queue=await self._store.figures.queue(now), oldest=max(ages, default=0.0))
