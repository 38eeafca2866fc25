"""From a failure's event to its diagnosis on record: `python -m evals.benchmarks.latency`.

Open loop: events are sent at moments drawn beforehand (Poisson), whatever became of those before, and each is
timed from the moment it was due. Airmedic is `airmedic serve` in a process of its own, with healing on; the
Airflow it asks and whose logs it reads is another one. What is on record is read from its database by a third
party, this process, every few milliseconds: a diagnosis counts when others can read it.
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from typing import Annotated

import psutil
import typer

from evals.benchmarks.bare_graph import bare_graph, stock_saver
from evals.benchmarks.ingest import answer_of, request_of, serving
from evals.benchmarks.ingest_server import DATABASE
from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.twin import open_twin
from server.loop import run as run_loop

LOOK_EVERY = 0.003  # seconds
WARM_UP = 40  # events before, which are not counted: the first ones load the knowledge base
PATIENCE = 30  # seconds after the last event, for those that are late

DIAGNOSED = """
    SELECT event.id, incident.dag_id, event.at FROM event JOIN incident ON incident.id = event.incident_id
    WHERE event.id > ? AND event.name = 'diagnosed'
"""


@dataclass
class Seen:
    """When each DAG's failure was due to be sent, found out, and read."""

    due: dict[str, float] = field(default_factory=dict)
    found: dict[str, float] = field(default_factory=dict)  #: by the agent log's own time
    read: dict[str, float] = field(default_factory=dict)
    used: float = 0.0  #: seconds of processor time that the server took meanwhile

    def took(self, moments: Mapping[str, float]) -> list[float]:
        """Milliseconds since each was due."""
        return sorted((moments[name] - due) * 1000 for name, due in self.due.items() if name in moments)


class Lines:
    """Kept connections to one server; as many as are needed at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def send(self, request: bytes) -> None:
        """Send one request and take its answer; a line that the server has let go of is replaced."""
        while self._free:
            reader, writer = self._free.pop()
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._ask(reader, writer, request)
                return
        await self._ask(*await self._open(), request)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> None:
        writer.write(request)
        assert await answer_of(reader) == 202
        self._free.append((reader, writer))

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    def close(self) -> None:
        """Hang up."""
        for _, writer in self._free:
            writer.close()


async def send_all(port: int, schedule: Mapping[str, float]) -> None:
    """Send each DAG's failure at its moment, on time even when answers are late."""
    lines = Lines(port)
    async with asyncio.TaskGroup() as sending:
        for name, moment in schedule.items():
            await asyncio.sleep(max(0.0, moment - time.time()))
            sending.create_task(lines.send(request_of(name)))
    lines.close()


def schedule_of(rate: float, seconds: float, *, prefix: str, seed: int) -> dict[str, float]:
    """Names and moments of a Poisson process that begins now."""
    schedule: dict[str, float] = {}
    chance, moment = random.Random(seed), time.time() + 0.2
    end = moment + seconds
    while (moment := moment + chance.expovariate(rate)) < end:
        schedule[f"dag_{prefix}_{len(schedule)}"] = moment
    return schedule


@asynccontextmanager
async def watching(database: Path, seen: Seen) -> AsyncIterator[None]:
    """Note what is on record, as soon as it can be read."""

    async def look() -> None:
        last = 0
        with closing(sqlite3.connect(database)) as raw:
            while True:
                rows = raw.execute(DIAGNOSED, (last,)).fetchall()
                now = time.time()
                for number, name, at in rows:
                    last = max(last, number)
                    seen.read.setdefault(name, now)
                    found = datetime.fromisoformat(at).replace(tzinfo=UTC)
                    seen.found.setdefault(name, found.timestamp())
                await asyncio.sleep(LOOK_EVERY)

    looking = asyncio.create_task(look())
    try:
        yield
    finally:
        looking.cancel()
        with suppress(asyncio.CancelledError):
            await looking


async def measure(folder: Path, rate: float, seconds: float, seed: int) -> Report:
    """The whole way through `airmedic serve`, then five empty nodes with the stock saver at the same pace."""
    seen = Seen()
    async with open_twin() as airflow, serving("ours", folder, airflow) as (port, process):
        await send_all(port, schedule_of(rate, WARM_UP / rate, prefix="warm", seed=seed))
        async with watching(folder / DATABASE, seen):
            await asyncio.sleep(2)
            seen.due = schedule_of(rate, seconds, prefix="measured", seed=seed + 1)
            before = used(process)
            await send_all(port, seen.due)
            for _ in range(PATIENCE):
                if seen.due.keys() <= seen.read.keys():
                    break
                await asyncio.sleep(1)
            seen.used = used(process) - before
    return _report(seen, await bare(folder, rate, min(seconds, 20.0), seed), rate)


def used(process: int) -> float:
    """Seconds of processor time that it has used so far."""
    times = psutil.Process(process).cpu_times()
    return float(times.user + times.system)


async def bare(folder: Path, rate: float, seconds: float, seed: int) -> list[float]:
    """LangGraph alone: five nodes that do nothing, in this process, with AsyncSqliteSaver; milliseconds."""
    times: list[float] = []
    async with stock_saver(f"sqlite:///{folder / 'stock.db'}") as saver:
        graph = bare_graph(saver, waits=False)

        async def run(name: str, due: float) -> None:
            await graph.ainvoke(
                {"payload": "x" * 4000}, {"configurable": {"thread_id": name}}, durability="sync"
            )
            times.append((time.time() - due) * 1000)

        async with asyncio.TaskGroup() as running:
            for name, moment in schedule_of(rate, seconds, prefix="bare", seed=seed).items():
                await asyncio.sleep(max(0.0, moment - time.time()))
                running.create_task(run(name, moment))
    return sorted(times)


def _report(seen: Seen, others: list[float], rate: float) -> Report:
    read, found = seen.took(seen.read), seen.took(seen.found)
    missing = len(seen.due) - len(read)
    lower = "lower"

    def row(name: str, times: list[float], percent: int, target: float | None = None) -> Row:
        value = quantiles(times, n=100, method="inclusive")[percent - 1]
        return Row(name=name, value=value, unit="ms", better=lower, target=target)

    rows = (
        row("event due → diagnosis on record, p50", read, 50, 25),
        row("event due → diagnosis on record, p99", read, 99, 150),
        row("by the agent log's time, p50", found, 50),
        row("by the agent log's time, p99", found, 99),
        Row(
            name="processor time of the server for each",
            value=seen.used * 1000 / len(seen.due),
            unit="ms",
            better=lower,
        ),
        Row(name="not diagnosed", value=missing, unit="", better=lower, target=0),
        row("LangGraph alone, AsyncSqliteSaver, p50", others, 50).model_copy(update={"baseline": True}),
        row("LangGraph alone, AsyncSqliteSaver, p99", others, 99).model_copy(update={"baseline": True}),
    )
    notes = (
        f"{len(seen.due)} failures of as many DAGs, {rate:g} a second (Poisson), timed from when due",
        "the Airflow that is asked is a process of its own on the same machine; so is the sender",
        "LangGraph alone: five nodes that do nothing, no HTTP, no log to read; `langgraph dev` is left out",
    )
    return Report(name="latency", title="from event to diagnosis, open loop, SQLite", rows=rows, notes=notes)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    rate: Annotated[float, typer.Option(min=1, help="events a second")] = 50.0,
    seconds: Annotated[float, typer.Option(min=2, help="how long")] = 60.0,
    seed: Annotated[int, typer.Option(help="of the moments")] = 1,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-latency-") as folder:
        found = run_loop(measure(Path(folder), rate, seconds, seed))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    app()
