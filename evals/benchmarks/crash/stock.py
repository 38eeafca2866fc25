"""The same kills on a stock LangGraph graph: how often a killed run repeats its side effect.

`python -m evals.benchmarks.crash.stock URL KILLS SEED DURABILITY`. Runs of five nodes, sixteen at once; the
side effect of the third is written to a file at once, as a request would be. What is resumed is what
LangGraph says is not finished.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from evals.benchmarks.bare_graph import NODES, stock_saver
from server.loop import run as run_loop

AT_ONCE = 16
STEP = 0.02  # seconds a node takes at most
LIFE = 0.4  # seconds


class State(TypedDict, total=False):
    """About 4 kB of it."""

    payload: str
    name: str


def graph_of(saver: Any, effects: int) -> Any:
    """Five nodes in a row; the third has a side effect."""
    graph = StateGraph(State)

    def node(name: str) -> Any:
        async def step(state: State) -> State:
            await asyncio.sleep(random.uniform(0, STEP))
            if name == "fix":
                os.write(effects, f"{state['name']}\n".encode())
                await asyncio.sleep(random.uniform(0, STEP))  # the answer travels
            return {}

        return step

    for name in NODES:
        graph.add_node(name, node(name))
    for first, second in zip((START, *NODES), (*NODES, END), strict=True):
        graph.add_edge(first, second)
    return graph.compile(checkpointer=saver)


async def work(url: str, folder: Path, durability: Any, life: float) -> None:
    """Resume what is not finished, then begin new runs, until killed; at last only finish."""
    effects = os.open(folder / "effects", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    marks = os.open(folder / "marks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    begun, ended = _marks(folder)
    async with stock_saver(url) as saver:
        graph, gate = graph_of(saver, effects), asyncio.Semaphore(AT_ONCE)

        async def one(name: str, *, new: bool) -> None:
            config: RunnableConfig = {"configurable": {"thread_id": name}}
            async with gate:
                given: State | None = {"payload": "x" * 4000, "name": name}
                if new:
                    os.write(marks, f"+{name}\n".encode())
                else:
                    state = await graph.aget_state(config)
                    given = None if state.values else given
                await graph.ainvoke(given, config, durability=durability)
                os.write(marks, f"-{name}\n".encode())

        await asyncio.gather(*(one(name, new=False) for name in sorted(begun - ended)))
        number = len(begun)
        while life:
            names = [f"run_{number + more}" for more in range(AT_ONCE)]
            number += AT_ONCE
            await asyncio.gather(*(one(name, new=True) for name in names))


def _marks(folder: Path) -> tuple[set[str], set[str]]:
    lines = (folder / "marks").read_text().split() if (folder / "marks").exists() else []
    return {one[1:] for one in lines if one[0] == "+"}, {one[1:] for one in lines if one[0] == "-"}


def kill_often(url: str, folder: Path, kills: int, durability: str) -> dict[str, int]:
    """Fork, kill, fork again; at the end whatever was killed is finished."""
    killed: set[str] = set()
    for number in range(kills + 1):
        last = number == kills
        if (child := os.fork()) == 0:
            run_loop(work(url, folder, durability, 0.0 if last else LIFE))
            os._exit(0)
        if not last:
            time.sleep(random.expovariate(1 / LIFE) + 0.1)
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        begun, ended = _marks(folder)
        killed |= begun - ended
    times = Counter((folder / "effects").read_text().split())
    return {"killed": len(killed), "repeated": sum(times[name] > 1 for name in killed)}


if __name__ == "__main__":
    given_url, given_kills, seed, how = sys.argv[1:5]
    random.seed(int(seed))
    with tempfile.TemporaryDirectory(prefix="airmedic-stock-") as place:
        where = Path(place)
        address = given_url or f"sqlite:///{where / 'stock.db'}"
        sys.stdout.write(json.dumps(kill_often(address, where, int(given_kills), how)) + "\n")
