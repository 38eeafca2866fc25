"""Whether the parts the service depends on are well, asked at most every few seconds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from graph.domain import AirflowHealth
from graph.errors import AirmedicError
from server.service import Service
from tools.redaction import redact

FRESH = timedelta(seconds=5)
PATIENCE = 5.0  # seconds Airflow has to answer
SLOW_AIRFLOW, SLOW_DATABASE = 2.0, 0.5  # seconds for one small question, beyond which all goes slowly
JOBS = frozenset({"runner", "admit", "poll", "watch"})  # the names that `server.service` gives its tasks


@dataclass(frozen=True)
class Part:
    """One part: whether it is well, and what is wrong if not."""

    name: str
    ok: bool
    detail: str = ""
    degraded: bool = False  #: it answers, slowly or with a part missing; `detail` says which
    seconds: float | None = None  #: its last answer took


@dataclass(frozen=True)
class AirflowPulse:
    """Airflow as it answered last."""

    asked_at: datetime
    health: AirflowHealth | None
    detail: str = ""
    seconds: float | None = None  #: the answer took

    @property
    def degraded(self) -> str:
        """What is not as it should be although Airflow answers; empty when all is."""
        if self.health is None:
            return ""
        parts = ("scheduler", "triggerer", "dag_processor")
        silent = [name for name in parts if getattr(self.health, name) is False]
        slow = self.seconds is not None and self.seconds > SLOW_AIRFLOW
        told = [f"no heartbeat of {', '.join(silent)}"] if silent else []
        return "; ".join([*told, *([f"it took {self.seconds:.1f} s to answer"] if slow else [])])


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
        began = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE):
                health = await self._service.airflow.health()
            return AirflowPulse(now, health, seconds=time.perf_counter() - began)
        except TimeoutError:
            return AirflowPulse(now, None, f"Airflow did not answer within {PATIENCE:.0f} s")
        except AirmedicError as exc:
            return AirflowPulse(now, None, redact(str(exc)) or type(exc).__name__)

    async def parts(self) -> tuple[Part, ...]:
        """Everything that must be well for the service to do its work."""
        airflow = await self.airflow()
        return (
            await self._database(),
            Part(
                "airflow",
                airflow.health is not None,
                airflow.detail or airflow.degraded,
                degraded=bool(airflow.degraded),
                seconds=airflow.seconds,
            ),
            self._driver(),
        )

    async def _database(self) -> Part:
        began = time.perf_counter()
        try:
            await self._service.store.setting("poll_watermark")
        except AirmedicError as exc:
            return Part("database", False, redact(str(exc)))
        seconds = time.perf_counter() - began
        slow = seconds > SLOW_DATABASE
        told = f"it took {seconds:.1f} s to answer" if slow else ""
        return Part("database", True, told, degraded=slow, seconds=seconds)

    def _driver(self) -> Part:
        running = {task.get_name() for task in asyncio.all_tasks()}
        ended = sorted(JOBS - running)
        return Part("driver", not ended, f"not running: {', '.join(ended)}" if ended else "")
