"""Whether the parts the service depends on are well, asked at most every few seconds."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from graph.domain import AirflowHealth
from graph.errors import AirmedicError
from server.service import Service

FRESH = timedelta(seconds=5)
PATIENCE = 5.0  # seconds Airflow has to answer
JOBS = frozenset({"runner", "admit", "poll"})  # the names that `server.service` gives its tasks


@dataclass(frozen=True)
class Part:
    """One part: whether it is well, and what is wrong if not."""

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True)
class AirflowPulse:
    """Airflow as it answered last."""

    asked_at: datetime
    health: AirflowHealth | None
    detail: str = ""


class Pulse:
    """Looks at database, Airflow and the driver; remembers Airflow's answer so that nobody can hammer it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._lock = asyncio.Lock()
        self._last: AirflowPulse | None = None

    async def airflow(self) -> AirflowPulse:
        """Airflow's health, at most a few seconds old."""
        async with self._lock:
            now = self._service.clock()
            if self._last is None or now - self._last.asked_at > FRESH:
                self._last = await self._ask(now)
            return self._last

    async def _ask(self, now: datetime) -> AirflowPulse:
        try:
            async with asyncio.timeout(PATIENCE):
                return AirflowPulse(now, await self._service.airflow.health())
        except TimeoutError:
            return AirflowPulse(now, None, f"Airflow did not answer within {PATIENCE:.0f} s")
        except AirmedicError as exc:
            return AirflowPulse(now, None, str(exc) or type(exc).__name__)

    async def parts(self) -> tuple[Part, ...]:
        """Everything that must be well for the service to do its work."""
        airflow = await self.airflow()
        return (
            await self._database(),
            Part("airflow", airflow.health is not None, airflow.detail),
            self._driver(),
        )

    async def _database(self) -> Part:
        try:
            await self._service.store.setting("poll_watermark")
        except AirmedicError as exc:
            return Part("database", False, str(exc))
        return Part("database", True)

    def _driver(self) -> Part:
        running = {task.get_name() for task in asyncio.all_tasks()}
        ended = sorted(JOBS - running)
        return Part("driver", not ended, f"not running: {', '.join(ended)}" if ended else "")
