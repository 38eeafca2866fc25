"""A bare LangGraph graph of the same five nodes, that does nothing: what others' engines cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypedDict
from uuid import uuid4

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

AT_ONCE = 32
NODES = ("monitor", "diagnose", "fix", "verify", "close")
WAITS = ("fix", "verify")  # where a healing sleeps


class State(TypedDict, total=False):
    """About 4 kB of it."""

    payload: str
    seen: list[str]


def bare_graph(saver: BaseCheckpointSaver[str] | None, *, waits: bool) -> Any:
    """Five nodes in a row; with `waits` two of them suspend, as a healing does."""
    graph = StateGraph(State)

    def node(name: str) -> Any:
        async def step(state: State) -> State:
            if waits and name in WAITS:
                interrupt({"until": name})
            return {"seen": [*state.get("seen", []), name]}

        return step

    for name in NODES:
        graph.add_node(name, node(name))
    for first, second in zip((START, *NODES), (*NODES, END), strict=True):
        graph.add_edge(first, second)
    return graph.compile(checkpointer=saver)


async def rate(graph: Any, count: int, *, waits: bool) -> float:
    """Runs a second, 32 at once, every step committed before the next (`sync`)."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> None:
        config: RunnableConfig = {"configurable": {"thread_id": uuid4().hex}}
        durable: dict[str, Any] = {"durability": "sync"} if graph.checkpointer else {}
        async with gate:
            await graph.ainvoke({"payload": "x" * 4000}, config, **durable)
            for _ in WAITS if waits else ():
                await graph.ainvoke(Command(resume=True), config, **durable)

    begin = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - begin)


@asynccontextmanager
async def stock_saver(database_url: str) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """LangGraph's own saver as its documentation opens it."""
    if database_url.startswith("sqlite:///"):
        async with AsyncSqliteSaver.from_conn_string(database_url.removeprefix("sqlite:///")) as sqlite:
            yield sqlite
        return
    async with AsyncPostgresSaver.from_conn_string(database_url) as postgres:
        await postgres.setup()
        yield postgres


async def measure_bare(database_url: str | None, count: int, *, waits: bool) -> float:
    """Runs a second with the stock saver on this database, or with none."""
    if database_url is None:
        return await rate(bare_graph(None, waits=False), count, waits=False)
    async with stock_saver(database_url) as saver:
        return await rate(bare_graph(saver, waits=waits), count, waits=waits)


async def measure_in_memory(count: int) -> float:
    """Runs a second that suspend as a healing does, kept in memory: LangGraph alone."""
    return await rate(bare_graph(InMemorySaver(), waits=True), count, waits=True)
