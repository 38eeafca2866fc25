"""What every benchmark gives back: a table for people, JSON for machines, bars for the page."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import JsonValue
from rich.console import Console
from rich.table import Table

from graph.domain import DomainType


class Row(DomainType):
    """One figure."""

    name: str
    value: float
    unit: str
    better: str = "higher"  #: or lower
    target: float | None = None
    baseline: bool = False  #: somebody else's, measured in the same run

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None when there is none."""
        if self.target is None:
            return None
        return self.value >= self.target if self.better == "higher" else self.value <= self.target


class Report(DomainType):
    """One benchmark's figures."""

    name: str
    title: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def machine() -> dict[str, JsonValue]:
    """What it was measured on, and how busy that was."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "load": [round(one, 1) for one in os.getloadavg()],
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def show(report: Report, console: Console | None = None) -> None:
    """Print the table."""
    table = Table(title=report.title)
    table.add_column("figure")
    for name in ("value", "target", ""):
        table.add_column(name, justify="right")
    for row in report.rows:
        sign = {"higher": "≥", "lower": "≤"}[row.better]
        target = "" if row.target is None else f"{sign} {row.target:g}"
        verdict = {None: "", True: "yes", False: "NO"}[row.met]
        name = f"[dim]{row.name}[/dim]" if row.baseline else row.name
        table.add_row(name, f"{row.value:,.4g} {row.unit}", target, verdict)
    (console or Console()).print(table)
    for note in report.notes:
        (console or Console()).print(f"  {note}")


def write(report: Report, folder: Path) -> Path:
    """Write the JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    path.write_text(json.dumps({"machine": machine(), **report.model_dump()}, indent=2) + "\n")
    return path


def finish(report: Report, folder: Path | None, say: Callable[[str], None]) -> None:
    """Show it, and write it when a folder is given."""
    show(report)
    if folder is not None:
        say(f"written to {write(report, folder)}")
