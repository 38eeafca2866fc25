"""Runs the demo's DAG files without an Airflow, each try of a task in a process of its own.

Started by path, with a stand-in for `airflow.sdk`; itself it needs the standard library only.
`twin_task.py parse FOLDER` prints the DAGs of every file, or why it does not import, as JSON;
`twin_task.py run FOLDER` reads one try from standard input, runs it, and writes its log and XComs to the file
that it names. Errors, signals and limits are those of the task's own code.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

DAGS: dict[str, Dag] = {}
NOW: dict[str, Any] = {}  # the try that runs, the settings it may read, what it said


class Task:
    """What `@task` makes of a function, and of a call of it in a DAG."""

    def __init__(self, function: Any, options: dict[str, Any], indexes: list[Any] | None = None) -> None:
        self.function = function
        self.options = options
        self.indexes = indexes
        self.downstream: list[str] = []

    @property
    def task_id(self) -> str:
        return str(self.function.__name__)

    def __call__(self) -> Task:
        return self._added(None)

    def expand(self, **lists: list[Any]) -> Task:
        """Mapped over one list."""
        ((name, values),) = lists.items()
        return self._added([{name: value} for value in values])

    def _added(self, indexes: list[Any] | None) -> Task:
        made = Task(self.function, self.options, indexes)
        NOW["building"].tasks[made.task_id] = made
        return made

    def __rshift__(self, other: Task) -> Task:
        self.downstream.append(other.task_id)
        return other


class Dag:
    """A DAG as its file declares it."""

    def __init__(self, dag_id: str, options: dict[str, Any]) -> None:
        self.dag_id = dag_id
        self.source = NOW["file"]
        self.tags = list(options.get("tags") or [])
        self.tasks: dict[str, Task] = {}


def task(function: Any = None, **options: Any) -> Any:
    """`@task` and `@task(...)`."""
    if function is not None:
        return Task(function, options)
    return lambda found: Task(found, options)


def dag(**options: Any) -> Any:
    """`@dag(...)`."""

    def decorate(function: Any) -> Any:
        def build() -> None:
            found = Dag(function.__name__, options)
            NOW["building"] = DAGS[found.dag_id] = found
            function()

        return build

    return decorate


class Variable:
    """Reads what the twin holds."""

    @staticmethod
    def get(key: str) -> str:
        """The value, or the error that Airflow raises."""
        if key not in NOW["variables"]:
            raise AirflowRuntimeError(f"VARIABLE_NOT_FOUND: {{'key': {key!r}}}")
        return str(NOW["variables"][key])


class BaseHook:
    """Reads what the twin holds."""

    @staticmethod
    def get_connection(conn_id: str) -> SimpleNamespace:
        """The Connection, or the error that Airflow raises."""
        if conn_id not in NOW["connections"]:
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined")
        return SimpleNamespace(**NOW["connections"][conn_id])


class AirflowRuntimeError(Exception):
    """As in Airflow's task SDK."""


class AirflowNotFoundException(Exception):
    """As in Airflow."""


AirflowRuntimeError.__module__ = "airflow.sdk.exceptions"
AirflowNotFoundException.__module__ = "airflow.exceptions"


def context() -> dict[str, Any]:
    """What `get_current_context` gives."""
    return {"run_id": NOW["run_id"], "ti": SimpleNamespace(xcom_push=_push), "task": SimpleNamespace()}


def _push(key: str, value: Any) -> None:
    NOW["xcom"][key] = json.loads(json.dumps(value))


def load(folder: Path) -> dict[str, str]:
    """Import every DAG file; which did not, and why."""
    sdk = ModuleType("airflow.sdk")
    for name, value in {
        "dag": dag,
        "task": task,
        "Variable": Variable,
        "BaseHook": BaseHook,
        "get_current_context": context,
    }.items():
        setattr(sdk, name, value)
    sys.modules["airflow"], sys.modules["airflow.sdk"] = ModuleType("airflow"), sdk
    sys.path.insert(0, str(folder))
    broken = {}
    for path in sorted(folder.glob("*.py")):
        if "@dag" not in path.read_text():
            continue
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        NOW["file"] = path.read_text()
        try:
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        except (Exception, SystemExit):  # noqa: BLE001  a DAG file may do anything
            broken[path.name] = traceback.format_exc()
    return broken


def described() -> dict[str, Any]:
    """The DAGs as JSON."""
    return {
        found.dag_id: {
            "tags": found.tags,
            "source": found.source,
            "tasks": [
                {
                    "task_id": one.task_id,
                    "retries": one.options.get("retries", 0),
                    "pool": one.options.get("pool", "default_pool"),
                    "downstream": one.downstream,
                    "indexes": [-1] if one.indexes is None else list(range(len(one.indexes))),
                }
                for one in found.tasks.values()
            ],
        }
        for found in DAGS.values()
    }


class Lines(logging.Handler):
    """Log records in the structured form of Airflow's task log, written out one by one."""

    def __init__(self, file: Any) -> None:
        super().__init__()
        self._file = file

    def emit(self, record: logging.LogRecord) -> None:
        self.write(record.getMessage(), level=record.levelname.lower(), logger=record.name)

    def write(self, event: str, **more: Any) -> None:
        """One line, there even when the process is killed right after it."""
        at = datetime.now(UTC).isoformat()
        self._file.write(json.dumps({"log": {"timestamp": at, "event": event, **more}}) + "\n")
        self._file.flush()


def run(folder: Path) -> int:
    """One try of one task."""
    order = json.loads(sys.stdin.read())
    NOW.update(order, xcom={})
    with Path(order["out"]).open("w", encoding="utf-8") as file:
        lines = Lines(file)
        logging.basicConfig(level=logging.INFO, handlers=[lines])
        logging.getLogger("urllib3").setLevel(logging.WARNING)
        broken = load(folder)
        try:
            if order["dag_id"] not in DAGS:
                raise AirflowRuntimeError(f"DAG {order['dag_id']!r} not found: {' '.join(broken)}")
            found = DAGS[order["dag_id"]].tasks[order["task_id"]]
            given = found.indexes[order["map_index"]] if found.indexes else {}
            value = found.function(**given)
            NOW["xcom"]["return_value"] = value
            state = "success"
        except Exception as exc:  # noqa: BLE001  whatever a task raises is its failure
            lines.write("Task failed with exception", level="error", logger="task", error_detail=_chain(exc))
            state = "failed"
        file.write(json.dumps({"state": state, "xcom": NOW["xcom"]}) + "\n")
    return 0 if state == "success" else 1


def _chain(exc: BaseException) -> list[dict[str, Any]]:
    """The error and what led to it, as Airflow's log has them."""
    found, is_cause = [], False
    step: BaseException | None = exc
    while step is not None:
        frames = [
            {"filename": one.filename, "lineno": one.lineno, "name": one.name}
            for one in traceback.extract_tb(step.__traceback__)
            if one.filename != __file__
        ]
        name = type(step).__name__
        found.append({"exc_type": name, "exc_value": str(step), "is_cause": is_cause, "frames": frames})
        is_cause = step.__cause__ is not None
        step = step.__cause__ or (None if step.__suppress_context__ else step.__context__)
    return found


def main() -> int:
    """Parse or run."""
    folder = Path(sys.argv[2])
    if sys.argv[1] == "run":
        return run(folder)
    with contextlib.redirect_stdout(sys.stderr):
        broken = load(folder)
    sys.stdout.write(json.dumps({"dags": described(), "broken": broken}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
