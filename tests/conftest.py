"""Fixtures that every kind of test may use."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from evals.faults.sandbox import PROJECT, Sandbox, free_port, open_sandbox

CONTRACT_DAGS = Path(__file__).parent / "contract" / "dags"


@dataclass(frozen=True)
class AirflowUnderTest:
    """The one real Airflow of a test session, and what it was told of Airmedic."""

    sandbox: Sandbox
    dags: Path  #: its DAG folder, a copy that tests may write into
    airmedic_port: int  #: where its listener plugin expects an Airmedic
    webhook_secret: str
    demo_dir: Path  #: the demo pipeline's files and warehouse

    @property
    def airmedic_url(self) -> str:
        return f"http://127.0.0.1:{self.airmedic_port}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def airflow_sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[AirflowUnderTest]:
    """A real Airflow, started by the first test that asks for it."""
    root = tmp_path_factory.mktemp("airflow")
    dags, demo = root / "dags", root / "demo"
    demo.mkdir()
    shutil.copytree(CONTRACT_DAGS, dags, ignore=shutil.ignore_patterns("__pycache__"))
    if (PROJECT / "dags").is_dir():
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(PROJECT / "dags", dags, ignore=ignored, dirs_exist_ok=True)
    plugins = PROJECT / "plugins"
    port, secret = free_port(), "a-secret-of-the-tests"
    env = {
        "AIRMEDIC_URL": f"http://127.0.0.1:{port}",
        "AIRMEDIC_WEBHOOK_SECRET": secret,
        "AIRMEDIC_DEMO_DIR": str(demo),
    }
    async with open_sandbox(
        home=root / "home", dags=dags, plugins=plugins if plugins.is_dir() else None, env=env
    ) as sandbox:
        yield AirflowUnderTest(sandbox, dags, port, secret, demo)
