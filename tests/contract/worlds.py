"""Two Airflows that must behave the same: the twin and a real one, each with the DAGs of `dags/`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol, TypeVar

import httpx
from pydantic import JsonValue

from evals.faults.sandbox import Sandbox
from graph.domain import RunSnapshot, TaskRef
from graph.errors import AirflowUnreachable
from tools.airflow_memory import MemoryAirflow, TaskSpec, Ticking, Try
from tools.airflow_rest import open_airflow
from tools.gateway import TEARDOWN, AirflowGateway

T = TypeVar("T")

TAGS = ("contract", "airmedic:rerun-safe")
REFUSED = "ConnectionError: source hr.example:8080 refused the connection, password=hunter2secret"
OPERATOR = "_PythonDecoratedOperator"
POLL = 0.2  # seconds
WAIT = 60.0  # seconds


class World(Protocol):
    """An Airflow and the hands of its administrator."""

    gateway: AirflowGateway

    async def finished(self, dag_id: str, run_id: str) -> RunSnapshot:
        """Wait until the run has ended."""

    async def running(self, task: TaskRef, state: str = "running") -> None:
        """Wait until the task runs, or is in another state."""

    async def put_connection(self, fields: dict[str, JsonValue]) -> None:
        """Create a Connection."""

    async def put_pool(self, name: str, slots: int) -> None:
        """Create a pool."""

    async def break_file(self, name: str) -> None:
        """Put a DAG file that does not parse, and wait until Airflow has seen it."""

    async def remove_file(self, name: str) -> None:
        """Take it away again."""


class MemoryWorld:
    """The twin."""

    def __init__(self) -> None:
        self.airflow = MemoryAirflow(clock=Ticking(datetime(2026, 6, 1, tzinfo=UTC)))
        self.gateway: AirflowGateway = self.airflow
        _describe(self.airflow)

    async def finished(self, dag_id: str, run_id: str) -> RunSnapshot:
        await self.airflow.settle()
        return await self.airflow.run(dag_id, run_id)

    async def running(self, task: TaskRef, state: str = "running") -> None:
        await self.airflow.settle()

    async def put_connection(self, fields: dict[str, JsonValue]) -> None:
        rest = {key: value for key, value in fields.items() if key not in ("connection_id", "conn_type")}
        password = str(rest.pop("password", ""))
        conn_id, conn_type = str(fields["connection_id"]), str(fields["conn_type"])
        self.airflow.add_connection(conn_id, conn_type, password=password, **rest)

    async def put_pool(self, name: str, slots: int) -> None:
        self.airflow.add_pool(name, slots)

    async def break_file(self, name: str) -> None:
        self.airflow.add_import_failure(name, "SyntaxError: '(' was never closed")

    async def remove_file(self, name: str) -> None:
        self.airflow.remove_import_failure(name)


def _describe(airflow: MemoryAirflow) -> None:
    """The DAGs of `dags/contract_dags.py`, by how their tries end."""

    def part(task: TaskRef, number: int) -> Try:
        fails = task.map_index in (1, 2) and number < 2
        return Try("failed", REFUSED) if fails else Try(xcom={"return_value": task.map_index})

    report: dict[str, JsonValue] = {"rows_in": 3, "rows_out": 3}
    fetched = Try(xcom={"return_value": [1, 2, 3], "airmedic_report": report})
    chain = [
        TaskSpec("fetch", [fetched], ("check",), operator=OPERATOR),
        TaskSpec(
            "check", [Try("failed", REFUSED), Try(xcom={"return_value": 3})], ("load",), operator=OPERATOR
        ),
        TaskSpec("load", operator=OPERATOR),
    ]
    airflow.add_dag("contract_chain", chain, tags=TAGS, source="def contract_chain(): ...")
    airflow.add_dag("contract_retries", [TaskSpec("broken", [Try("failed")], retries=1, operator=OPERATOR)])
    airflow.add_dag("contract_mapped", [TaskSpec("part", part, map_indexes=(0, 1, 2, 3), operator=OPERATOR)])
    airflow.add_dag("contract_slow", [TaskSpec("sleep", [Try("running")], operator=OPERATOR)])
    airflow.add_dag("contract_deferred", [TaskSpec("wait", [Try("deferred")], operator="Wait")])
    airflow.add_dag("contract_pace", [TaskSpec("work", operator=OPERATOR)], tags=TAGS)
    once = [Try("failed", REFUSED), Try()]
    work = TaskSpec("work", once, ("drop", "tell"), operator=OPERATOR, scope=("make", "drop"))
    scope = [
        TaskSpec("make", downstream=("drop", "work"), operator=OPERATOR),
        work,
        TaskSpec("tell", trigger_rule="all_done", operator=OPERATOR),
        TaskSpec("drop", trigger_rule=TEARDOWN, operator=OPERATOR),
    ]
    airflow.add_dag("contract_scope", scope)
    daily = [TaskSpec("note", operator=OPERATOR)]
    airflow.add_dag("contract_daily", daily, paused=True, schedule=timedelta(days=1))


class RestWorld:
    """The real one."""

    def __init__(self, gateway: AirflowGateway, client: httpx.AsyncClient, dags: Path) -> None:
        self.gateway = gateway
        self._client = client
        self._dags = dags

    async def finished(self, dag_id: str, run_id: str) -> RunSnapshot:
        async def ended() -> bool:
            return (await self.gateway.run(dag_id, run_id)).state in ("success", "failed")

        await _until(ended)
        return await self.gateway.run(dag_id, run_id)

    async def running(self, task: TaskRef, state: str = "running") -> None:
        async def runs() -> bool:
            tasks = await self.gateway.run_tasks(task.dag_id, task.run_id)
            return any(one.task == task and one.state == state for one in tasks)

        await _until(runs)

    async def put_connection(self, fields: dict[str, JsonValue]) -> None:
        (await self._client.post("/api/v2/connections", json=fields)).raise_for_status()

    async def put_pool(self, name: str, slots: int) -> None:
        body = {"name": name, "slots": slots, "include_deferred": False}
        (await self._client.post("/api/v2/pools", json=body)).raise_for_status()

    async def break_file(self, name: str) -> None:
        (self._dags / name).write_text("from airflow.sdk import dag\nbroken(\n")

        async def seen() -> bool:
            return bool(await self.gateway.import_failures())

        await _until(seen)

    async def remove_file(self, name: str) -> None:
        (self._dags / name).unlink()


async def unlocked(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer to what changes nothing, once nobody else holds the SQLite file of the tested Airflow."""
    while True:
        try:
            return await ask()
        except AirflowUnreachable:
            await asyncio.sleep(POLL)


async def _until(ready: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WAIT):
        while True:
            if await ready():
                return
            await asyncio.sleep(POLL)


@asynccontextmanager
async def open_rest_world(sandbox: Sandbox, dags: Path) -> AsyncIterator[RestWorld]:
    """The real Airflow once it has parsed the contract DAGs."""
    await sandbox.wait_dag("contract_deferred")
    login = {"username": sandbox.username, "password": sandbox.password}
    async with (
        open_airflow(sandbox.url, username=sandbox.username, password=sandbox.password) as gateway,
        httpx.AsyncClient(base_url=sandbox.url, timeout=10, trust_env=False) as client,
    ):
        token = (await client.post("/auth/token", json=login)).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield RestWorld(gateway, client, dags)
