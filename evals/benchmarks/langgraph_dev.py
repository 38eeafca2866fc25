"""`langgraph dev` running the bare graph, where it is installed: LangGraph's own server, asked over HTTP.

It keeps threads and checkpoints in memory and does nothing in its nodes. It is not among our dependencies
(its licence is not a free one): `make bench-langgraph-dev` installs it in an environment of its own.
"""

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
from pathlib import Path
from statistics import median

import httpx

from evals.benchmarks.report import Row
from evals.faults.sandbox import free_port

INSTALLED = Path(".airmedic/langgraph-dev/bin/langgraph")
LEFT_OUT = "langgraph dev left out: not installed (make bench-langgraph-dev installs it)"
START = 60.0  # seconds
AT_ONCE = 32
SINGLE = 5  # runs one after the other
GRAPH = """
from typing import TypedDict

from langgraph.graph import END, START, StateGraph

NODES = ("monitor", "diagnose", "fix", "verify", "close")


class State(TypedDict, total=False):
    payload: str
    seen: list[str]


def node(name):
    async def step(state):
        return {"seen": [*state.get("seen", []), name]}

    return step


built = StateGraph(State)
for name in NODES:
    built.add_node(name, node(name))
for first, second in zip((START, *NODES), (*NODES, END)):
    built.add_edge(first, second)
graph = built.compile()
"""


def program() -> str | None:
    """Where `langgraph` is: that of the Makefile's environment, or one on the path."""
    return str(INSTALLED.resolve()) if INSTALLED.exists() else shutil.which("langgraph")


async def rows(count: int, ours: float) -> tuple[tuple[Row, ...], tuple[str, ...]]:
    """Its runs a second, how long a single one takes, and how `ours` a second compares; else a note."""
    found = program()
    if found is None:
        return (), (LEFT_OUT,)
    async with serving(found) as http:
        alone = [await _run(http) for _ in range(SINGLE)]
        rate = await _rate(http, count)
    figures = (
        Row(name="langgraph dev, bare graph", value=rate, unit="/s", baseline=True),
        Row(name="of langgraph dev", value=ours / rate, unit="×"),
        Row(
            name="langgraph dev, a single run",
            value=median(alone) * 1000,
            unit="ms",
            better="lower",
            baseline=True,
        ),
    )
    return figures, ("langgraph dev: a thread and a run of five empty nodes over HTTP, kept in memory",)


@asynccontextmanager
async def serving(command: str) -> AsyncIterator[httpx.AsyncClient]:
    """A running server of our own, and a client for it."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="airmedic-langgraph-dev-") as folder:
        (Path(folder) / "bare.py").write_text(GRAPH)
        config = {"dependencies": ["."], "graphs": {"bare": "./bare.py:graph"}}
        (Path(folder) / "langgraph.json").write_text(json.dumps(config))
        quiet = asyncio.subprocess.DEVNULL
        alone = {"LANGGRAPH_CLI_NO_ANALYTICS": "1", "LANGSMITH_TRACING": "false"}
        process = await asyncio.create_subprocess_exec(
            command, "dev", "--no-browser", "--no-reload", "--port", str(port),
            "--n-jobs-per-worker", str(AT_ONCE), "--server-log-level", "error",
            cwd=folder, env=os.environ | alone, stdout=quiet, stderr=quiet, start_new_session=True,
        )  # fmt: skip
        url = f"http://127.0.0.1:{port}"
        try:
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=120) as http:
                await _ready(http)
                yield http
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _ready(http: httpx.AsyncClient) -> None:
    async with asyncio.timeout(START):
        while True:
            try:
                if (await http.get("/ok")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.2)


async def _run(http: httpx.AsyncClient) -> float:
    """One run on a thread of its own, waited for; seconds."""
    began = time.perf_counter()
    thread = (await http.post("/threads", json={})).raise_for_status().json()["thread_id"]
    body = {"assistant_id": "bare", "input": {"payload": "x" * 4000}}
    (await http.post(f"/threads/{thread}/runs/wait", json=body)).raise_for_status()
    return time.perf_counter() - began


async def _rate(http: httpx.AsyncClient, count: int) -> float:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        async with gate:
            await _run(http)

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - began)
