"""The API in this process: a real service on a SQLite file, the in-memory Airflow, a scripted diagnosis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from graph.domain import Diagnosis, RootCause
from server.app import create_app
from server.people.notifier import SilentNotifier
from server.service import Service, open_service
from server.settings import Settings, load_settings
from tests.factories import make_diagnosis
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try
from tools.diagnosis import Case

LOG = "line one\nline two\nconnection refused, password=hunter2secret\n"


class Scripted:
    """Always the same diagnosis."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis

    async def diagnose(self, case: Case) -> Diagnosis:
        return self.diagnosis


class Wall:
    """The real clock, movable."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


async def no_sleep(seconds: float) -> None:
    """A sleep that takes no time."""


def make_settings(folder: Path, **given: Any) -> Settings:
    return load_settings(
        {},
        **{
            "_env_file": None,
            "AIRMEDIC_AIRFLOW_URL": "http://127.0.0.1:1",
            "AIRMEDIC_AIRFLOW_TOKEN": "token-of-airflow",
            "database_url": f"sqlite:///{folder / 'airmedic.db'}",
            "log_file": None,
            "healing": "on",
            # Gradio leaves event loops open when it is imported, which strict warnings report.
            "console": False,
            **given,
        },
    )


def make_airflow(*, fails: int = 1) -> MemoryAirflow:
    """A DAG `orders` whose task `load` fails that often and then succeeds; nothing says it may run again."""
    airflow = MemoryAirflow(clock=Wall())
    tries = [*(Try(state="failed", log=LOG) for _ in range(fails)), Try()]
    airflow.add_dag("orders", [TaskSpec("load", tries)])
    return airflow


def make_service(
    settings: Settings, airflow: MemoryAirflow, *, clock: Wall | None = None, background: bool = False
) -> AbstractAsyncContextManager[Service]:
    return open_service(
        settings,
        airflow=airflow,
        diagnostician=Scripted(make_diagnosis(root_cause=RootCause.WORKER_LOST)),
        notifier=SilentNotifier(),
        clock=clock or Wall(),
        sleep=no_sleep,
        background=background,
    )


@dataclass
class Api:
    """The running API and what is behind it."""

    http: httpx.AsyncClient
    app: FastAPI
    service: Service
    airflow: MemoryAirflow
    clock: Wall

    async def drive(self) -> None:
        """Let intake and runner do whatever is due."""
        await self.service.intake.admit()
        await self.service.runner.settle_all()

    async def fail(self, run_id: str = "run_1") -> int:
        """Let a task fail and be diagnosed; the number of the incident that now asks."""
        self.airflow.start("orders", run_id)
        await self.airflow.settle()
        given = {"event": "task_instance_failed", "dag_id": "orders", "run_id": run_id, "task_id": "load"}
        answer = await self.http.post("/webhook", json=given)
        assert answer.status_code == 202, answer.text
        await self.drive()
        return max(record.id for record in await self.service.store.incidents())

    async def incident(self, incident_id: int) -> dict[str, Any]:
        answer = await self.http.get(f"/api/incidents/{incident_id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def decide(self, incident_id: int, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post(f"/api/incidents/{incident_id}/decision", json=body, headers=headers)


@asynccontextmanager
async def open_api(
    folder: Path, *, fails: int = 1, background: bool = False, **given: Any
) -> AsyncIterator[Api]:
    """The application with its lifespan, without a socket."""
    clock, airflow = Wall(), make_airflow(fails=fails)
    app = create_app(
        make_settings(folder, **given),
        service_factory=lambda settings: make_service(settings, airflow, clock=clock, background=background),
    )
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8642") as http:
            yield Api(http, app, app.state.service, airflow, clock)
