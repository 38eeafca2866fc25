"""The demo's world on the session's Airflow, and the Airmedics that a test puts in front of it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from evals.faults.catalogue import DataCheck
from evals.faults.oracle import DataVerdict, judge
from evals.faults.stage import Stage, serving
from evals.faults.world import CONTRACT, PIPELINE, World
from graph.domain import LedgerEntry, TaskRef
from server.app import create_app
from server.settings import load_settings
from tests.acceptance.medic import Api, open_api
from tests.acceptance.proxy import Proxy
from tests.conftest import AirflowUnderTest
from tools.airflow_rest import open_airflow

WATCH = "PT2S"
POLL = "PT1S"


@dataclass(frozen=True)
class Medic:
    """An Airmedic in this process."""

    stage: Stage
    api: Api
    proxy: Proxy  #: what it takes for Airflow


@dataclass(frozen=True)
class Scene:
    """The world, what Airflow itself says, and how to start an Airmedic."""

    airflow: AirflowUnderTest
    world: World

    def settings(self, proxy: Proxy, home: Path) -> dict[str, str]:
        """Settings by name: healing on, a short watch, a database of its own."""
        return {
            "airflow_url": proxy.url,
            "airflow_username": self.airflow.sandbox.username,
            "airflow_password": self.airflow.sandbox.password,
            "healing": "on",
            "environment": "test",
            "watch_window": WATCH,
            "poll_interval": POLL,
            "database_url": f"sqlite:///{home / 'airmedic.db'}",
            "webhook_secret": self.airflow.webhook_secret,
            "log_file": str(home / "pipeline.log"),
        }

    def environment(self, proxy: Proxy, home: Path) -> dict[str, str]:
        """The same as `airmedic serve` reads it."""
        return {f"AIRMEDIC_{name.upper()}": value for name, value in self.settings(proxy, home).items()}

    @asynccontextmanager
    async def medic(self, proxy: Proxy, home: Path, *, port: int, **given: object) -> AsyncIterator[Medic]:
        """An Airmedic in this process, with an empty database."""
        settings = load_settings({}, **self.settings(proxy, home), port=port, **given)
        app = create_app(settings)
        url = f"http://127.0.0.1:{port}"
        async with serving(app, port=port), open_api(url) as api:
            stage = Stage(self.world, self.airflow.sandbox, app.state.service, url, self.world.layout)
            yield Medic(stage, api, proxy)

    async def tries(self, run_id: str, task_id: str, *, since: datetime | None = None) -> list[str]:
        """How each try of the task ended, in Airflow's words; all of them, or those that began since then."""
        found = await self.world.airflow.tries(PIPELINE, run_id, task_id)
        return [
            str(one["state"])
            for one in found
            if since is None or datetime.fromisoformat(one["start_date"]) > since
        ]

    async def clears(self, run_id: str, task_id: str) -> int:
        """How often Airflow's own event log says that the task was cleared."""
        sandbox = self.airflow.sandbox
        task = TaskRef(dag_id=PIPELINE, run_id=run_id, task_id=task_id)
        async with open_airflow(sandbox.url, username=sandbox.username, password=sandbox.password) as gateway:
            return await gateway.clear_count(task)

    async def contract(self) -> Any:
        """The contract in Airflow's Variable."""
        return json.loads(await self.world.airflow.variable(CONTRACT) or "null")

    def rows(self, run_id: str, check: DataCheck = DataCheck.ALL_ROWS) -> DataVerdict:
        """What the warehouse holds of the run, against what the source had."""
        return judge(self.world.layout, run_id, check, self.world.source.state.faults)


def written(ledger: tuple[LedgerEntry, ...] | list[Any]) -> list[tuple[str, str]]:
    """What the ledger says was done in Airflow, and how it ended."""
    return [(one.action.name, one.step.value) for one in ledger if one.action.name != "wait"]
