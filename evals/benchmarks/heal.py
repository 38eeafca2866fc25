"""Full incidents a second, each durable at its promises, beside bare LangGraph graphs in the same run.

`python -m evals.benchmarks.heal`. An incident goes from the listener's word through diagnosis (the real
knowledge base), policy, ledger, fix, verification and watch to closed; it suspends three times. The bare
graphs do nothing in their nodes.
"""

from __future__ import annotations

import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from evals.benchmarks import langgraph_dev
from evals.benchmarks.bare_graph import measure_bare, measure_in_memory
from evals.benchmarks.herd import heal_all, open_herd
from evals.benchmarks.report import Report, Row, finish
from graph.domain import Outcome
from server.loop import run as run_loop
from server.loop import settle_heap

ROUNDS = 3
RATES = ("ours", "stock", "stock, suspended twice", "in memory", "none")


class Rate:
    """Rounds of something, a second and of processor time."""

    def __init__(self) -> None:
        self._rates: list[float] = []
        self._used: list[float] = []

    async def round(self, count: int, work: Callable[[], Awaitable[object]]) -> None:
        """Do it once more."""
        began, used = time.perf_counter(), time.process_time()
        await work()
        self._rates.append(count / (time.perf_counter() - began))
        self._used.append((time.process_time() - used) * 1000 / count)

    @property
    def rate(self) -> float:
        """A second; the median of the rounds."""
        return median(self._rates)

    @property
    def used(self) -> float:
        """Milliseconds of processor time for each; the least disturbed round."""
        return min(self._used)


async def measure(folder: Path, count: int, postgres: str | None) -> Report:
    """All of them in turn, round by round, so that a busy machine slows all alike."""
    rates: dict[str, Rate] = {name: Rate() for name in RATES}
    kind = "PostgreSQL" if postgres else "SQLite"
    url = postgres or f"sqlite:///{folder / 'ours.db'}"
    async with open_herd(url, folder) as (service, herd, clock):
        await heal_all(service, clock, [await herd.add(f"warm_{n}", n) for n in range(10)])
        settle_heap()  # as `airmedic serve` does; the bare graphs gain by it too
        before = len(herd.worlds)
        empty = 0 if postgres else size_of(folder / "ours.db")
        for turn in range(ROUNDS):
            stock = postgres or f"sqlite:///{folder / f'stock_{turn}.db'}"
            waits = postgres or f"sqlite:///{folder / f'waits_{turn}.db'}"
            await rates["none"].round(count, partial(measure_bare, None, count, waits=False))
            await rates["stock"].round(count, partial(measure_bare, stock, count, waits=False))
            await rates["stock, suspended twice"].round(
                count, partial(measure_bare, waits, count, waits=True)
            )
            await rates["in memory"].round(count, partial(measure_in_memory, count))
            tasks = [await herd.add(f"dag_{turn}_{n}", n) for n in range(count)]
            await rates["ours"].round(count, partial(heal_all, service, clock, tasks))
        healed = (await service.store.outcomes()).get(Outcome.HEALED, 0)
        assert healed == herd.writes == before + ROUNDS * count, (healed, herd.writes)
        stored = None
        if not postgres:
            stored = (size_of(folder / "ours.db") - empty - logs_in(folder / "ours.db")) / (ROUNDS * count)
    others = await langgraph_dev.rows(count, rates["ours"].rate)
    return _report(kind, rates, stored, *others)


def size_of(file: Path) -> int:
    """Bytes of a SQLite database, its log written back."""
    with closing(sqlite3.connect(file)) as raw:
        raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file.stat().st_size


def logs_in(file: Path) -> int:
    """Bytes of the logs in it, compressed."""
    with closing(sqlite3.connect(file)) as raw:
        return int(raw.execute("SELECT coalesce(sum(length(body)), 0) FROM log").fetchone()[0])


def _report(
    kind: str, rates: dict[str, Rate], stored: float | None, others: tuple[Row, ...], notes: tuple[str, ...]
) -> Report:
    ours, stock, waits, memory, none = (rates[name] for name in RATES)
    goal = 3.0 if kind == "SQLite" else 2.5
    rows = [
        Row(name="full incident, durable", value=ours.rate, unit="/s"),
        Row(name="bare graph, stock saver, sync", value=stock.rate, unit="/s", baseline=True),
        Row(name="the same, suspended twice", value=waits.rate, unit="/s", baseline=True),
        Row(name="the same in memory: LangGraph alone", value=memory.rate, unit="/s", baseline=True),
        Row(name="bare graph, no checkpointer", value=none.rate, unit="/s", baseline=True),
        Row(name="of the stock saver", value=ours.rate / stock.rate, unit="×", target=goal),
        Row(name="of the stock saver, suspended twice", value=ours.rate / waits.rate, unit="×"),
        Row(name="of no checkpointer", value=ours.rate / none.rate, unit="×", target=0.5),
        Row(name="processor time of an incident", value=ours.used, unit="ms", better="lower"),
        Row(
            name="processor time, stock saver",
            value=stock.used,
            unit="ms",
            better="lower",
            baseline=True,
        ),
    ]
    if stored is not None:
        rows.append(
            Row(
                name="stored for a closed incident",
                value=stored / 1000,
                unit="kB",
                better="lower",
                target=8,
            )
        )
    times = memory.rate / stock.rate
    bound = f"LangGraph alone, suspended twice and kept in memory, is {times:.2f} x the stock saver"
    name = "heal" if kind == "SQLite" else "heal_postgres"
    return Report(name=name, title=f"full incidents on {kind}", rows=(*rows, *others), notes=(bound, *notes))


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    count: Annotated[int, typer.Option(min=5, help="incidents in one round")] = 60,
    postgres: Annotated[str, typer.Option(help="URL of an empty PostgreSQL database; else SQLite")] = "",
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-heal-") as folder:
        found = run_loop(measure(Path(folder), count, postgres or None))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    from evals.benchmarks.quiet import quiet

    quiet()
    app()
