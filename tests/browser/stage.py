"""Airmedic with its console on the in-memory Airflow, in a process of its own, for a browser to look at.

`python -m tests.browser.stage '{"port": 8700, "home": "/tmp/x", ...}'`. Beside the API there are routes under
`/stage/` by which a test breaks things and moves the clock.
"""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from gradio_ui.app import mount
from graph.domain import Door, FailureId, Role, TaskRef
from server.app import create_app
from server.embedded import EmbeddedServer
from server.people.notifier import SilentNotifier
from server.service import Service, open_service
from server.settings import Settings, load_settings
from tests.browser.history import make_history
from tests.browser.world import make_airflow
from tests.unit.serving import Wall
from tools.airflow_memory import MemoryAirflow

TEAM = {"ada": Role.OPERATOR, "bo": Role.OPERATOR, "vera": Role.VIEWER, "root": Role.ADMIN}


class Plan(BaseModel):
    """What to serve."""

    port: int
    home: Path
    tokens: bool = True  #: make one for each of TEAM, written to tokens.json
    settings: dict[str, Any] = {}
    history: int = 0  #: incidents of the past
    hostile: bool = True  #: with a pipeline whose name is markup


def settings_of(plan: Plan) -> Settings:
    """Healing on, a short watch, a database that outlives the process."""
    given = {
        "AIRMEDIC_AIRFLOW_URL": "http://127.0.0.1:1",
        "AIRMEDIC_AIRFLOW_TOKEN": "token-of-airflow",
        "database_url": f"sqlite:///{plan.home / 'airmedic.db'}",
        "log_file": None,
        "healing": "on",
        "environment": "test",
        "watch_window": "PT1S",
        "poll_interval": "PT1S",
        "correlate": False,  # each test breaks a run of its own, and they all lose the same source
        "port": plan.port,
        **plan.settings,
    }
    return load_settings({}, _env_file=None, **given)


def add_stage(app: FastAPI, airflow: MemoryAirflow, clock: Wall) -> None:
    """The routes of the test."""

    @app.post("/stage/fail")
    async def fail(dag: str, run: str) -> int:
        """Let a run fail; the listener tells of it. The time at which it did comes back."""
        service: Service = app.state.service
        airflow.start(dag, run, run_type="scheduled")
        await airflow.settle()
        task = TaskRef(dag_id=dag, run_id=run, task_id="load")
        failure = FailureId(airflow=service.settings.airflow_id, task=task, try_number=1)
        await service.store.accept([failure], door=Door.LISTENER)
        service.runner.ring()
        return 0

    @app.post("/stage/forward")
    async def forward(seconds: float) -> float:
        clock.ahead += timedelta(seconds=seconds)
        app.state.service.runner.ring()
        return clock.ahead.total_seconds()


async def serve(plan: Plan) -> None:
    """Serve until SIGTERM."""
    if plan.history:
        await make_history(settings_of(plan), count=plan.history)
    clock = Wall()
    airflow = make_airflow(clock, hostile=plan.hostile)

    @asynccontextmanager
    async def opened(settings: Settings) -> AsyncIterator[Service]:
        async with open_service(settings, airflow=airflow, notifier=SilentNotifier(), clock=clock) as service:
            if plan.tokens:
                await make_tokens(service, plan.home / "tokens.json")
            yield service

    app = create_app(
        settings_of(plan),
        service_factory=opened,
    )
    mount(app)
    add_stage(app, airflow, clock)
    server = EmbeddedServer(
        uvicorn.Config(
            app, port=plan.port, log_level="warning", access_log=False, timeout_graceful_shutdown=2
        )
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.handle_exit, signal.SIGTERM, None)
    await server.serve()


async def make_tokens(service: Service, kept: Path) -> None:
    """One for each of the team, the first time only."""
    if await service.tokens.exist():
        return
    tokens = {name: (await service.tokens.create(name, role, life=None))[0] for name, role in TEAM.items()}
    await asyncio.to_thread(kept.write_text, json.dumps(tokens))


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(serve(Plan.model_validate_json(sys.argv[1])))
