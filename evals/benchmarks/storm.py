"""A storm of failures of one cause against `airmedic serve`: `python -m evals.benchmarks.storm`.

Three processes: the server as people run it, on SQLite, reached over HTTP; a large Airflow with a REST API
that counts every clear (`storm_airflow`), the language model's endpoint too; and this one, which sends the
listener's signed events at their times and looks on.
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
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx
import psutil
import typer

from evals.benchmarks import alertmanager
from evals.benchmarks.ingest import answer_of, signed
from evals.benchmarks.ingest_server import SECRET
from evals.benchmarks.report import Report, Row, finish
from evals.benchmarks.storm_airflow import HOST, error_of, order_of, ref_of
from evals.faults.sandbox import free_port
from server.db.packed import text_of
from server.loop import run as run_loop

TOKEN = "storm-of-the-benchmark"
AIRMEDIC = Path(sys.executable).with_name("airmedic")
KEPT = ("PATH", "HOME", "LANG", "PYTHONPATH")
CONNECTIONS = 32
START = 90.0  # seconds a process may take to answer
LOOK = 0.5  # seconds between two looks
DATABASE = "storm.db"


@dataclass
class Seen:
    """What was measured."""

    accepted: int = 0
    refused: int = 0
    sent_in: float = 0.0  #: seconds
    late: float = 0.0  #: seconds the last event was behind its time
    peak: float = 0.0  #: bytes
    idle: float = 0.0
    gathered_in: float = 0.0  #: seconds from the last event until all were in the incident
    healed_in: float = 0.0  #: seconds from the database's return until the incident's end
    incident: dict[str, Any] = field(default_factory=dict)
    truth: dict[str, Any] = field(default_factory=dict)
    incidents: int = 0
    joined: int = 0  #: incidents of failures that the poll found before their event came
    waves: list[int] = field(default_factory=list)
    lost: int = 0


def event_of(number: int, error: str) -> bytes:
    """One signed delivery, as it goes over the wire."""
    ref = ref_of(number)
    event = {"event": "task_instance_failed", "airflow": "default", **ref.model_dump(), "try_number": 1}
    body = json.dumps({**event, "error": error}).encode()
    return signed(body)


async def send(port: int, count: int, seconds: float, began: float, seen: Seen, *, error: str) -> None:
    """Every event at its time; one that is late goes as soon as a connection is free."""
    numbers = iter(enumerate(order_of(count)))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for rank, number in numbers:
            due = began + seconds * rank / count
            if (early := due - time.time()) > 0:
                await asyncio.sleep(early)
            writer.write(event_of(number, error))
            status = await answer_of(reader)
            seen.accepted += status == 202
            seen.refused += status != 202
            seen.late = time.time() - due
        writer.close()

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    seen.sent_in = time.time() - began


@asynccontextmanager
async def airflow(count: int, seconds: float, database: int) -> AsyncIterator[int]:
    """The large Airflow; its port. `database`: the port of what its tasks lose."""
    command = [sys.executable, "-m", "evals.benchmarks.storm_airflow", str(count), str(seconds)]
    command.append(str(database))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, start_new_session=True)
    assert process.stdout is not None
    try:
        yield int(await asyncio.wait_for(process.stdout.readline(), START))
    finally:
        await _end(process)


@asynccontextmanager
async def serving(folder: Path, airflow_port: int, **given: str) -> AsyncIterator[tuple[int, psutil.Process]]:
    """`airmedic serve` on SQLite; its port and process."""
    port = free_port()
    settings = {
        "AIRMEDIC_AIRFLOW_URL": f"http://127.0.0.1:{airflow_port}",
        "AIRMEDIC_AIRFLOW_TOKEN": "unused",
        "AIRMEDIC_HEALING": "on",
        "AIRMEDIC_WATCH_WINDOW": "PT2S",
        "AIRMEDIC_DATABASE_URL": f"sqlite:///{folder / DATABASE}",
        "AIRMEDIC_WEBHOOK_SECRET": SECRET,
        "AIRMEDIC_API_TOKEN": TOKEN,
        "AIRMEDIC_LLM_MODEL": "scripted",
        "AIRMEDIC_LLM_BASE_URL": f"http://127.0.0.1:{airflow_port}/v1",
        "AIRMEDIC_RATE_WEBHOOK": "off",
        "AIRMEDIC_PORT": str(port),
        **given,
    }
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    env = kept | settings
    with (folder / "serve.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            str(AIRMEDIC), "serve", stdout=log, stderr=log, cwd=folder, env=env, start_new_session=True
        )  # fmt: skip
        try:
            await _answers(port)
            yield port, psutil.Process(process.pid)
        finally:
            await _end(process)


async def _answers(port: int) -> None:
    async with asyncio.timeout(START), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/healthz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def peak_of(process: psutil.Process) -> float:
    """Its largest resident size so far, in bytes, as the kernel kept it."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return float(line.split()[1]) * 1024


