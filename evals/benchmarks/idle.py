"""What a server costs that has nothing to do: `python -m evals.benchmarks.idle`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer

from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.twin import opened
from evals.faults.sandbox import free_port
from server.loop import run as run_loop

SETTLE = 8.0  # seconds after the start that are not counted
START, LOOK = 60.0, 0.1  # seconds that the console may take after the API, and from one look to the next
NOT_ALLOWED = 405  # what the console answers to a GET of its sign-in; 404 while it is not there


@dataclass(frozen=True)
class Started:
    """A server's process."""

    process: psutil.Process
    port: int
    began: float  #: on `time.perf_counter`
    took: float  #: seconds until it first answered


def environment(folder: Path, port: int, *, console: bool) -> dict[str, str]:
    """Settings as they ship, with a file of its own."""
    settings = {
        "AIRFLOW_URL": "http://127.0.0.1:1",
        "AIRFLOW_TOKEN": "unused",
        "DATABASE_URL": f"sqlite:///{folder / 'idle.db'}",
        "LOG_FILE": str(folder / "airmedic.log"),
        "CONSOLE": str(console).lower(),
        "PORT": str(port),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRMEDIC_")}
    return kept | {f"AIRMEDIC_{name}": value for name, value in settings.items()}


@asynccontextmanager
async def started(folder: Path, *, console: bool = False) -> AsyncIterator[Started]:
    """A server that answers."""
    port, quiet = free_port(), asyncio.subprocess.DEVNULL
    airmedic = Path(sys.executable).with_name("airmedic")
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        airmedic,
        "serve",
        cwd=folder,
        env=environment(folder, port, console=console),
        stdout=quiet,
        stderr=quiet,
    )
    try:
        # It listens before it is open: the answer is what counts.
        await opened(port)
        assert await asked(port, "/healthz") == 200
        yield Started(psutil.Process(process.pid), port, began, time.perf_counter() - began)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def asked(port: int, path: str) -> int:
    """The status of an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())
    try:
        return int((await reader.readuntil(b"\r\n"))[9:12])
    finally:
        writer.close()


async def shows_console(port: int) -> None:
    """Wait until the console is there."""
    async with asyncio.timeout(START):
        while True:
            if await asked(port, "/console/session") == NOT_ALLOWED:
                return
            await asyncio.sleep(LOOK)


async def looked_at(process: psutil.Process, seconds: float) -> tuple[float, float]:
    """Of an idle process: its size in MB, and its share of a core in percent."""
    await asyncio.sleep(SETTLE)
    before = process.cpu_times()
    await asyncio.sleep(seconds)
    after = process.cpu_times()
    used = (after.user + after.system - before.user - before.system) / seconds
    return process.memory_info().rss / 1e6, used * 100


async def measure(folder: Path, seconds: float) -> Report:
    """An idle server without the console, and what the console adds; its Airflow does not answer."""
    async with started(folder) as first:
        pass  # it has made its tables: from now on it starts as every day
    async with started(folder) as plain:
        size, used = await looked_at(plain.process, seconds)
    async with started(folder, console=True) as full:
        await shows_console(full.port)
        shown = time.perf_counter() - full.began
        full_size, full_used = await looked_at(full.process, seconds)
    lower = "lower"
    rows = (
        Row(name="memory", value=size, unit="MB", better=lower, target=200),
        Row(name="memory that the console adds", value=full_size - size, unit="MB", better=lower),
        Row(name="processor", value=used, unit="% of a core", better=lower, target=1),
        Row(name="processor, with the console", value=full_used, unit="% of a core", better=lower),
        Row(name="start until the API answers", value=plain.took, unit="s", better=lower, target=5),
        Row(name="the first start, which makes the tables", value=first.took, unit="s", better=lower),
        Row(name="start with the console, until the API answers", value=full.took, unit="s", better=lower),
        Row(name="start until the console answers", value=shown, unit="s", better=lower),
    )
    return Report(name="idle", title="an idle server", rows=rows)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seconds: Annotated[float, typer.Option(min=2, help="how long to look")] = 15.0,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-idle-") as folder:
        found = run_loop(measure(Path(folder), seconds))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    app()
