"""The benchmarks' Airflow over HTTP gives the answers of the in-memory Airflow behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from evals.benchmarks.crash.http import Request, Said, serve
from evals.benchmarks.crash.rest import RestDoor
from graph.domain import TaskRef
from tests.factories import Clock
from tests.unit.healing_world import make_airflow
from tools.airflow_memory_state import Try
from tools.airflow_rest import open_airflow
from tools.gateway import AirflowGateway

LONG_AGO = Clock()()
LOST = TaskRef(dag_id="orders", run_id="lost", task_id="load")
READS = [
    pytest.param(lambda one: one.runs_in("failed"), id="runs in a state"),
    pytest.param(lambda one: one.runs_in("failed", dag_id="orders", limit=1), id="of one DAG"),
    pytest.param(lambda one: one.runs_in("queued"), id="no run"),
    pytest.param(lambda one: one.failed_runs_since(LONG_AGO), id="failed runs"),
    pytest.param(lambda one: one.recent_runs("orders", limit=2), id="recent runs"),
    pytest.param(lambda one: one.at_work("orders"), id="a DAG at work"),
    pytest.param(lambda one: one.history("orders", "load"), id="a task's past"),
    pytest.param(lambda one: one.lost_heartbeat(LOST, 1), id="a lost heartbeat"),
    pytest.param(lambda one: one.lost_heartbeat(LOST.model_copy(update={"run_id": "boom"}), 1), id="none"),
]


@pytest.fixture
async def both() -> AsyncIterator[tuple[AirflowGateway, AirflowGateway]]:
    clock = Clock()
    memory = make_airflow(clock, Try("failed", "INFO - startup", lost_heartbeat="no heartbeat in 300 s"))
    memory.start("orders", "lost")
    await memory.settle()
    memory.start("orders", "boom")
    await memory.settle()
    door = RestDoor(memory)

    async def answer(request: Request) -> Said:
        return Said(*await door.answer(request.method, request.target, request.body))

    server = await serve(answer)
    port = server.sockets[0].getsockname()[1]
    async with server, open_airflow(f"http://127.0.0.1:{port}", token="any") as rest:
        yield memory, rest


@pytest.mark.parametrize("read", READS)
async def test_a_read_gives_the_same_by_both_ways(
    both: tuple[AirflowGateway, AirflowGateway], read: Callable[[AirflowGateway], Awaitable[Any]]
) -> None:
    memory, rest = both

    assert await read(rest) == await read(memory)
