"""A large Airflow in a process of its own: `python -m evals.benchmarks.storm_airflow COUNT SECONDS PORT`.

Many DAGs with a few runs of some tasks each, all of which lose one database, one after the other. It speaks
the REST API that Airmedic's adapter asks, keeps its truth in flat arrays, counts every clear of every task
instance, and is also the language model's endpoint, which counts how often it was asked. The database answers
on PORT once it is back. It prints its own port.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from evals.benchmarks.crash.http import Request, Said, serve
from evals.benchmarks.crash.rest import RestDoor
from graph.domain import AirflowHealth, DagInfo, Pool, RunSnapshot, TaskInfo, TaskLog, TaskRef, TaskSnapshot
from graph.errors import Conflict, NotFound
from server.loop import run as run_loop
from tools.gateway import AirflowGateway

RUNS, TASKS = 5, 20  # of each DAG, and of each run
WORKS = 0.3  # seconds a cleared task instance takes
HOST = "127.0.0.1"
LOG = """[2026-03-01T03:00:01.000Z] INFO - starting
[2026-03-01T03:00:04.000Z] ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/dags/load.py", line 41, in load
    connection = psycopg2.connect(dsn)
psycopg2.{error}
"""
REPORT = {"rows_in": 10, "rows_out": 10, "rows_expected": 10, "satisfied": True}
SAFE = ("airmedic:rerun-safe",)


def error_of(port: int) -> str:
    """What each task says."""
    return f'OperationalError: connection to server at "{HOST}", port {port} failed: Connection refused'


def ref_of(number: int) -> TaskRef:
    """The task instance of this number."""
    run, task = divmod(number, TASKS)
    dag, run = divmod(run, RUNS)
    return TaskRef(
        dag_id=f"dag_{dag:05}", run_id=f"scheduled__2026-03-{run + 1:02}", task_id=f"load_{task:02}"
    )


def number_of(ref: TaskRef) -> int:
    """And back. Raises `NotFound`."""
    try:
        dag, run, task = int(ref.dag_id[4:]), int(ref.run_id[-2:]) - 1, int(ref.task_id[5:])
    except ValueError as exc:
        raise NotFound(f"{ref} not found") from exc
    return (dag * RUNS + run) * TASKS + task


def order_of(count: int) -> list[int]:
    """In which order they fail."""
    numbers = list(range(count))
    random.Random(count).shuffle(numbers)
    return numbers


class StormAirflow:
    """As much of an `AirflowGateway` as a storm asks for."""

    def __init__(self, count: int, seconds: float, port: int) -> None:
        self.count, self.seconds, self.port = count, seconds, port
        self.began = datetime.max.replace(tzinfo=UTC)
        self.up = False  #: the database
        self.order = order_of(count)
        self.rank = [0] * count
        for rank, number in enumerate(self.order):
            self.rank[number] = rank
        self.clears = bytearray(count)
        self.ended: list[datetime | None] = [None] * count  #: when the second try ends
        self.well = bytearray(count)
        self.keys: dict[int, str] = {}
        self.moved: deque[tuple[datetime, int]] = deque(maxlen=20_000)
        self.requests: list[tuple[float, int]] = []  #: when each clear came, and of how many

    def failed_at(self, number: int) -> datetime:
        """When its first try failed."""
        return self.began + timedelta(seconds=self.seconds * self.rank[number] / self.count)

    def snapshot(self, number: int) -> TaskSnapshot:
        """As it is now."""
        now, end = datetime.now(UTC), self.failed_at(number) if self.began.year < 9999 else None
        state, tries = ("failed", 1) if end is not None and end <= now else ("running", 1)
        if (second := self.ended[number]) is not None:
            tries, end = 1 + self.clears[number], second
            state = "running" if second > now else ("success" if self.well[number] else "failed")
        start = (end or now) - timedelta(seconds=1)
        return TaskSnapshot(
            task=ref_of(number),
            state=state,
            try_number=tries,
            max_tries=tries - 1,
            operator="PythonOperator",
            note=self.keys.get(number, ""),
            start=start,
            end=end if state != "running" else None,
            updated=end,
            duration=1.0,
            dag_version=1,
        )

    def _number(self, ref: TaskRef) -> int:
        number = number_of(ref)
        if not 0 <= number < self.count or ref.map_index >= 0:
            raise NotFound(f"{ref} not found")
        return number

    def _in_run(self, dag_id: str, run_id: str) -> range:
        first = self._number(TaskRef(dag_id=dag_id, run_id=run_id, task_id="load_00"))
        return range(first, min(first + TASKS, self.count))

    # --- reading ---

    async def health(self) -> AirflowHealth:
        return AirflowHealth(version="3.3.2", scheduler=True, dag_processor=True)

    async def task(self, task: TaskRef) -> TaskSnapshot:
        return self.snapshot(self._number(task))

    async def tasks(self, refs: Sequence[TaskRef]) -> tuple[TaskSnapshot, ...]:
        numbers = (number_of(one) for one in refs)
        return tuple(self.snapshot(one) for one in numbers if 0 <= one < self.count)

    async def tries(self, task: TaskRef) -> tuple[TaskSnapshot, ...]:
        return (await self.task(task),)

    async def run(self, dag_id: str, run_id: str) -> RunSnapshot:
        states = {self.snapshot(number).state for number in self._in_run(dag_id, run_id)}
        state = "running" if "running" in states else ("failed" if "failed" in states else "success")
        return RunSnapshot(dag_id=dag_id, run_id=run_id, state=state, run_type="scheduled")

    async def run_tasks(self, dag_id: str, run_id: str) -> tuple[TaskSnapshot, ...]:
        return tuple(self.snapshot(number) for number in self._in_run(dag_id, run_id))

    async def recent_runs(self, dag_id: str, *, limit: int = 10) -> tuple[RunSnapshot, ...]:
        names = [f"scheduled__2026-03-{run + 1:02}" for run in reversed(range(RUNS))][:limit]
        return tuple([await self.run(dag_id, name) for name in names])

    async def failed_runs_since(self, since: datetime, *, limit: int = 100) -> tuple[RunSnapshot, ...]:
        return ()  # each of them has a task that failed

    async def history(self, dag_id: str, task_id: str, *, limit: int = 20) -> tuple[TaskSnapshot, ...]:
        runs = [f"scheduled__2026-03-{run + 1:02}" for run in reversed(range(RUNS))]
        refs = [TaskRef(dag_id=dag_id, run_id=run, task_id=task_id) for run in runs]
        return tuple([await self.task(one) for one in refs][:limit])

    async def failures_since(self, since: datetime, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        now = datetime.now(UTC)
        if self.began > now:
            return ()
        per = self.count / self.seconds
        first = max(0, int((since - self.began).total_seconds() * per))
        last = min(self.count, int((now - self.began).total_seconds() * per))
        found = (self.snapshot(number) for number in self.order[first : min(last, first + limit)])
        return tuple(one for one in found if one.state == "failed")

    async def updates_since(self, since: datetime, *, limit: int = 1000) -> tuple[TaskSnapshot, ...]:
        moved = list(self.moved)
        first = bisect_left(moved, (since, 0))
        last = bisect_right(moved, (datetime.now(UTC), self.count))
        return tuple(self.snapshot(number) for _, number in moved[first:last][:limit])

    async def log(self, task: TaskRef, try_number: int) -> TaskLog:
        return TaskLog(text=LOG.format(error=error_of(self.port)))

    async def xcom(self, task: TaskRef, key: str) -> Any:
        well = self.snapshot(self._number(task)).state == "success"
        return REPORT if key == "airmedic_report" and well else None

    def _dag(self, number: int) -> DagInfo:
        return DagInfo(dag_id=f"dag_{number:05}", tags=SAFE, owners=("airflow",), latest_version=1)

    async def dag(self, dag_id: str) -> DagInfo:
        return self._dag(int(dag_id[4:]))

    async def dags(self, *, offset: int = 0, limit: int = 100) -> tuple[DagInfo, ...]:
        dags = -(-self.count // (RUNS * TASKS))
        return tuple(self._dag(number) for number in range(offset, min(dags, offset + limit)))

    async def dag_tasks(self, dag_id: str) -> tuple[TaskInfo, ...]:
        return tuple(TaskInfo(task_id=f"load_{task:02}", operator="PythonOperator") for task in range(TASKS))

    async def dag_source(self, dag_id: str) -> str:
        return ""

    async def pool(self, name: str) -> Pool:
        return Pool(name=name, slots=128)

    async def pools(self) -> tuple[Pool, ...]:
        return (Pool(name="default_pool", slots=128),)

    async def _nothing(self, *_args: Any, **_kwargs: Any) -> tuple[()]:
        return ()

    waiting_tasks = running_tasks = import_failures = connections = runs_in = _nothing

    # --- writing ---

    async def clear(
        self,
        dag_id: str,
        run_id: str,
        tasks: Sequence[TaskRef],
        *,
        dry_run: bool,
        downstream: bool = True,
        only_failed: bool = True,
        latest_version: bool = False,
        note: str = "",
    ) -> tuple[TaskRef, ...]:
        numbers = [number for number in map(self._number, tasks) if self.snapshot(number).state == "failed"]
        if dry_run:
            return tuple(ref_of(number) for number in numbers)
        if not numbers:
            raise Conflict("none of them can be cleared as they are now")
        now = datetime.now(UTC)
        end = now + timedelta(seconds=WORKS)
        for number in numbers:
            self.clears[number] += 1
            self.ended[number], self.well[number] = end, self.up
            self.keys[number] = note
            self.moved.append((end, number))
        self.requests.append((now.timestamp(), len(numbers)))
        return tuple(ref_of(number) for number in numbers)


class Door:
    """Airflow's API, a language model's, and the benchmark's own questions under `/_/`."""

    def __init__(self, airflow: StormAirflow) -> None:
        self._airflow = airflow
        self._door = RestDoor(cast(AirflowGateway, airflow))
        self._model_calls = 0
        self._database: asyncio.Server | None = None

    async def handle(self, request: Request) -> Said:
        """One request."""
        if request.target.startswith("/v1/"):
            self._model_calls += 1
            return Said(500, {"error": {"message": "this model is out of order"}})
        match request.target:
            case "/_/begin":
                self._airflow.began = datetime.fromtimestamp(request.body["at"], UTC)
                return Said(200, {})
            case "/_/up":
                self._database = await asyncio.start_server(_hang_up, HOST, self._airflow.port)
                self._airflow.up = True
                return Said(200, {})
            case "/_/truth":
                return Said(200, self._truth())
        return Said(*await self._door.answer(request.method, request.target, request.body))

    def _truth(self) -> dict[str, Any]:
        airflow, now = self._airflow, datetime.now(UTC)
        ended = zip(airflow.ended, airflow.well, strict=True)
        return {
            "well": sum(1 for end, well in ended if end is not None and end <= now and well),
            # The first one is tried again while the database is away; no other one has cause to be.
            "cleared_again": sum(1 for clears in airflow.clears if clears > 1),
            "clears": airflow.requests,
            "model_calls": self._model_calls,
        }


async def _hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def main(count: int, seconds: float, port: int) -> None:
    """Until nobody listens."""
    server = await serve(Door(StormAirflow(count, seconds, port)).handle)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await asyncio.to_thread(sys.stdin.read)
        os._exit(0)  # whoever started it is gone


if __name__ == "__main__":
    run_loop(main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])))
