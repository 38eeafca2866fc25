"""What a store that has grown costs: `python -m evals.benchmarks.growth [--full]`.

The same work on stores with a thousand, a hundred thousand and, with `--full`, a million incidents in them:
events taken, lists and the status read over HTTP from `airmedic serve`, incidents healed from event to close.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Annotated

import httpx
import typer

from evals.benchmarks.herd import heal_all, open_herd
from evals.benchmarks.ingest import load, serving
from evals.benchmarks.ingest_server import DATABASE
from evals.benchmarks.listing_store import fill_sqlite
from evals.benchmarks.quiet import quiet
from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.twin import open_twin
from server.db.database import open_database
from server.loop import run as run_loop

SIZES = (1_000, 100_000)
FULL = 1_000_000
EVENTS, ROUNDS = 1500, 3
HEALED = 40  # incidents healed in one round
ASKED = 60  # times each page is read
FLAT = 0.2  # of the smallest store's figure

PAGES: Mapping[str, str] = {
    "list of incidents": "/api/incidents?limit=50",
    "list of one DAG": "/api/incidents?limit=50&dag_id=orders_daily_3",
    "status": "/api/status",
}

Figures = dict[str, float]


async def measure_one(folder: Path, size: int) -> Figures:
    """All figures on a store of this size."""
    url = f"sqlite:///{folder / DATABASE}"
    async with open_database(url):
        pass
    await asyncio.to_thread(fill_sqlite, str(folder / DATABASE), size)
    found: Figures = {"healed": await heal_rate(url, folder)}
    async with open_twin() as airflow, serving("ours", folder, airflow) as (port, _):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            for name, path in PAGES.items():
                found[name] = await read_time(http, path)
        await load(port, EVENTS // 3)
        found["taken"] = median([(await load(port, EVENTS)).rate for _ in range(ROUNDS)])
    return found


async def heal_rate(url: str, folder: Path) -> float:
    """Incidents healed a second, from the event to the close."""
    async with open_herd(url, folder) as (service, herd, clock):
        rates = []
        for turn in range(ROUNDS + 1):
            tasks = [await herd.add(f"dag_{turn}_{number}", number) for number in range(HEALED)]
            began = time.perf_counter()
            await heal_all(service, clock, tasks)
            rates.append(HEALED / (time.perf_counter() - began))
    return median(rates[1:])  # the first one loads the knowledge base


async def read_time(http: httpx.AsyncClient, path: str) -> float:
    """Milliseconds for one page, the median of many."""
    times = []
    for _ in range(ASKED):
        began = time.perf_counter()
        answer = await http.get(path)
        times.append((time.perf_counter() - began) * 1000)
        answer.raise_for_status()
    return median(times[5:])


UNITS = {"taken": ("events taken", "/s", "higher"), "healed": ("incidents healed", "/s", "higher")}


def _report(found: Mapping[int, Figures]) -> Report:
    smallest, largest = min(found), max(found)
    rows = []
    for name in (*UNITS, *PAGES):
        label, unit, better = UNITS.get(name, (name, "ms", "lower"))
        rows += [
            Row(name=f"{label}, {size:,} incidents", value=figures[name], unit=unit, better=better)
            for size, figures in found.items()
        ]
        target = 1 - FLAT if better == "higher" else 1 + FLAT
        ratio = found[largest][name] / found[smallest][name]
        rows.append(
            Row(name=f"{label}, largest to smallest", value=ratio, unit="×", better=better, target=target)
        )
    return Report(
        name="growth",
        title="cost with size, SQLite",
        rows=tuple(rows),
        notes=("pages are read over HTTP, medians; events as in `ingest`, healings as in `heal`",),
    )


async def measure(sizes: tuple[int, ...]) -> Report:
    """One store after the other."""
    quiet()
    found: dict[int, Figures] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="airmedic-growth-") as folder:
            found[size] = await measure_one(Path(folder), size)
    return _report(found)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    full: Annotated[bool, typer.Option(help="a million incidents, too")] = False,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    found = run_loop(measure((*SIZES, FULL) if full else SIZES))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    app()
