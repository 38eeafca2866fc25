"""Debian's prometheus-alertmanager taking as many alerts as a storm has failures, where it is installed."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil

from evals.benchmarks.report import Row
from evals.benchmarks.storm_airflow import HOST, error_of, order_of, ref_of
from evals.faults.sandbox import free_port

PROGRAM = "prometheus-alertmanager"
CONNECTIONS = 32
START = 30.0  # seconds
CONFIG = """
route: {receiver: nobody, group_by: [alertname, resource], group_wait: 1s, group_interval: 5s}
receivers: [{name: nobody}]
"""
LEFT_OUT = f"Alertmanager left out: not installed (make bench-alertmanager installs Debian's {PROGRAM})"


async def rows(count: int) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Its figures and a note; only a note when it is not installed."""
    if shutil.which(PROGRAM) is None:
        return (), (LEFT_OUT,)
    async with serving() as (port, process):
        taken, seconds = await send(port, count)
        async with httpx.AsyncClient(trust_env=False, timeout=120) as http:
            found = (await http.get(f"http://127.0.0.1:{port}/api/v2/alerts/groups")).json()
        peak = _peak(process)
    figures = (
        Row(name="Alertmanager: alerts taken", value=taken / seconds, unit="/s", baseline=True),
        Row(name="Alertmanager: largest size", value=peak / 1e6, unit="MB", better="lower", baseline=True),
        Row(name="Alertmanager: groups", value=len(found), unit="", better="lower", baseline=True),
    )
    note = (
        "Alertmanager keeps them in memory, one alert in a request, and groups by the labels that it is given"
    )
    return figures, (note,)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[int, psutil.Process]]:
    """A running Alertmanager of our own."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="airmedic-alertmanager-") as folder:
        config = Path(folder) / "alertmanager.yml"
        config.write_text(CONFIG)
        options = (f"--config.file={config}", f"--storage.path={folder}", "--cluster.listen-address=")
        quiet = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            PROGRAM, *options, f"--web.listen-address=127.0.0.1:{port}",
            stdout=quiet, stderr=quiet, start_new_session=True,
        )  # fmt: skip
        try:
            await _ready(port)
            yield port, psutil.Process(process.pid)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _ready(port: int) -> None:
    async with asyncio.timeout(START), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(f"http://127.0.0.1:{port}/-/ready")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)


def _alert(number: int) -> bytes:
    ref, now = ref_of(number), datetime.now(UTC)
    labels = {
        "alertname": "task_failed",
        "resource": HOST,
        **{k: str(v) for k, v in ref.model_dump().items()},
    }
    alert = {"labels": labels, "annotations": {"error": error_of(5432)}, "startsAt": now.isoformat()}
    body = json.dumps([{**alert, "endsAt": (now + timedelta(hours=1)).isoformat()}]).encode()
    head = "POST /api/v2/alerts HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def send(port: int, count: int) -> tuple[int, float]:
    """As fast as it takes them; how many it took, and in how many seconds."""
    numbers = iter(order_of(count))
    taken = 0

    async def client() -> None:
        nonlocal taken
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in numbers:
            writer.write(_alert(number))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            taken += head[9:12] == b"200"
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    return taken, time.perf_counter() - began


def _peak(process: psutil.Process) -> float:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return float(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) * 1024
