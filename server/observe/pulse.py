"""Whether the parts the service depends on are well, asked at most every few seconds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import datetime, timedelta

from graph.domain import AirflowHealth
from graph.errors import AirmedicError
from server.backlog import LATE, TOO_LATE
from server.observe.vitals import LOW_SPACE, NO_SPACE, rooms
from server.people.outbox import OutboxState
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
            self._disk(),
            *await self._work(),
        )

    async def _work(self) -> tuple[Part, ...]:
        """The queue, early warnings and notices; left out when the database cannot tell."""
        try:
            waits = await self._service.observing.backlog.look()
            warnings = await self._service.watch.findings.listed(lasting=True, limit=100)
            notices = await self._service.outbox.state()
        except AirmedicError:
            return ()
        late = waits.oldest > LATE
        told = f"work has been waiting for {waits.oldest / 60:.0f} minutes" if late else ""
        return (
            Part("backlog", waits.oldest <= TOO_LATE, told, degraded=late),
            # What they are about is for those who sign in.
            Part("watch", True, f"{len(warnings)} early warnings" if warnings else "", bool(warnings)),
            Part("notices", True, _untold(notices), bool(notices.failing or notices.given_up)),
        )

    def _disk(self) -> Part:
        scarce = [room for room in rooms(self._service.settings) if room.free < LOW_SPACE]
        told = "; ".join(f"{room.free / 1e6:.0f} MB left for the {room.name}" for room in scarce)
        return Part("disk", all(room.free >= NO_SPACE for room in scarce), told, degraded=bool(scarce))

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
        hung = self._service.observing.beats.hung()
        told = [f"not running: {', '.join(ended)}"] if ended else []
        told += [f"{name} has hung for {seconds:.0f} s" for name, seconds in sorted(hung.items())]
        return Part("driver", not told, "; ".join(told))


def _untold(notices: OutboxState) -> str:
    told = ((notices.failing, "fail and are tried again"), (notices.given_up, "were given up"))
    return ", ".join(f"{number} notices {words}" for number, words in told if number)
