"""The worlds as fixtures; the real one is only started when an integration test runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from tests.conftest import AirflowUnderTest
from tests.contract.worlds import MemoryWorld, RestWorld, World, open_rest_world
from tools.gateway import AirflowGateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def memory_world() -> MemoryWorld:
    return MemoryWorld()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def rest_world(airflow_sandbox: AirflowUnderTest) -> AsyncIterator[RestWorld]:
    async with open_rest_world(airflow_sandbox.sandbox, airflow_sandbox.dags) as world:
        yield world


@pytest.fixture(scope="session", params=["memory", pytest.param("rest", marks=pytest.mark.integration)])
def world(request: pytest.FixtureRequest) -> World:
    found: World = request.getfixturevalue(f"{request.param}_world")
    return found


@pytest.fixture(scope="session")
def gateway(world: World) -> AirflowGateway:
    return world.gateway


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def failed_run(world: World) -> str:
    """A finished run of `contract_chain` whose `check` failed, for tests that only read."""
    return await failed_chain(world)


async def failed_chain(world: World) -> str:
    """A fresh run of `contract_chain` whose `check` failed."""
    return await finished_run(world, "contract_chain")


async def finished_run(world: World, dag_id: str) -> str:
    run_id = f"contract__{uuid4().hex[:8]}"
    await world.gateway.trigger(dag_id, run_id=run_id)
    await world.finished(dag_id, run_id)
    return run_id
