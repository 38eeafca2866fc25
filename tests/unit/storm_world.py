"""Many DAGs whose tasks lost one thing: what tests of correlation and waves share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from graph.domain import Diagnosis, Door, FailureId, TaskRef
from tests.factories import Clock
from tests.unit.healing_world import GOOD, SAFE, Ward, open_ward
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try
from tools.knowledge import KnowledgeBase

HOST = "db17.internal"
DOWN = f'psycopg2.OperationalError: connection to server at "{HOST}", port 5432 failed: Connection refused'
EVENT = DOWN.replace("psycopg2.", "")
LOG = f"""[2026-03-01T03:00:01.000Z] INFO - starting
[2026-03-01T03:00:04.000Z] ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/dags/load.py", line 41, in load
    connection = psycopg2.connect(dsn)
{DOWN}
"""
LOST = Try(state="failed", log=LOG)


class Source:
    """What every task needs; down, each try fails of it, and each is counted."""

    def __init__(self) -> None:
        self.up = False
        self.broken: set[str] = set()  #: DAGs that cannot reach it for ever
        self.other: set[str] = set()  #: DAGs that fail of something else once it is back
        self.half: set[str] = set()  #: DAGs that lose rows once it is back
        self.long: set[str] = set()  #: DAGs that run on and on once it is back
        self.idle: set[str] = set()  #: DAGs that find nothing to do once it is back
        self.silent: set[str] = set()  #: DAGs that say nothing of their data
        self.tries: dict[TaskRef, int] = {}

    def __call__(self, task: TaskRef, number: int) -> Try:
        self.tries[task] = number
        if not self.up or task.dag_id in self.broken:
            return LOST
        if task.dag_id in self.other:
            return Try(state="failed", log="ERROR - ValueError: invalid literal for int() with base 10: 'x'")
        if task.dag_id in self.long:
            return Try("running")
        if task.dag_id in self.idle:
            return Try("skipped")
        if task.dag_id in self.half:
            return Try(xcom={"airmedic_report": {"rows_out": 5, "rows_expected": 10}})
        return Try() if task.dag_id in self.silent else GOOD


async def storm(
    clock: Clock, source: Source, count: int, *, tags: Mapping[int, Sequence[str]] | None = None
) -> tuple[MemoryAirflow, list[TaskRef]]:
    """So many DAGs, each with one run that lost the source."""
    airflow = MemoryAirflow(clock=clock, auto=True)
    tasks = []
    for number in range(count):
        dag_id = f"dag_{number:04}"
        airflow.add_dag(dag_id, [TaskSpec("load", tries=source)], tags=(tags or {}).get(number, SAFE))
        airflow.start(dag_id, "manual__1")
        tasks.append(TaskRef(dag_id=dag_id, run_id="manual__1", task_id="load"))
    await airflow.settle()
    return airflow, tasks


async def tell(ward: Ward, tasks: Sequence[TaskRef], *, error: str = EVENT, try_number: int = 1) -> None:
    """The listener tells of all of them."""
    for task in tasks:
        failure = FailureId(airflow="default", task=task, try_number=try_number)
        await ward.service.store.accept([failure], door=Door.LISTENER, error=error)
    await ward.go_on()


@asynccontextmanager
async def open_storm(
    tmp_path: Path,
    airflow: MemoryAirflow,
    clock: Clock,
    knowledge: KnowledgeBase,
    *answers: Diagnosis,
    **settings: Any,
) -> AsyncIterator[Ward]:
    """A ward in which failures correlate."""
    given = {"wave_first": 2, "wave_largest": 8, "wave_per_minute": 60, **settings}
    async with open_ward(tmp_path, airflow, clock, *answers, knowledge=knowledge, **given) as ward:
        yield ward
