"""The whole stage of a live run: a real Airflow, the demo's world, and Airmedic beside them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import uvicorn
from fastapi import FastAPI
from starlette.types import ASGIApp

from evals.faults.sandbox import Sandbox, free_port, open_sandbox
from evals.faults.world import FEED, PIPELINE, Layout, World, open_world
from graph.errors import SandboxFailed
from server.app import create_app
from server.demo.source import SourceServer, SourceState
from server.embedded import EmbeddedServer
from server.service import Service
from server.settings import Settings, load_settings

WATCH = timedelta(seconds=20)  # recurrence is watched so long; a day in production
POLL = timedelta(seconds=2)
STUCK = timedelta(seconds=20)  # ten minutes in production
START_POLL = 0.05  # seconds


@dataclass(frozen=True)
class Ports:
    """Where things listen; 0 takes a free port."""

    airflow: int = 0
    airmedic: int = 0
    source: int = 0


class Arena(Protocol):
    """What a fault is played on."""

    @property
    def world(self) -> World:
        """What faults touch."""

    @property
    def service(self) -> Service:
        """The Airmedic beside it."""

    @property
    def layout(self) -> Layout:
        """Where the files are."""


@dataclass(frozen=True)
class Stage:
    """Everything a live run plays on."""

    world: World
    sandbox: Sandbox
    service: Service
    url: str  #: Airmedic's own address
    layout: Layout


@asynccontextmanager
async def serving(app: ASGIApp, *, port: int) -> AsyncIterator[None]:
    """Serve an app in this process until the block is left."""
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False, ws="none")
    config.timeout_graceful_shutdown = 2
    server = EmbeddedServer(config)
    task = asyncio.create_task(server.serve(), name="airmedic-http")
    while not server.started:
        if task.done():
            await task
            raise SandboxFailed(f"Airmedic could not listen on port {port}")
        await asyncio.sleep(START_POLL)
    try:
        yield
    finally:
        server.should_exit = True
        await task


def stage_settings(layout: Layout, sandbox: Sandbox, *, port: int, secret: str) -> Settings:
    """Settings of the demo's Airmedic: healing on, short watch, its own database and log."""
    return load_settings(
        {},
        _env_file=None,
        airflow_url=sandbox.url,
        airflow_username=sandbox.username,
        airflow_password=sandbox.password,
        airflow_id="demo",
        healing="on",
        environment="demo",
        watch_window=WATCH,
        poll_interval=POLL,
        stuck_after=STUCK,
        database_url=f"sqlite:///{layout.root / 'airmedic.db'}",
        webhook_secret=secret,
        log_file=layout.root / "logs" / "pipeline.log",
        port=port,
        demo=True,
    )


@asynccontextmanager
async def open_stage(
    root: Path,
    *,
    ports: Ports,
    progress: Callable[[str], None],
    mount: Callable[[FastAPI], None] | None = None,
) -> AsyncIterator[Stage]:
    """Start all of it, in order, and end it whatever happens. `root` is kept between runs."""
    layout = Layout(root).make()
    airmedic_port = ports.airmedic or free_port()
    url = f"http://127.0.0.1:{airmedic_port}"
    secret = "whsec_" + secrets.token_urlsafe(24).replace("-", "A").replace("_", "B")
    for name in ("airmedic.db", "airmedic.db-wal", "airmedic.db-shm"):
        (root / name).unlink(missing_ok=True)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(SourceServer(SourceState(), port=ports.source))
        sandbox = await stack.enter_async_context(
            open_sandbox(
                home=root / "airflow",
                dags=layout.dags,
                plugins=layout.plugins,
                port=ports.airflow or None,
                env=layout.env(airmedic_url=url, secret=secret),
                progress=progress,
            )
        )
        progress("waiting for the first parse of the DAGs")
        for dag_id in (PIPELINE, FEED):
            await sandbox.wait_dag(dag_id)
        world = await stack.enter_async_context(open_world(layout, source, sandbox))
        await world.prepare()
        settings = stage_settings(layout, sandbox, port=airmedic_port, secret=secret)
        app = create_app(settings, source=source.state)
        if mount is not None:
            mount(app)
        await stack.enter_async_context(serving(app, port=airmedic_port))
        yield Stage(world, sandbox, app.state.service, url, layout)
