"""Everything a fault can touch: the demo's files, its source, its warehouse and its Airflow settings."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from evals.faults.airflow_admin import AirflowAdmin, BenchFailed, open_admin
from evals.faults.sandbox import Sandbox
from graph.domain import canonical_json
from server.demo.source import SourceServer

PROJECT = Path(__file__).resolve().parents[2] / "airflow"

LATER_DAGS = PROJECT / "bench_dags" / "scheduled"

PIPELINE = "self_healing_pipeline"
PIPELINE_FILE = "self_healing_pipeline.py"
FEED = "employees_feed"
TASKS = ("fetch", "validate", "transform", "load")
CONTRACT = "airmedic_contract_employees"
SOURCE_PATH = "employees_source_path"
SOURCE_AT = "/api/employees"  # what that Variable holds
SOURCE = "employees_api"
WAREHOUSE = "airmedic_warehouse"
POOL = "employees_pool"
POOL_SLOTS = 2

# What a picture of the world shows; counters and times of Airflow's own are left out.
PICTURED = (
    ("variables", CONTRACT),
    ("variables", SOURCE_PATH),
    ("connections", SOURCE),
    ("connections", WAREHOUSE),
    ("pools", POOL),
    ("dags", PIPELINE),
    ("dags", FEED),
)
LASTING = frozenset(
    {"key", "value", "description", "connection_id", "conn_type", "host", "schema", "login", "port", "extra"}
    | {"name", "slots", "include_deferred", "dag_id", "is_paused", "tags"}
)

SHARDS_SETTING = "AIRMEDIC_DEMO_SHARDS"  # fewer map indexes than the bench's two hundred

SAFE_TAG = "airmedic:rerun-safe"
PARSED_WITHIN = 60.0  # seconds until Airflow has read a changed DAG file
FEED_TIMEOUT = 90.0  # seconds

GOOD_CONTRACT: dict[str, Any] = {
    "version": 1,
    "columns": {
        "id": {"type": "integer", "required": True, "key": True},
        "name": {"type": "string", "required": True},
        "email": {"type": "string", "required": True},
        "department": {"type": "string", "required": True},
        "salary": {"type": "number", "required": True},
        "hired_on": {"type": "date", "required": True},
    },
    "extra_columns": "fail",
    "quarantine": {"rows": "fail", "max_fraction": 0.05, "duplicates": "fail"},
    "batch_size": 50,
    "timeout_seconds": {"fetch": 10},
}


@dataclass(frozen=True)
class Layout:
    """Where the demo's files are; everything lies under `root`."""

    root: Path

    @property
    def dags(self) -> Path:
        """A copy of the project's DAGs that faults may break."""
        return self.root / "dags"

    @property
    def plugins(self) -> Path:
        """The project's plugins."""
        return PROJECT / "plugins"

    @property
    def files(self) -> Path:
        """What the tasks know as AIRMEDIC_DEMO_DIR."""
        return self.root / "demo"

    @property
    def warehouse(self) -> Path:
        """The warehouse's SQLite file."""
        return self.files / "warehouse.db"

    @property
    def departments(self) -> Path:
        """The reference that the feed publishes."""
        return self.files / "feed" / "departments.json"

    def make(self) -> Layout:
        """Create the folders and copy the DAGs; an earlier copy is replaced."""
        self.files.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self.dags, ignore_errors=True)
        shutil.copytree(PROJECT / "dags", self.dags, ignore=shutil.ignore_patterns("__pycache__"))
        return self

    def add_bench_dags(self) -> tuple[str, ...]:
        """The DAGs that only the bench needs, beside the others; their ids."""
        found = sorted((PROJECT / "bench_dags").glob("*.py"))
        for path in found:
            shutil.copy(path, self.dags)
        return tuple(path.stem for path in found)

    def env(self, *, airmedic_url: str = "", secret: str = "", airflow_id: str = "demo") -> dict[str, str]:
        """What the Airflow's processes must find in their environment."""
        told = {"AIRMEDIC_DEMO_DIR": str(self.files.resolve())}
        if shards := os.environ.get(SHARDS_SETTING):
            told[SHARDS_SETTING] = shards
        if airmedic_url:
            told |= {
                "AIRMEDIC_URL": airmedic_url,
                "AIRMEDIC_WEBHOOK_SECRET": secret,
                "AIRMEDIC_AIRFLOW_ID": airflow_id,
            }
        return told

    @property
    def missed(self) -> Path:
        """The intervals that a fault kept a DAG from running."""
        return self.files / "missed.json"

    def run_file(self, run_id: str, name: str) -> Path:
        """One of the files a run keeps its rows in."""
        safe = "".join(c if c.isascii() and (c.isalnum() or c in "_.-") else "_" for c in run_id)
        return self.files / "runs" / safe / f"{name}.json"


