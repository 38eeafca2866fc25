"""How this process and its machine are: a line in the log every minute, and the event loop's lag."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil
import structlog

from graph.domain import DomainType
from server.backlog import Backlog
from server.db.checkup import sqlite_file
from server.observe.machine import MachineWatch
from server.settings import Settings
from server.store import IncidentStore

log = structlog.get_logger("system")

LISTEN_EVERY = 1.0  # seconds between two looks at the event loop
LINE_EVERY = 60.0  # seconds between two lines in the log
REMEMBERED = 60  # looks

NO_SPACE = 100_000_000  # bytes free below which nothing can be promised
LOW_SPACE = 1_000_000_000  # bytes free below which people should know


class Room(DomainType):
    """What is left on the disk under one of our files; bytes."""

    name: str  #: of what lies there: database, log
    folder: str
    free: int


def rooms(settings: Settings, *, free: Callable[[Path], int] | None = None) -> tuple[Room, ...]:
    """The room for the database file and the log, each where its file is or will be."""
    places = {"log": settings.log_file, "database": sqlite_file(settings.database_url)}
    found = []
    for name, file in places.items():
        if file is None:
            continue
        folder = next(one for one in (file.resolve(), *file.resolve().parents) if one.is_dir())
        left = (free or (lambda path: psutil.disk_usage(str(path)).free))(folder)
        found.append(Room(name=name, folder=str(folder), free=left))
    return tuple(found)


class Vitals:
    """Looks at the machine and listens to the event loop."""

    def __init__(
        self, settings: Settings, *, store: IncidentStore, backlog: Backlog, clock: Callable[[], datetime]
    ) -> None:
        self._settings = settings
        self._store = store
        self._backlog = backlog
        self._clock = clock
        self._machine = MachineWatch(settings.database_url)
        self._lags: deque[float] = deque(maxlen=REMEMBERED)

    @property
    def lag(self) -> float:
        """The longest that a timer was late in the last minute; seconds."""
        return max(self._lags, default=0.0)

    async def listen(self) -> None:
        """Until cancelled: how much later than asked does this process wake up?"""
        while True:
            began = time.perf_counter()
            await asyncio.sleep(LISTEN_EVERY)
            self._lags.append(max(0.0, time.perf_counter() - began - LISTEN_EVERY))

    async def line(self) -> None:
        """One line in the log."""
        seen, waits = self._machine.look(), await self._backlog.look()
        counts = await self._store.status_counts()
        log.info(
            "system",
            cpu_percent=round(seen.cpu_percent, 1),
            machine_cpu_percent=round(seen.machine_cpu_percent, 1),
            memory_mb=round(seen.memory / 1e6, 1),
            memory_available_mb=round(seen.memory_available / 1e6),
            disk_free_mb={one.name: round(one.free / 1e6) for one in rooms(self._settings)},
            loop_lag_ms=round(self.lag * 1000, 1),
            queue=waits.queue.model_dump(),
            oldest_waiting_s=round(waits.oldest, 1),
            incidents={status.value: number for status, number in counts.items()},
        )
