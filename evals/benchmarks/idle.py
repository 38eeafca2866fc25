"""What a server costs that has nothing to do: `python -m evals.benchmarks.idle`."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import psutil
import typer

from evals.benchmarks.ingest import answer_of
from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.twin import opened
from evals.faults.sandbox import free_port
from server.loop import run as run_loop

SETTLE = 8.0  # seconds after the start that are not counted
ASK = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


def environment(folder: Path, port: int) -> dict[str, str]:
    """Settings as they ship, with a file of its own and without the console."""
    settings = {
        "AIRFLOW_URL": "http://127.0.0.1:1",
        "AIRFLOW_TOKEN": "unused",
        "DATABASE_URL": f"sqlite:///{folder / 'idle.db'}",
        "LOG_FILE": str(folder / "airmedic.log"),
        "CONSOLE": "false",
        "PORT": str(port),
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRMEDIC_")}
    return kept | {f"AIRMEDIC_{name}": value for name, value in settings.items()}


@asynccontextmanager
async def started(folder: Path) -> AsyncIterator[tuple[psutil.Process, float]]:
    """The server's process, and after how many seconds it first answered."""
    port, quiet = free_port(), asyncio.subprocess.DEVNULL
    airmedic = Path(sys.executable).with_name("airmedic")
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        airmedic, "serve", cwd=folder, env=environment(folder, port), stdout=quiet, stderr=quiet
    )
    try:
        # It listens before it is open: the answer is what counts.
        await opened(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(ASK)
        assert await answer_of(reader) == 200
        took = time.perf_counter() - began
        writer.close()
        yield psutil.Process(process.pid), took
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def measure(folder: Path, seconds: float) -> Report:
    """Memory and processor time of an idle server without the console; its Airflow does not answer."""
    async with started(folder) as (_, first):
        pass  # it has made its tables: from now on it starts as every day
    async with started(folder) as (process, took):
        await asyncio.sleep(SETTLE)
        before = process.cpu_times()
        await asyncio.sleep(seconds)
        after = process.cpu_times()
        memory = process.memory_info().rss / 1e6
    used = (after.user + after.system - before.user - before.system) / seconds
    rows = (
        Row(name="memory", value=memory, unit="MB", better="lower", target=200),
        Row(name="processor", value=used * 100, unit="% of a core", better="lower", target=1),
        Row(name="start until the API answers", value=took, unit="s", better="lower", target=5),
        Row(name="the first start, which makes the tables", value=first, unit="s", better="lower"),
    )
    return Report(name="idle", title="an idle server, console off", rows=rows)


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
