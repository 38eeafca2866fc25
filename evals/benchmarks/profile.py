"""Where processor time goes: of a full healing, and of an event that is taken, beside a bare endpoint.

`python -m evals.benchmarks.profile`. A timer that counts the process's own time looks at the event loop's
thread, and counts for whoever owns the innermost frame that is not Python's own library: a library by its
name, our code by its folder. While that thread waits it is the loop itself, the kernel and other threads.
"""

from __future__ import annotations

import asyncio
import asyncio.runners
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from multiprocessing import get_context
from pathlib import Path
from sysconfig import get_paths
from types import FrameType
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from evals.benchmarks.herd import heal_all, open_herd, settings_for
from evals.benchmarks.ingest import load
from evals.benchmarks.ingest_server import SECRET, bare
from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.twin import opened
from evals.faults.sandbox import free_port
from server.app import create_app
from server.embedded import EmbeddedServer
from server.loop import run as run_loop
from server.loop import settle_heap

EVERY = 0.001  # seconds of processor time from one look to the next
ELSEWHERE = "event loop, kernel, other threads"
SHOWN = 12  # owners that get a row of their own
ROOT = Path(__file__).parents[2]
FOLDERS = ("server/db", "tools/knowledge")  # told apart from the rest of their top-level folder
RUNNER = asyncio.runners.__file__
INSTALLED = Path(get_paths()["purelib"])
FAMILIES = {
    "langgraph": "LangGraph and LangChain",
    "langchain_core": "LangGraph and LangChain",
    "langsmith": "LangGraph and LangChain",
    "pydantic_core": "pydantic",
    "starlette": "FastAPI and Starlette",
    "fastapi": "FastAPI and Starlette",
    "h11": "HTTP (uvicorn, h11)",
    "uvicorn": "HTTP (uvicorn, h11)",
    "re2": "regular expressions (RE2)",
}


def owner_of(frame: FrameType) -> str | None:
    """Whose work this is; None when it is nobody's but the event loop's."""
    if frame.f_code.co_filename == RUNNER:
        return None
    at: FrameType | None = frame
    while at is not None:
        if (owner := _owner(at.f_code.co_filename)) is not None:
            return owner
        at = at.f_back
    return None


def _owner(file: str) -> str | None:
    path = Path(file)
    if path.is_relative_to(INSTALLED):
        package = path.relative_to(INSTALLED).parts[0].removesuffix(".py")
        return FAMILIES.get(package, package)
    if not path.is_relative_to(ROOT):
        return None
    place = path.relative_to(ROOT)
    return next(
        (f"Airmedic, {one}" for one in FOLDERS if place.is_relative_to(one)), f"Airmedic, {place.parts[0]}"
    )


class Looks:
    """What the looks saw, and the processor time that this process used meanwhile."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.used = 0.0  #: seconds

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Look until this is left."""
        before = signal.signal(signal.SIGPROF, self._look)
        began = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.used += time.process_time() - began
            signal.signal(signal.SIGPROF, before)

    def _look(self, _signal: int, frame: FrameType | None) -> None:
        if frame is not None:
            self.seen[owner_of(frame) or ELSEWHERE] += 1

    def rows(self, of: str, count: int, unit: str, scale: float, *, baseline: bool = False) -> list[Row]:
        """The total, and the owners with the largest shares."""
        looks, each = sum(self.seen.values()), self.used * scale / count
        rows = [Row(name=f"{of}: all", value=each, unit=unit, better="lower", baseline=baseline)]
        for owner, seen in self.seen.most_common(SHOWN):
            share = each * seen / looks
            rows.append(Row(name=f"{of}: {owner}", value=share, unit=unit, better="lower", baseline=baseline))
        return rows


async def healing(folder: Path, count: int) -> list[Row]:
    """A full healing on SQLite, on the in-memory Airflow: what `heal` measures."""
    looks = Looks()
    async with open_herd(f"sqlite:///{folder / 'heal.db'}", folder) as (service, herd, clock):
        await heal_all(service, clock, [await herd.add(f"warm_{n}", n) for n in range(10)])
        settle_heap()
        tasks = [await herd.add(f"dag_{n}", n) for n in range(count)]
        with looks.looking():
            await heal_all(service, clock, tasks)
    return looks.rows("healing", count, "ms", 1e3)


async def taking(app: FastAPI, count: int, of: str, *, baseline: bool = False) -> list[Row]:
    """Events that come over HTTP from another process."""
    looks, port = Looks(), free_port()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as sender:
        async with _served(app, port):
            await _sent(sender, port, count // 4)
            with looks.looking():
                await _sent(sender, port, count)
    return looks.rows(of, count, "µs", 1e6, baseline=baseline)


@asynccontextmanager
async def _served(app: FastAPI, port: int) -> AsyncIterator[None]:
    server = EmbeddedServer(uvicorn.Config(app, port=port, log_config=None, access_log=False, ws="none"))
    serving = asyncio.create_task(server.serve())
    try:
        await opened(port)
        yield
    finally:
        server.should_exit = True
        await serving


async def _sent(sender: ProcessPoolExecutor, port: int, count: int) -> None:
    accepted = await asyncio.get_running_loop().run_in_executor(sender, send, port, count)
    assert accepted >= count, f"{accepted} of {count} events were accepted"


def send(port: int, count: int) -> int:
    """In a process of its own; how many were answered 202."""
    return len(run_loop(load(port, count)).accepted)


async def measure(folder: Path, incidents: int, events: int) -> Report:
    """All three, one after the other."""
    rows = await healing(folder, incidents)
    settings = settings_for(f"sqlite:///{folder / 'take.db'}", folder, webhook_secret=SECRET)
    rows += await taking(create_app(settings), events, "event")
    rows += await taking(bare(), events, "bare endpoint", baseline=True)
    notes = (
        f"a look for each {EVERY * 1000:g} ms of processor time",
        "of an event: everything that the process does meanwhile, its other work included",
    )
    return Report(name="profile", title="where processor time goes", rows=tuple(rows), notes=notes)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    incidents: Annotated[int, typer.Option(min=5, help="healings")] = 200,
    events: Annotated[int, typer.Option(min=100, help="events")] = 8000,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-profile-") as folder:
        found = run_loop(measure(Path(folder), incidents, events))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    from evals.benchmarks.quiet import quiet

    quiet()
    app()