async def play(folder: Path, count: int, seconds: float, waves: dict[str, str], patience: float) -> Seen:
    """The storm, the database's return, and the end of the incident."""
    seen, database = Seen(), free_port()
    waves = {"AIRMEDIC_CORRELATE_LOOPBACK": "true", "AIRMEDIC_PROBES": f"{HOST}:{database}", **waves}
    async with (
        airflow(count, seconds, database) as airflow_port,
        serving(folder, airflow_port, **waves) as (port, process),
    ):
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=60) as http:
            own, world = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{airflow_port}/_/"
            await asyncio.sleep(2)
            seen.idle = process.memory_info().rss
            began = time.time() + 0.5
            await http.post(world + "begin", json={"at": began})
            await send(port, count, seconds, began, seen, error=error_of(database))
            last = time.time()
            await _until(lambda: _gathered(http, own, count), patience)
            seen.gathered_in = time.time() - last
            await http.post(world + "up", json={})
            back = time.time()
            seen.incident = await _until(lambda: _ended(http, own), patience)
            seen.healed_in = time.time() - back
            seen.truth = (await http.post(world + "truth", json={})).json()
            seen.peak = peak_of(process)
    with closing(sqlite3.connect(folder / DATABASE)) as raw:
        held = "SELECT count(*) FROM occurrence WHERE try_number = 1 AND incident_id IS NOT NULL"
        seen.lost = seen.accepted - raw.execute(held).fetchone()[0]
        ended = "SELECT count(*) FROM incident WHERE coalesce(outcome, '') {} 'joined'"
        seen.incidents = raw.execute(ended.format("!=")).fetchone()[0]
        seen.joined = raw.execute(ended.format("=")).fetchone()[0]
        told = raw.execute("SELECT data FROM event WHERE name = 'wave_sent' ORDER BY id")
        seen.waves = [json.loads(text_of(data) or "{}")["task_instances"] for (data,) in told]
    return seen


async def _until(look: Any, patience: float) -> Any:
    async with asyncio.timeout(patience):
        found = await look()
        while not found:
            await asyncio.sleep(LOOK)
            found = await look()
        return found


async def _gathered(http: httpx.AsyncClient, own: str, count: int) -> bool:
    first = await http.get(f"{own}/api/incidents/1")
    if not first.is_success:
        return False
    group = first.json()["group"]
    return group is not None and group["task_instances"] >= count


async def _ended(http: httpx.AsyncClient, own: str) -> Any:
    listed = (await http.get(f"{own}/api/incidents", params={"sort": "oldest", "limit": 1})).json()["items"]
    if not listed or listed[0]["outcome"] is None:
        return None
    return (await http.get(f"{own}/api/incidents/{listed[0]['id']}")).json()


def report_of(
    seen: Seen, count: int, seconds: float, others: tuple[Row, ...], notes: tuple[str, ...]
) -> Report:
    """The figures."""
    clears = seen.truth["clears"]
    waves = seen.waves
    truth = seen.truth
    rows = (
        _least("incidents", seen.incidents, "", 1),
        _least("lost", seen.lost, "", 0),
        _least("calls of a language model", truth["model_calls"], "", 1),
        _least("largest resident size", seen.peak / 1e6, "MB", 400),
        _least("before the storm", seen.idle / 1e6, "MB"),
        Row(name="healed", value=truth["well"], unit="", target=count),
        _least("cleared more than once, of all but the first", max(truth["cleared_again"] - 1, 0), "", 0),
        Row(name="accepted", value=seen.accepted / seen.sent_in, unit="/s"),
        _least("behind its time, the last event", seen.late, "s"),
        _least("in the incident after the last event", seen.gathered_in, "s"),
        Row(name="clears sent", value=len(clears), unit=""),
        Row(name="waves", value=len(waves), unit=""),
        _least("from the database's return to closed", seen.healed_in, "s"),
        *others,
    )
    told = f"{count:,} failures in {seconds:g} s; the incident ended {seen.incident['outcome']}"
    told += f"; {seen.joined:,} were found by the poll before their event was taken, and joined"
    sizes = f"task instances in each wave: {', '.join(str(one) for one in waves[:12])}"
    sizes += f", … {waves[-1]}" if len(waves) > 12 else ""
    return Report(name="storm", title="a storm of one cause, SQLite", rows=rows, notes=(told, sizes, *notes))


def _least(name: str, value: float, unit: str, target: float | None = None) -> Row:
    return Row(name=name, value=value, unit=unit, better="lower", target=target)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    count: Annotated[int, typer.Option(min=200, help="failures")] = 100_000,
    seconds: Annotated[float, typer.Option(min=1, help="over which they come")] = 60.0,
    largest: Annotated[int, typer.Option(help="task instances in one wave")] = 2000,
    per_minute: Annotated[int, typer.Option(help="task instances a minute")] = 60_000,
    patience: Annotated[float, typer.Option(help="seconds to wait for the end")] = 1200.0,
    console: Annotated[bool, typer.Option(help="serve the console too")] = False,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print. The pace is a benchmark's: by default Airmedic sends 600 a minute."""
    pace = {"AIRMEDIC_WAVE_LARGEST": str(largest), "AIRMEDIC_WAVE_PER_MINUTE": str(per_minute)}
    pace["AIRMEDIC_CONSOLE"] = str(console).lower()
    with tempfile.TemporaryDirectory(prefix="airmedic-storm-") as folder:
        seen = run_loop(play(Path(folder), count, seconds, pace, patience))
    others, notes = run_loop(alertmanager.rows(count))
    served = f"`airmedic serve` {'with' if console else 'without'} the console, a model configured"
    notes = (f"{served}; at most {largest:,} in a wave, {per_minute:,} a minute", *notes)
    finish(report_of(seen, count, seconds, others, notes), report, typer.echo)


if __name__ == "__main__":
    app()