class World:
    """The running demo without Airmedic."""

    def __init__(self, layout: Layout, source: SourceServer, airflow: AirflowAdmin, logs: Path) -> None:
        self.layout = layout
        self.source = source
        self.airflow = airflow
        self.logs = logs  #: Airflow's folder of task logs
        self.more_dags: tuple[str, ...] = ()  #: of the bench, beside the demo's own
        self.pace = 1.0  #: how many times faster than real waits pass
        self.images: dict[str, str] = {}  #: pictures of the settings by the moment they were taken
        self._lock: sqlite3.Connection | None = None
        self._extras: list[Callable[[], Awaitable[None]]] = []

    async def sleep(self, seconds: float) -> None:
        """Wait as long as that is in this world."""
        await asyncio.sleep(seconds / self.pace)

    def on_reset(self, end: Callable[[], Awaitable[None]]) -> None:
        """Something a fault started beside the world, and how it is ended."""
        self._extras.append(end)

    async def end_extras(self) -> None:
        """End what faults started."""
        while self._extras:
            await self._extras.pop()()

    async def prepare(self) -> None:
        """Put in place what the pipeline needs; the DAGs must have been parsed."""
        for dag_id in (PIPELINE, FEED):
            await self.airflow.unpause(dag_id)
        await self.reset()

    async def reset(self) -> None:
        """As if no fault had ever been: source, settings, code, files and warehouse."""
        self.unlock_warehouse()
        await self.end_extras()
        self.images.clear()
        self.source.state.reset()
        await self.source.start()
        await self.restore_settings()
        self.restore_code()
        # A file that did not import took its DAG away; a changed one may have other tags.
        await self.airflow.wait_tag(PIPELINE, SAFE_TAG, within=PARSED_WITHIN)
        for dag_id in (PIPELINE, *self.more_dags):
            await self.airflow.end_active_runs(dag_id)
        self._clear_files()
        await self.ensure_departments()

    async def picture(self, moment: str) -> str:
        """Every setting a fix may touch, as canonical JSON; kept under the moment's name."""
        shown = {f"{kind}/{key}": await self._stored(kind, key) for kind, key in PICTURED}
        self.images[moment] = canonical_json(shown)
        return self.images[moment]

    async def _stored(self, kind: str, key: str) -> dict[str, Any]:
        found = await self.airflow.stored(kind, key) or {}
        return {name: value for name, value in found.items() if name in LASTING}

    async def restore_settings(self) -> None:
        """Variables, Connections and the pool as the pipeline expects them."""
        await self.restore_contract()
        await self.airflow.put_variable(SOURCE_PATH, SOURCE_AT)
        await self.restore_source_connection()
        warehouse = {"conn_type": "sqlite", "host": str(self.layout.warehouse.resolve())}
        await self.airflow.put_connection(WAREHOUSE, warehouse)
        await self.airflow.put_pool(POOL, POOL_SLOTS)

    async def restore_contract(self) -> None:
        """The contract that fits a healthy source."""
        await self.airflow.put_variable(CONTRACT, json.dumps(GOOD_CONTRACT, indent=2))

    async def restore_source_connection(self) -> None:
        """The Connection that leads to the source."""
        fields = {"conn_type": "http", "host": "127.0.0.1", "schema": "http", "port": self.source.port}
        await self.airflow.put_connection(SOURCE, fields)

    async def ensure_departments(self) -> None:
        """Let the feed publish its reference when it is not there."""
        if self.layout.departments.exists():
            return
        run_id = f"feed_{uuid4().hex[:8]}"
        await self.airflow.trigger(FEED, run_id)
        if await self.airflow.wait_run(FEED, run_id, within=FEED_TIMEOUT) != "success":
            raise BenchFailed("the feed did not publish the departments")

    def remove_departments(self) -> None:
        """The feed's file is gone."""
        self.layout.departments.unlink(missing_ok=True)

    async def wait_import_error(self, name: str, *, within: float) -> None:
        """Wait until Airflow reports that this DAG file does not import."""
        await self.airflow.wait_import_error(name, within=within)

    async def trigger(self, name: str = "run", *, dag_id: str = PIPELINE) -> str:
        """Start the pipeline, or another DAG; the run's id."""
        run_id = f"{name}_{uuid4().hex[:8]}"
        await self.airflow.trigger(dag_id, run_id)
        return run_id

    async def wait_task(self, run_id: str, task_id: str, *states: str, within: float = 120.0) -> str:
        """Wait for a pipeline task to be in one of these states."""
        return await self.airflow.wait_task(PIPELINE, run_id, task_id, states, within=within)

    def break_code(self, name: str, text: str) -> None:
        """Replace one file of the DAGs' copy."""
        _write(self.layout.dags / name, text)

    def add_dag(self, dag_id: str) -> None:
        """Put a DAG file of the bench among the others, for as long as one fault needs it."""
        _write(self.layout.dags / f"{dag_id}.py", (LATER_DAGS / f"{dag_id}.py").read_text())

    def has_dag(self, dag_id: str) -> bool:
        """Whether its file is there."""
        path = self.layout.dags / f"{dag_id}.py"
        return path.exists() and path.stat().st_size > 0

    def remove_dag(self, dag_id: str) -> None:
        """Take it away again: emptied, as Airflow may be about to read it."""
        _write(self.layout.dags / f"{dag_id}.py", "")

    def restore_code(self) -> None:
        """The DAGs' copy as the project has it; files that are right already are not touched."""
        for good in (PROJECT / "dags").glob("*.py"):
            text = good.read_text()
            copy = self.layout.dags / good.name
            if not copy.exists() or copy.read_text() != text:
                _write(copy, text)

    def _clear_files(self) -> None:
        self.set_controls()
        for name in ("pids", "runs"):
            shutil.rmtree(self.layout.files / name, ignore_errors=True)
        for suffix in ("", "-journal", "-wal", "-shm"):
            Path(f"{self.layout.warehouse}{suffix}").unlink(missing_ok=True)

    def set_controls(self, *, load_pause: float = 0.0) -> None:
        """Slow the load down: seconds after each batch."""
        path = self.layout.files / "controls.json"
        if load_pause:
            _write(path, json.dumps({"load_pause": load_pause}))
        else:
            path.unlink(missing_ok=True)

    def pid(self, task_id: str) -> int | None:
        """The process id that a running task left; None when none runs. A killed task's stays."""
        with suppress(FileNotFoundError, ValueError):
            return int((self.layout.files / "pids" / task_id).read_text())
        return None

    def make_warehouse(self) -> None:
        """The empty table, as after a first load."""
        with closing(sqlite3.connect(self.layout.warehouse)) as database:
            database.execute(
                "CREATE TABLE employees (run_id TEXT NOT NULL, id INTEGER NOT NULL, name TEXT, email TEXT,"
                " department TEXT, salary NUMERIC, hired_on TEXT)"
            )

    def lock_warehouse(self) -> None:
        """Be another writer that does not let go."""
        self._lock = sqlite3.connect(self.layout.warehouse, isolation_level=None)
        self._lock.execute("BEGIN EXCLUSIVE")

    def unlock_warehouse(self) -> None:
        """Let go."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def aclose(self) -> None:
        """Let go of what is held."""
        self.unlock_warehouse()
        await self.end_extras()


@asynccontextmanager
async def open_world(layout: Layout, source: SourceServer, sandbox: Sandbox) -> AsyncIterator[World]:
    """The world around an Airflow that runs with `layout.dags`, `layout.plugins` and `layout.env()`."""
    async with open_admin(sandbox.url, sandbox.username, sandbox.password) as airflow:
        world = World(layout, source, airflow, sandbox.home / "logs")
        try:
            yield world
        finally:
            await world.aclose()


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(path)
