"""What open consoles cost the server: its processor time with none open, and with many.

`python -m evals.benchmarks.consoles --consoles 50`. The server is a process of its own with an empty store
and an Airflow that does not answer; a console here asks what the page's own script asks.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from evals.faults.sandbox import free_port

START = 90.0  # seconds
LOOK = 0.3  # seconds
PATIENCE = 20.0  # seconds the console lets one request wait for news
TOKEN = "a-token-of-the-benchmark"
COOKIES = {"airmedic_console": TOKEN}
VIEW = {"page": "incidents", "filter": "Open"}


async def start(home: Path, port: int) -> asyncio.subprocess.Process:
    """`airmedic serve`; returns when its console answers."""
    env = {
        **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
        "AIRMEDIC_AIRFLOW_URL": "http://127.0.0.1:1",
        "AIRMEDIC_AIRFLOW_TOKEN": "none",
        "AIRMEDIC_API_TOKEN": TOKEN,
        "AIRMEDIC_RATE_TOKEN": "off",
        "AIRMEDIC_PORT": str(port),
    }
    with (home / "serve.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("airmedic")),
            "serve",
            cwd=home,
            env=env,
            stdout=log,
            stderr=log,
        )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        await _until_up(http)
    return process


async def _until_up(http: httpx.AsyncClient) -> None:
    for _ in range(int(START / LOOK)):
        if await _up(http):
            return
        await asyncio.sleep(LOOK)
    raise TimeoutError("the console did not come up")


async def _up(http: httpx.AsyncClient) -> bool:
    try:
        return (await http.get("/console/session")).status_code == 405
    except httpx.TransportError:
        return False


async def console(http: httpx.AsyncClient, told: list[float], fired: list[float]) -> None:
    """One open page: it waits for news, and looks when there is some."""
    seen = ""
    while True:
        answer = await http.get("/console/news", params={"seen": seen}, timeout=PATIENCE + 10)
        news = answer.json()["revision"]
        if news != seen:
            await http.get("/console/view", params=VIEW, timeout=30)
            if fired and seen:
                told.append(time.monotonic() - fired[-1])
            seen = news


async def fire(http: httpx.AsyncClient, number: int) -> None:
    """Something happens that every console shows."""
    await http.post(
        "/api/control", json={"paused": bool(number % 2)}, headers={"authorization": f"Bearer {TOKEN}"}
    )


async def measure(url: str, process: psutil.Process, *, consoles: int, seconds: float, events: int) -> str:
    """The share of one core, and how late the consoles were."""
    told: list[float] = []
    fired: list[float] = []
    async with httpx.AsyncClient(
        base_url=url, cookies=COOKIES, limits=httpx.Limits(max_connections=consoles + 2)
    ) as http:
        tasks = [asyncio.create_task(console(http, told, fired)) for _ in range(consoles)]
        await asyncio.sleep(4)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        for number in range(events):
            await asyncio.sleep(seconds / (events + 1))
            fired.append(time.monotonic())
            await fire(http, number)
        await asyncio.sleep(seconds / (events + 1))
        used = sum(process.cpu_times()[:2]) - before
        share = 100 * used / (time.monotonic() - began)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    late = (
        f"shown after {statistics.median(told):.2f} s, at most {max(told):.2f} s" if told else "nothing shown"
    )
    return f"{consoles:>4} consoles, {events} events in {seconds:.0f} s: {share:5.1f} % of one core; {late}"


async def run(consoles: int, seconds: float, events: int) -> None:
    """Without consoles, and with them, idle and busy."""
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        process = await start(Path(folder), port)
        try:
            seen = psutil.Process(process.pid)
            for count, happen in ((0, 0), (consoles, 0), (consoles, events)):
                told = await measure(
                    f"http://127.0.0.1:{port}", seen, consoles=count, seconds=seconds, events=happen
                )
                sys.stdout.write(told + "\n")
                sys.stdout.flush()
        finally:
            process.terminate()
            await process.wait()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--consoles", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--events", type=int, default=6)
    given = parser.parse_args()
    asyncio.run(run(given.consoles, given.seconds, given.events))


if __name__ == "__main__":
    main()
