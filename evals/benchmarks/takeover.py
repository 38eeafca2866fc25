"""How soon another worker on the same Postgres goes on with what a killed or silent one held.

`python -m evals.benchmarks.takeover --postgres URL`. Leases and Airflow's own count of clears are the judge.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.workers import Judge, judging, working
from server.loop import run as run_loop

BATCHES, SHARED = 5, 10.0  # times that failures are reported, and seconds until both workers drive some


async def both_drive(judge: Judge, prefix: str) -> None:
    """Report failures until both workers hold some: the first one up may have taken all there were."""
    driven = "SELECT count(DISTINCT lease_owner) FROM incident WHERE lease_owner IS NOT NULL"
    for batch in range(1, BATCHES + 1):
        await judge.report([f"{prefix}_{batch}_{n}" for n in range(20)])
        try:
            await judge.until(driven, 2, within=SHARED)
        except TimeoutError:
            if batch == BATCHES:
                raise
        else:
            return


async def takeovers(judge: Judge, database_url: str, rounds: int, *, with_signal: int) -> list[float]:
    """Seconds from the signal to a worker that drives incidents to their being taken over.

    One that is only stopped (SIGSTOP) is found by its silence, as one on another machine; it goes on
    afterwards and must change nothing.
    """
    taken: list[float] = []
    name = signal.Signals(with_signal).name.lower()
    for turn in range(rounds):
        await judge.forget()
        async with AsyncExitStack() as stack:
            # Slow answers: both are in the middle of something when one is hit.
            pids = [await stack.enter_async_context(working(database_url, 1.0)) for _ in range(2)]
            await judge.start(2)
            await both_drive(judge, f"dag_{name}_{turn}")
            victim = await judge.one("SELECT lease_owner FROM incident WHERE lease_owner IS NOT NULL LIMIT 1")
            number = int(victim.rpartition(":")[2])
            assert number in pids, (victim, pids)
            held = f"FROM incident WHERE lease_owner = '{victim}'"
            before = await judge.one(f"SELECT json_object_agg(id, epoch) {held}")
            began = time.perf_counter()
            os.killpg(number, with_signal)
            # Given back, and one of them driven again; the rest as the other worker has hands free.
            await judge.until(f"SELECT count(*) {held}", 0)
            driven_again = " OR ".join(f"id = {one} AND epoch > {epoch}" for one, epoch in before.items())
            await judge.until(f"SELECT count(*) > 0 FROM incident WHERE {driven_again}", True)
            taken.append(time.perf_counter() - began)
            if with_signal == signal.SIGSTOP:
                os.killpg(number, signal.SIGCONT)
                await judge.until("SELECT count(*) FROM incident WHERE status <> 'closed'", 0)
    return taken


async def measure(database_url: str, rounds: int) -> Report:
    """Killed ones, then silent ones."""
    async with judging(database_url) as judge:
        killed = await takeovers(judge, database_url, rounds, with_signal=signal.SIGKILL)
        stopped = await takeovers(judge, database_url, rounds, with_signal=signal.SIGSTOP)
        twice = await judge.cleared_twice()
    rows = (*_rows("SIGKILL", killed), *_rows("silence", stopped), twice)
    return Report(name="takeover", title="takeover from a worker that is gone, Airflow 1 s away", rows=rows)


def _rows(cause: str, taken: list[float]) -> tuple[Row, Row]:
    middle = Row(name=f"after {cause}, median", value=median(taken), unit="s", better="lower")
    worst = Row(
        name=f"after {cause}, worst of {len(taken)}", value=max(taken), unit="s", better="lower", target=5
    )
    return middle, worst


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    postgres: Annotated[str, typer.Option(help="URL of an empty PostgreSQL database")],
    rounds: Annotated[int, typer.Option(min=1, help="workers killed, and as many stopped")] = 5,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    finish(run_loop(measure(postgres, rounds)), report, typer.echo)


if __name__ == "__main__":
    app()
