"""Many DAGs whose task fails once and heals when run again: what several benchmarks drive Airmedic with."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import yaml

from graph.domain import AirflowHealth, Door, FailureId, TaskRef, TaskSnapshot
from server.people.notifier import SilentNotifier
from server.service import Service, open_service
from server.settings import Settings, load_settings
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try
from tools.gateway import AirflowGateway

LOG = """[2026-03-01T03:00:01.000Z] INFO - starting load of {name}
[2026-03-01T03:00:02.000Z] INFO - 5000 rows read, page {number}
[2026-03-01T03:00:04.000Z] ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/dags/{name}.py", line 41, in load
    connection = psycopg2.connect(dsn)
psycopg2.OperationalError: connection to server at "db{number}.internal" (10.0.0.5), port 5432 failed: """
LOG += "Connection refused\n"
REPORT = {"airmedic_report": {"rows_in": 10, "rows_out": 10, "rows_expected": 10, "satisfied": True}}
DEFAULT_POLICY = Path(__file__).parents[2] / "tools" / "policy_default.yaml"
SAFE = ("airmedic:rerun-safe",)
PLENTY = 1_000_000
DOMAIN_START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


class Clock:
    """A clock that moves only when told, so that waiting costs a benchmark nothing."""

    def __init__(self) -> None:
        self.now = DOMAIN_START

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """A sleep that takes no time but on this clock."""
        self.forward(seconds)


class Herd:
    """An Airflow of many DAGs, each with an in-memory Airflow of its own: none is slowed by the others."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self.clock = clock
        self.worlds: dict[str, MemoryAirflow] = {}
        self._plain = MemoryAirflow(clock=clock)  # pools, Variables and Connections

    async def add(self, name: str, number: int, *, log: str = LOG, tags: tuple[str, ...] = SAFE) -> TaskRef:
        """One more DAG; its run has failed."""
        world = MemoryAirflow(clock=self.clock, auto=True)
        failed = Try(state="failed", log=log.format(name=name, number=number))
        good = Try(xcom=cast(Any, REPORT))
        world.add_dag(name, [TaskSpec("load", tries=(failed, good))], tags=tags)
        world.start(name, "manual__1")
        await world.settle()
        self.worlds[name] = world
        return TaskRef(dag_id=name, run_id="manual__1", task_id="load")

    async def health(self) -> AirflowHealth:
        """All is well."""
        return AirflowHealth(version="3.3.2", scheduler=True, dag_processor=True)

    async def tasks(self, refs: Sequence[TaskRef]) -> tuple[TaskSnapshot, ...]:
        """Each from its own Airflow."""
        found = [await self.worlds[one.dag_id].tasks([one]) for one in refs if one.dag_id in self.worlds]
        return tuple(row for rows in found for row in rows)

    async def failures_since(self, since: datetime, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        """No failure here has to do with another one."""
        return ()

    def __getattr__(self, verb: str) -> Any:
        async def routed(first: Any, *args: Any, **kwargs: Any) -> Any:
            name = first.dag_id if isinstance(first, TaskRef) else first
            world = self.worlds.get(name, self._plain)
            return await getattr(world, verb)(first, *args, **kwargs)

        return routed

    @property
    def writes(self) -> int:
        """How often a task was cleared."""
        return sum(write.verb == "clear" for world in self.worlds.values() for write in world.writes)


def unlimited_policy(folder: Path) -> Path:
    """The policy that ships, without its limits per hour: a benchmark heals more than people would allow."""
    rules = yaml.safe_load(DEFAULT_POLICY.read_text())
    rules["limits"] = dict.fromkeys(rules["limits"], PLENTY)
    path = folder / "policy.yaml"
    path.write_text(yaml.safe_dump(rules))
    return path


def settings_for(database_url: str, folder: Path, **given: object) -> Settings:
    """Healing on, nothing logged, nobody told."""
    fixed: dict[str, object] = {
        "_env_file": None,
        "AIRMEDIC_AIRFLOW_URL": "http://127.0.0.1:1",
        "AIRMEDIC_AIRFLOW_TOKEN": "unused",
        "healing": "on",
        "watch_window": 20,
        "database_url": database_url,
        "log_file": None,
        "policy": str(unlimited_policy(folder)),
    }
    return load_settings({}, **(fixed | given))


@asynccontextmanager
async def open_herd(database_url: str, folder: Path) -> AsyncIterator[tuple[Service, Herd, Clock]]:
    """The real service with its own knowledge, on a herd, driven by hand."""
    clock = Clock()
    herd = Herd(clock)
    async with open_service(
        settings_for(database_url, folder),
        airflow=cast(AirflowGateway, herd),
        notifier=SilentNotifier(),
        clock=clock,
        sleep=clock.sleep,
        background=False,
    ) as service:
        yield service, herd, clock


async def heal_all(service: Service, clock: Clock, tasks: list[TaskRef]) -> None:
    """From the listener's word to closed, with as many suspensions as a real healing has."""
    for task in tasks:
        failure = FailureId(airflow="default", task=task, try_number=1)
        await service.store.accept([failure], door=Door.LISTENER, error="connection refused")
    for seconds in (0, 61, 61, 31):
        clock.forward(seconds)
        while await service.intake.admit():
            pass
        await service.runner.settle_all()
