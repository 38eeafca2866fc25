"""One real Airflow and its world for all of these tests; each has an Airmedic of its own in front of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from evals.faults.world import FEED, PIPELINE, Layout, World, open_world
from server.demo.source import SourceServer, SourceState
from tests.acceptance.proxy import Proxy, open_proxy
from tests.acceptance.scene import Medic, Scene
from tests.conftest import AirflowUnderTest


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def world(airflow_sandbox: AirflowUnderTest) -> AsyncIterator[World]:
    """What faults can touch."""
    sandbox = airflow_sandbox.sandbox
    for dag_id in (PIPELINE, FEED):
        await sandbox.wait_dag(dag_id)
    async with (
        SourceServer(SourceState()) as source,
        open_world(Layout(airflow_sandbox.dags.parent), source, sandbox) as world,
    ):
        await world.prepare()
        yield world
        await world.reset()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def scene(airflow_sandbox: AirflowUnderTest, world: World) -> Scene:
    """Builds what a test needs around the Airflow."""
    return Scene(airflow_sandbox, world)


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(airflow_sandbox: AirflowUnderTest) -> AsyncIterator[Proxy]:
    """What Airmedic takes for Airflow."""
    async with open_proxy(airflow_sandbox.sandbox.url) as proxy:
        yield proxy


@pytest_asyncio.fixture(loop_scope="session")
async def medic(scene: Scene, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Medic]:
    """An Airmedic where Airflow's listener plugin expects one."""
    async with scene.medic(proxy, tmp_path, port=scene.airflow.airmedic_port) as medic:
        yield medic
