"""What is the same for all that fail in one moment: other failures, and the pools. Read once for all of them.

Only evidence is read this way. What guards a write asks Airflow itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Protocol, TypeVar

from graph.domain import Pool, TaskSnapshot

T = TypeVar("T")

KEEP = 0.1  # seconds: less than Airflow takes to commit a state after its listener has told of it
GRID = 10  # seconds: since when failures are asked for, rounded down, so that many ask for the same


class Around(Protocol):
    """The two reads, as an `AirflowGateway` has them too."""

    async def failures_since(self, since: datetime, *, limit: int) -> tuple[TaskSnapshot, ...]: ...

    async def pool(self, name: str) -> Pool: ...


class SharedAround:
    """Asks the gateway behind it; whoever asks for the same within `KEEP` is given the same answer."""

    def __init__(self, airflow: Around, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._airflow = airflow
        self._timer = timer
        self._known: dict[tuple[object, ...], tuple[float, asyncio.Task[Any]]] = {}

    async def failures_since(self, since: datetime, *, limit: int) -> tuple[TaskSnapshot, ...]:
        """Task instances that failed since then, oldest first; at most `limit`, or a few less."""
        floor = since - timedelta(seconds=since.second % GRID, microseconds=since.microsecond)
        found = await self._once(
            ("failures", floor, limit), partial(self._airflow.failures_since, floor, limit=limit)
        )
        return tuple(one for one in found if one.end is None or one.end >= since)

    async def pool(self, name: str) -> Pool:
        """This pool as it was a moment ago."""
        return await self._once(("pool", name), partial(self._airflow.pool, name))

    async def _once(self, about: tuple[object, ...], read: Callable[[], Coroutine[Any, Any, T]]) -> T:
        now = self._timer()
        known = self._known.get(about)
        if known is None or known[0] + KEEP <= now:
            self._known = {key: one for key, one in self._known.items() if one[0] + KEEP > now}
            known = self._known[about] = (now, asyncio.create_task(read()))
        asked: Awaitable[T] = known[1]
        # One that waits may be cancelled: the others still want the answer.
        return await asyncio.shield(asked)
