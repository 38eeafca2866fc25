"""What an idle server costs, with and without the console: `python -m evals.benchmarks.idle [--seconds N]`.

Starts `airmedic serve` on a SQLite file whose tables are there, beside an Airflow in which nothing happens,
waits until it answers, lets it settle, and reads memory and processor time from the operating system.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer
from rich.console import Console
from rich.table import Table

from graph.domain import DomainType
from server.database import open_database

START_BUDGET, MEMORY_BUDGET, CPU_BUDGET = 5.0, 200e6, 1.0  # seconds, bytes, percent of one core
SETTLE = 10.0  # seconds after the start that are not measured
LONGEST = 120.0  # seconds to wait for an answer

EMPTY = {
    "task_instances": [],
    "import_errors": [],
    "dags": [],
    "pools": [],
    "dag_runs": [],
    "total_entries": 0,
}
WELL = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "triggerer", "dag_processor")}


class Idle(DomainType):
    """One way of serving."""

    name: str
    start: float  #: seconds until the API answers
    start_cpu: float  #: the same in processor time, which a busy machine does not blur
    ready: float | None  #: seconds until the console is there
    memory: int  #: resident, bytes
    cpu: float  #: percent of one core
    seconds: float  #: over which it was measured


@asynccontextmanager
async def quiet_airflow() -> AsyncIterator[str]:
    """Answers as an Airflow 3 without a DAG; its address."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                path = line.split()[1].decode() if len(line.split()) > 1 else ""
                while (await reader.readline()).strip():
                    pass
                told: object = EMPTY
                if path.startswith("/api/v2/version"):
                    told = {"version": "3.3.2"}
                elif path.startswith("/api/v2/monitor/health"):
                    told = WELL
                body = json.dumps(told).encode()
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
                writer.write(f"{head}\r\n\r\n".encode() + body)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


async def measure(name: str, folder: Path, airflow: str, *, console: bool, seconds: float) -> Idle:
    """Start, settle, measure, end."""
    port, database = free_port(), f"sqlite:///{folder / 'airmedic.db'}"
    async with open_database(database):
        pass  # migrations run at an installation's first start, which is not what is measured
    environ = {key: value for key, value in os.environ.items() if not key.startswith("AIRMEDIC_")} | {
        "AIRMEDIC_AIRFLOW_URL": airflow,
        "AIRMEDIC_AIRFLOW_TOKEN": "t",
        "AIRMEDIC_DATABASE_URL": database,
        "AIRMEDIC_LOG_FILE": str(folder / "pipeline.log"),
        "AIRMEDIC_CONSOLE": str(console).lower(),
    }
    command = (sys.executable, "-c", "from cli.main import app; app()", "serve", "--port", str(port))
    began = time.perf_counter()
    server = await asyncio.create_subprocess_exec(
        *command,
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process = psutil.Process(server.pid)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=5.0) as http:
            await _until(http, "/healthz", "alive")
            start, start_cpu = time.perf_counter() - began, _cpu(process)
            ready = None
            if console:
                await _until(http, "/console/config", "components")
                ready = time.perf_counter() - began
        await asyncio.sleep(SETTLE)
        before, at = _cpu(process), time.perf_counter()
        await asyncio.sleep(seconds)
        used, took = _cpu(process) - before, time.perf_counter() - at
        return Idle(
            name=name,
            start=start,
            start_cpu=start_cpu,
            ready=ready,
            memory=process.memory_info().rss,
            cpu=100 * used / took,
            seconds=took,
        )
    finally:
        server.send_signal(signal.SIGTERM)
        await server.wait()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


async def _until(http: httpx.AsyncClient, path: str, words: str) -> None:
    async with asyncio.timeout(LONGEST):
        while True:
            try:
                if words in (await http.get(path)).text:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.05)


def table_of(found: list[Idle]) -> Table:
    """Side by side, with the budget of the API alone."""
    table = Table(
        "", "answers after", "of it processor", "console after", "memory", "processor, idle", box=None
    )
    for one in found:
        table.add_row(
            one.name,
            f"{one.start:.1f} s",
            f"{one.start_cpu:.1f} s",
            "" if one.ready is None else f"{one.ready:.1f} s",
            f"{one.memory / 1e6:.0f} MB",
            f"{one.cpu:.2f} % of a core over {one.seconds:.0f} s",
        )
    budget = (f"≤ {START_BUDGET:.0f} s", "", "", f"≤ {MEMORY_BUDGET / 1e6:.0f} MB", f"≤ {CPU_BUDGET:.0f} %")
    table.add_row("budget, API alone", *budget)
    return table


async def run(seconds: float, *, console: bool) -> list[Idle]:
    """The API alone, then with the console."""
    found = []
    async with quiet_airflow() as airflow:
        for name, wanted in (("API", False), ("API and console", True))[: 1 + console]:
            with tempfile.TemporaryDirectory() as folder:
                found.append(await measure(name, Path(folder), airflow, console=wanted, seconds=seconds))
    return found


def main(
    seconds: Annotated[float, typer.Option(help="how long idleness is measured")] = 60.0,
    console: Annotated[bool, typer.Option(help="measure with the console too")] = True,
    report: Annotated[Path | None, typer.Option(help="also write the figures here, as JSON")] = None,
) -> None:
    """Measure, print, and end with status 1 when the API alone is over budget."""
    found = asyncio.run(run(seconds, console=console))
    Console(width=120).print(table_of(found))
    if report is not None:
        report.write_text(json.dumps([one.model_dump() for one in found], indent=1) + "\n")
    api = found[0]
    if api.start > START_BUDGET or api.memory > MEMORY_BUDGET or api.cpu > CPU_BUDGET:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
