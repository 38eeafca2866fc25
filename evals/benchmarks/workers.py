"""One worker and two on one Postgres, with an Airflow that takes 100 ms to answer; and takeover after -9.

`python -m evals.benchmarks.workers --postgres URL`. The judge is the shared Airflow's own count of clears.
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
from statistics import median
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


async def takeovers(judge: Judge, database_url: str, rounds: int, *, with_signal: int) -> list[float]:
    """Seconds from the signal to a worker that drives incidents to their being taken over.

    One that is only stopped (SIGSTOP) is found by its silence, as one on another machine; it goes on
    afterwards and must change nothing.
    """
    taken: list[float] = []
    name = signal.Signals(with_signal).name.lower()
    driven = "SELECT count(DISTINCT lease_owner) FROM incident WHERE lease_owner IS NOT NULL"
    for turn in range(rounds):
        await judge.forget()
        async with AsyncExitStack() as stack:
            # Slow answers: both are in the middle of something when one is hit.
            pids = [await stack.enter_async_context(working(database_url, 1.0)) for _ in range(2)]
            await judge.start(2)
            await judge.report([f"dag_{name}_{turn}_{n}" for n in range(20)])
            await judge.until(driven, 2)
            victim = await judge.one("SELECT lease_owner FROM incident WHERE lease_owner IS NOT NULL LIMIT 1")
            number = int(victim.rpartition(":")[2])
            assert number in pids, (victim, pids)
            began = time.perf_counter()
            os.killpg(number, with_signal)
            ids = await judge.one(f"SELECT array_agg(id) FROM incident WHERE lease_owner = '{victim}'")
            # Given back, and one of them driven again; the rest as the other worker has hands free.
            held = f"SELECT count(*) FROM incident WHERE lease_owner = '{victim}'"
            await judge.until(held, 0)
            again = f"SELECT count(*) > 0 FROM incident WHERE id = ANY(ARRAY{ids}::bigint[]) AND epoch > 1"
            await judge.until(again, True)
            taken.append(time.perf_counter() - began)
            if with_signal == signal.SIGSTOP:
                os.killpg(number, signal.SIGCONT)
                await judge.until("SELECT count(*) FROM incident WHERE status <> 'closed'", 0)
    return taken


async def measure(database_url: str, count: int, rounds: int) -> Report:
    """One, two, one, two; then the kills."""
    async with judging(database_url) as judge:
        rates: dict[int, list[float]] = {1: [], 2: []}
        for workers in (1, 2):
            rates[workers].append(await healing_rate(judge, database_url, workers, count))
        killed = await takeovers(judge, database_url, rounds, with_signal=signal.SIGKILL)
        stopped = await takeovers(judge, database_url, rounds, with_signal=signal.SIGSTOP)
        twice = await judge.one(
            "SELECT count(*) FROM (SELECT dag_id FROM bench_clear GROUP BY dag_id HAVING count(*) > 1) AS d"
        )
    one, two = median(rates[1]), median(rates[2])
    rows = (
        Row(name="one worker", value=one, unit="/s"),
        Row(name="two workers", value=two, unit="/s"),
        Row(name="two of one", value=two / one, unit="×", target=1.6),
        Row(
            name=f"taken over after SIGKILL, worst of {rounds}",
            value=max(killed),
            unit="s",
            better="lower",
            target=5,
        ),
        Row(
            name=f"taken over by silence, worst of {rounds}",
            value=max(stopped),
            unit="s",
            better="lower",
            target=5,
        ),
        Row(name="tasks cleared twice", value=float(twice), unit="", better="lower", target=0),
    )
    return Report(name="workers", title="workers on one Postgres, Airflow 100 ms away", rows=rows)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    postgres: Annotated[str, typer.Option(help="URL of an empty PostgreSQL database")],
    count: Annotated[int, typer.Option(min=10, help="incidents for each number of workers")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="workers killed")] = 5,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    finish(run_loop(measure(postgres, count, rounds)), report, typer.echo)


if __name__ == "__main__":
    app()
