"""The harness's hands: the processes of one campaign, started, killed, stopped, and asked."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from evals.benchmarks.crash.zygote import Weather

STARTS = 60.0  # seconds
PIPE = 1 << 20  # bytes of one line


@dataclass
class Child:
    """One server."""

    pid: int
    at: str  #: the point at which it is to die or stop
    born: float = field(default_factory=time.monotonic)
    reached: bool = False
    stopped: bool = False
    took: float = 0.0  #: seconds its start took; none while it has not started


class Fleet:
    """Servers forked from one zygote, on one port and one database."""

    def __init__(self, process: asyncio.subprocess.Process, home: Path) -> None:
        self._process = process
        self._orders = 0
        self._asked: dict[int, tuple[str, asyncio.Future[int]]] = {}
        self._moved = asyncio.Event()
        self._ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.weather = Weather(home / "weather")
        self.children: dict[int, Child] = {}
        self.killed_at: dict[str, int] = {}  #: label, or random: how many died there
        self.ended: list[tuple[int, int]] = []  #: those that ended by themselves, with their status

    async def port(self) -> int:
        """Where they serve."""
        async with asyncio.timeout(STARTS):
            return await asyncio.shield(self._ready)

    async def start(
        self, at: str = "", *, sign: int = signal.SIGKILL, after: int = 0, then: Sequence[str] = ()
    ) -> Child:
        """One more server; with `at` it sends itself the signal when it gets there, and `then` there."""
        self._orders += 1
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asked[self._orders] = at, future
        order: dict[str, Any] = {"order": self._orders, "at": at, "signal": int(sign), "after": after}
        order["then"] = list(then)
        assert self._process.stdin is not None
        self._process.stdin.write((json.dumps(order) + "\n").encode())
        async with asyncio.timeout(STARTS):
            await future
        return self.children[future.result()]

    def kill(self, child: Child, why: str = "random") -> None:
        """kill -9."""
        if child.pid in self.children:
            self.killed_at[why] = self.killed_at.get(why, 0) + 1
            self.send(child, signal.SIGKILL)

    def send(self, child: Child, sign: int) -> None:
        """Send a signal, if it is still there."""
        with suppress(ProcessLookupError):
            os.kill(child.pid, sign)

    async def gone(self, child: Child) -> None:
        """Wait for its end."""
        while child.pid in self.children:
            await self.moved()

    async def moved(self, within: float = 0.05) -> None:
        """Wait for news of any child, for a moment."""
        self._moved.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._moved.wait(), within)

    async def listen(self) -> None:
        """Take what zygote and children say; ends with them."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self._hear(json.loads(line))
            self._moved.set()

    def _hear(self, told: dict[str, Any]) -> None:
        if "port" in told:
            self._ready.set_result(told["port"])
        elif "forked" in told:
            at, asked = self._asked.pop(told["order"])
            self.children[told["forked"]] = Child(told["forked"], at)
            asked.set_result(told["forked"])
        elif "up" in told and told["up"] in self.children:
            started = self.children[told["up"]]
            started.took = time.monotonic() - started.born
        elif "reached" in told and told["pid"] in self.children:
            self.children[told["pid"]].reached = True
        elif "died" in told and (child := self.children.pop(told["died"], None)) is not None:
            if child.reached and not child.stopped:
                self.killed_at[child.at] = self.killed_at.get(child.at, 0) + 1
            elif told["status"] != signal.SIGKILL:
                self.ended.append((child.pid, told["status"]))

    def end(self) -> None:
        """All of them, whatever state they are in."""
        for child in list(self.children.values()):
            self.send(child, signal.SIGKILL)


@asynccontextmanager
async def open_fleet(start: dict[str, Any], home: Path) -> AsyncIterator[Fleet]:
    """A zygote that has not forked yet; at the end nothing is left of it."""
    command = [sys.executable, "-m", "evals.benchmarks.crash.zygote", json.dumps(start)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=PIPE,
        start_new_session=True,
        env=os.environ | {"LANGGRAPH_STRICT_MSGPACK": "true"},
    )
    fleet = Fleet(process, home)
    listening = asyncio.create_task(fleet.listen())
    try:
        yield fleet
    finally:
        fleet.end()
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


class FakeAirflow:
    """The harness's side door to the judge's Airflow."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def order(self, what: str, **body: Any) -> Any:
        """One order; see `airflow.Judge`."""
        answer = await self._http.post(f"{self.url}/_/{what}", json=body)
        return answer.raise_for_status().json()


@asynccontextmanager
async def open_fake(seed: int) -> AsyncIterator[FakeAirflow]:
    """The judge's Airflow in a process of its own."""
    command = [sys.executable, "-m", "evals.benchmarks.crash.airflow", str(seed)]
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(STARTS):
            port = int(await process.stdout.readline())
        async with httpx.AsyncClient(timeout=30, trust_env=False) as http:
            yield FakeAirflow(f"http://127.0.0.1:{port}", http)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
