"""One worker and two on one Postgres, with an Airflow that takes 100 ms to answer.

`python -m evals.benchmarks.workers --postgres URL`. The judge is the shared Airflow's own count of clears.

A healing takes some three seconds by itself then, however many there are: with a hundred of them it is that
which is measured, with a thousand how much a worker gets done.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

import psycopg
import typer

from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.shared_herd import TABLE
from graph.domain import Door, FailureId, TaskRef
from server.db.database import open_database
from server.loop import run as run_loop
from server.service import utc_now
from server.store import IncidentStore

START, PATIENCE = 90.0, 240.0  # seconds


@asynccontextmanager
async def working(database_url: str, delay: float = 0.1) -> AsyncIterator[int]:
    """A worker in a process of its own; its number."""
    command = [sys.executable, "-m", "evals.benchmarks.shared_herd", database_url, str(delay)]
    process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


class Judge:
    """Reads what became of the incidents, and what the shared Airflow counted."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], store: IncidentStore) -> None:
        self._connection = connection
        self._store = store

    async def one(self, query: str) -> Any:
        """The first value of a query's first row."""
        row = await (await self._connection.execute(query.encode())).fetchone()
        return None if row is None else row[0]

    async def until(self, query: str, value: object, *, within: float = PATIENCE) -> None:
        """Wait until the query gives this value."""
        async with asyncio.timeout(within):
            while await self.one(query) != value:  # noqa: ASYNC110  the database rings for workers only
                await asyncio.sleep(0.02)

    async def forget(self) -> None:
        """Those that were killed before are not waited for."""
        await self._connection.execute("DELETE FROM worker")

    async def start(self, workers: int) -> None:
        """Wait until so many show themselves."""
        seen = "SELECT count(*) FROM worker WHERE seen_at > now() - interval '3 seconds'"
        await self.until(seen, workers, within=START)

    async def cleared_twice(self) -> Row:
        """How many tasks were."""
        again = "SELECT dag_id FROM bench_clear GROUP BY dag_id HAVING count(*) > 1"
        number = float(await self.one(f"SELECT count(*) FROM ({again}) AS d"))
        return Row(name="tasks cleared twice", value=number, unit="", better="lower", target=0)

    async def report(self, names: list[str]) -> None:
        """Failures of these DAGs."""
        for name in names:
            task = TaskRef(dag_id=name, run_id="manual__1", task_id="load")
            failure = FailureId(airflow="default", task=task, try_number=1)
            await self._store.accept([failure], door=Door.LISTENER, error="429")


@asynccontextmanager
async def judging(database_url: str) -> AsyncIterator[Judge]:
    """The judge on this database, its schema made."""
    async with (
        open_database(database_url) as engine,
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection,
    ):
        await connection.execute(TABLE)
        yield Judge(connection, IncidentStore(engine, clock=utc_now))


async def healing_rate(judge: Judge, database_url: str, workers: int, count: int) -> float:
    """Incidents closed a second by so many workers."""
    await judge.forget()
    async with AsyncExitStack() as stack:
        for _ in range(workers):
            await stack.enter_async_context(working(database_url))
        await judge.start(workers)
        before = await judge.one("SELECT count(*) FROM incident WHERE status = 'closed'")
        began = time.perf_counter()
        await judge.report([f"dag_{workers}_{before}_{n}" for n in range(count)])
        await judge.until("SELECT count(*) FROM incident WHERE status = 'closed'", before + count)
        return count / (time.perf_counter() - began)


async def measure(database_url: str, count: int) -> Report:
    """One, two, one, two."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    async with judging(database_url) as judge:
        for workers in (1, 2, 1, 2):
            rates[workers].append(await healing_rate(judge, database_url, workers, count))
        twice = await judge.cleared_twice()
    one, two = mean(rates[1]), mean(rates[2])
    rows = (
        Row(name="one worker", value=one, unit="/s"),
        Row(name="two workers", value=two, unit="/s"),
        Row(name="two of one", value=two / one, unit="×", target=1.6),
        twice,
    )
    return Report(name="workers", title="workers on one Postgres, Airflow 100 ms away", rows=rows)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    postgres: Annotated[str, typer.Option(help="URL of an empty PostgreSQL database")],
    count: Annotated[int, typer.Option(min=10, help="incidents for each number of workers")] = 1000,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    finish(run_loop(measure(postgres, count)), report, typer.echo)


if __name__ == "__main__":
    app()
