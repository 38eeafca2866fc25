"""Durable intake beside a FastAPI endpoint that stores nothing: `python -m evals.benchmarks.ingest`.

Both take the same signed events from the same client in the same run, in turn. The durable one is the whole
`airmedic serve`: while it is measured it asks an Airflow, in a process of its own, about what came in, opens
incidents, diagnoses and heals. In the end it is killed with -9 in the middle of a load, and every event that
was answered 202 is looked for in its database.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated
from uuid import uuid4

import typer

from evals.benchmarks.ingest_server import DATABASE, SECRET
from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.twin import RUN, TASK, open_twin, opened
from evals.faults.sandbox import free_port
from server.events import signature
from server.loop import run as run_loop

CONNECTIONS = 64
ROUNDS = 7


@dataclass
class Load:
    """What the client saw."""

    accepted: list[str] = field(default_factory=list)  #: DAGs whose failure was answered 202
    times: list[float] = field(default_factory=list)  #: milliseconds
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.times) / self.seconds


def request_of(dag_id: str) -> bytes:
    """One signed delivery, as it goes over the wire. Each tells of another task, host and error."""
    body = json.dumps(
        {
            "event": "task_instance_failed",
            "airflow": "default",
            "dag_id": dag_id,
            "run_id": RUN,
            "task_id": TASK,
            "try_number": 1,
            "error": f'psycopg2.OperationalError: connection to server at "db-{dag_id}.internal" failed',
            "sent_at": "2026-03-01T03:00:00Z",
        }
    ).encode()
    return signed(body)


def signed(body: bytes) -> bytes:
    """A signed delivery of this body, as it goes over the wire."""
    webhook_id, timestamp = uuid4().hex, str(int(time.time()))
    head = (
        "POST /webhook HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"webhook-id: {webhook_id}\r\nwebhook-timestamp: {timestamp}\r\n"
        f"webhook-signature: {signature(SECRET, webhook_id, timestamp, body)}\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def answer_of(reader: asyncio.StreamReader) -> int:
    """Read one answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head[9:12])


async def load(port: int, count: int, *, at: tuple[int, Callable[[], None]] | None = None) -> Load:
    """Send so many over kept connections, one at a time on each; ends early when the server dies.

    Opening all of them at once is not what is measured: each has carried one event before the clock starts.
    `at`: what to do when so many were accepted.
    """
    pending = [f"dag_{uuid4().hex}" for _ in range(count)]
    seen = Load()
    connections = await asyncio.gather(*(opened_connection(port, seen) for _ in range(CONNECTIONS)))
    seen.times.clear()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while pending:
                await send_one(reader, writer, pending.pop(), seen)
                if at is not None and len(seen.accepted) == at[0]:
                    at[1]()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client(*one) for one in connections))
    seen.seconds = time.perf_counter() - began
    return seen


async def opened_connection(port: int, seen: Load) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has carried an event."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await send_one(reader, writer, f"dag_{uuid4().hex}", seen)
    return reader, writer


async def send_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dag_id: str, seen: Load
) -> None:
    """Deliver one failure, and note how it was answered."""
    request = request_of(dag_id)
    began = time.perf_counter()
    writer.write(request)
    status = await answer_of(reader)
    seen.times.append((time.perf_counter() - began) * 1000)
    if status == 202:
        seen.accepted.append(dag_id)


@asynccontextmanager
async def serving(
    kind: str, folder: Path, airflow: str = "http://127.0.0.1:1", database_url: str = ""
) -> AsyncIterator[tuple[int, int]]:
    """One of the servers: its port and process."""
    port = free_port()
    arguments = [kind, str(port), str(folder), airflow, database_url]
    command = [sys.executable, "-m", "evals.benchmarks.ingest_server", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, start_new_session=True, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await opened(port)
        yield port, process.pid
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def lost(folder: Path, accepted: list[str]) -> int:
    """How many of the accepted are not in the database."""
    with closing(sqlite3.connect(folder / DATABASE)) as raw:
        stored = {row[0] for row in raw.execute("SELECT dag_id FROM occurrence")}
    return len(set(accepted) - stored)


async def measure(folder: Path, count: int) -> Report:
    """Both in turn, then the kill."""
    ours: list[Load] = []
    bare: list[Load] = []
    async with open_twin() as airflow:
        async with (
            serving("bare", folder) as (bare_port, _),
            serving("ours", folder, airflow) as (port, ours_process),
        ):
            for target in (bare_port, port):
                await load(target, count // 4)
            for _ in range(ROUNDS):
                # What came in is still worked on, and would slow the other one down: that one runs alone.
                os.kill(ours_process, signal.SIGSTOP)
                bare.append(await load(bare_port, count))
                os.kill(ours_process, signal.SIGCONT)
                ours.append(await load(port, count))
        seen = looked_at(folder)
        async with serving("ours", folder, airflow) as (port, process):
            killed = await load(port, 20 * count, at=(count // 2, lambda: os.killpg(process, signal.SIGKILL)))
    accepted = [dag_id for one in (*ours, killed) for dag_id in one.accepted]
    return _report(ours, bare, killed, lost(folder, accepted), seen)


def looked_at(folder: Path) -> int:
    """How many incidents were opened meanwhile."""
    with closing(sqlite3.connect(folder / DATABASE)) as raw:
        return int(raw.execute("SELECT count(*) FROM incident").fetchone()[0])


def _report(ours: list[Load], bare: list[Load], killed: Load, gone: int, seen: int) -> Report:
    times = [taken for one in ours for taken in one.times]
    theirs = [taken for one in bare for taken in one.times]
    rate, other = median(one.rate for one in ours), median(one.rate for one in bare)
    ratio = median(one.rate / beside.rate for one, beside in zip(ours, bare, strict=True))
    lower = "lower"
    rows = (
        Row(name="accepted and on the disk", value=rate, unit="/s"),
        Row(name="FastAPI, nothing stored", value=other, unit="/s", baseline=True),
        Row(name="of FastAPI storing nothing", value=ratio, unit="×", target=0.8),
        Row(name="p50", value=median(times), unit="ms", better=lower),
        Row(name="p99", value=quantiles(times, n=100)[98], unit="ms", better=lower, target=50),
        Row(name="p50, nothing stored", value=median(theirs), unit="ms", better=lower, baseline=True),
        Row(
            name="p99, nothing stored",
            value=quantiles(theirs, n=100)[98],
            unit="ms",
            better=lower,
            baseline=True,
        ),
        Row(name="lost after kill -9", value=gone, unit="", better=lower, target=0),
    )
    notes = (
        f"{seen} incidents were opened and driven by the same process during the load",
        f"{len(killed.accepted)} events were answered 202 before the kill",
    )
    return Report(name="ingest", title="durable intake, SQLite", rows=rows, notes=notes)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    count: Annotated[int, typer.Option(min=100, help="events in one round")] = 2000,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-ingest-") as folder:
        found = run_loop(measure(Path(folder), count))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    app()
