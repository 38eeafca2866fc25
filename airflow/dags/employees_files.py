"""Where the demo's tasks keep their files: rows travel between tasks on disk, not through XCom.

Everything is under `AIRMEDIC_DEMO_DIR`. A running task leaves its process id in `pids/<task id>`, and
`controls.json` may slow the load down, so that tests can end it half-way.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def demo_dir() -> Path:
    """The demo's folder."""
    return Path(os.environ.get("AIRMEDIC_DEMO_DIR") or Path.home() / ".airmedic" / "demo")


def run_file(run_id: str, name: str) -> Path:
    """A run's file."""
    return demo_dir() / "runs" / re.sub(r"[^A-Za-z0-9_.-]", "_", run_id) / f"{name}.json"


def write(path: Path, value: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(value))
    part.replace(path)


def read(path: Path) -> Any:
    """What `write` wrote."""
    return json.loads(path.read_text())


def departments_file() -> Path:
    """The reference that `employees_feed` publishes and the pipeline reads."""
    return demo_dir() / "feed" / "departments.json"


def load_pause() -> float:
    """Seconds the load waits after each batch; 0 unless a test asks."""
    path = demo_dir() / "controls.json"
    return float(read(path).get("load_pause", 0)) if path.exists() else 0.0


@contextmanager
def pid_file(task_id: str) -> Iterator[None]:
    """Show this process's id while the task runs. A killed task leaves it behind."""
    path = demo_dir() / "pids" / task_id
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(str(os.getpid()))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
