"""What a store that has grown costs: `python -m evals.benchmarks.growth [--full]`.

The same work on stores with a thousand, a hundred thousand and, with `--full`, a million incidents in them:
events taken, lists and the status read over HTTP from `airmedic serve`, incidents healed from event to close.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
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
WARM = 5  # incidents before them, which are not counted
SETTLES = 2.0  # seconds in which a server goes through what came in, before the next one is measured
ASKED = 60  # times each page is read
FLAT = 0.2  # of the smallest store's figure

PAGES: Mapping[str, str] = {
    "list of incidents": "/api/incidents?limit=50",
    "list of one DAG": "/api/incidents?limit=2&dag_id=orders_daily_3",  # no more are in the smallest store
    "status": "/api/status",
}

Figures = dict[str, float]


async def heal_rate(url: str, folder: Path, turn: int) -> float:
    """Incidents healed a second, from the event to the close."""
    async with open_herd(url, folder) as (service, herd, clock):
        await heal_all(service, clock, [await herd.add(f"warm_{turn}_{n}", n) for n in range(WARM)])
        tasks = [await herd.add(f"dag_{turn}_{number}", number) for number in range(HEALED)]
        began = time.perf_counter()
        await heal_all(service, clock, tasks)
        return HEALED / (time.perf_counter() - began)


async def healed(stores: Mapping[int, Path]) -> dict[int, float]:
    """The median rate of each store, the stores in turns: what the machine does meanwhile meets them all."""
    rates: dict[int, list[float]] = {size: [] for size in stores}
    for turn in range(ROUNDS + 1):
        for size, folder in stores.items():
            rates[size].append(await heal_rate(f"sqlite:///{folder / DATABASE}", folder, turn))
    return {size: median(some[1:]) for size, some in rates.items()}  # the first one loads the knowledge base


async def asked_and_told(stores: Mapping[int, Path]) -> dict[int, Figures]:
    """Pages read and events taken over HTTP, the stores in turns."""
    found: dict[int, Figures] = {size: {} for size in stores}
    async with AsyncExitStack() as stack:
        airflow = await stack.enter_async_context(open_twin())
        ports = {
            size: (await stack.enter_async_context(serving("ours", folder, airflow)))[0]
            for size, folder in stores.items()
        }
        for name, path in PAGES.items():
            times = await read_times(ports, path)
            for size, some in times.items():
                found[size][name] = median(some)
        for port in ports.values():
            await load(port, EVENTS // 3)
        rates: dict[int, list[float]] = {size: [] for size in stores}
        for _ in range(ROUNDS):
            for size, port in ports.items():
                rates[size].append((await load(port, EVENTS)).rate)
                await asyncio.sleep(SETTLES)
        for size, some in rates.items():
            found[size]["taken"] = median(some)
    return found


async def read_times(ports: Mapping[int, int], path: str) -> dict[int, list[float]]:
    """Milliseconds for one page of each store, asked in turns; the first few are left out."""
    times: dict[int, list[float]] = {size: [] for size in ports}
    async with AsyncExitStack() as stack:
        clients = {
            size: await stack.enter_async_context(
                httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)
            )
            for size, port in ports.items()
        }
        for _ in range(ASKED):
            for size, http in clients.items():
                began = time.perf_counter()
                answer = await http.get(path)
                times[size].append((time.perf_counter() - began) * 1000)
                answer.raise_for_status()
    return {size: some[5:] for size, some in times.items()}


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
        notes=(
            "pages are read over HTTP, medians; events as in `ingest`, healings as in `heal`",
            "the stores take turns in each round",
        ),
    )


async def measure(sizes: tuple[int, ...]) -> Report:
    """All stores, side by side."""
    quiet()
    with tempfile.TemporaryDirectory(prefix="airmedic-growth-") as root:
        stores = {size: Path(root) / str(size) for size in sizes}
        for size, folder in stores.items():
            folder.mkdir()
            async with open_database(f"sqlite:///{folder / DATABASE}"):
                pass
            await asyncio.to_thread(fill_sqlite, str(folder / DATABASE), size)
        rates = await healed(stores)
        found = await asked_and_told(stores)
        return _report({size: {**figures, "healed": rates[size]} for size, figures in found.items()})


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
