"""What the bench has done, on disk: a second run goes on where the first one stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from statistics import median

from evals.faults.catalogue import FaultRow
from evals.faults.results import Result, read_results

# Seconds the long ones took when nothing was known of this machine yet; all others take about half a minute.
LONG = {"F37": 230, "F36": 130, "F48": 120, "F47": 110, "F42": 90, "F41": 65, "F20": 50, "F04": 46}
USUAL = 20.0


class Notebook:
    """What the bench knows from before, and what it finds. One process writes it."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._results = home / "results.jsonl"
        self._symptoms = home / "symptoms.json"

    def results(self) -> list[Result]:
        """Every result, the newest of each repetition."""
        return read_results(self._results)

    def done(self) -> set[tuple[str, int]]:
        """Fault and repetition of what was played to its end."""
        return {(one.fault, one.repetition) for one in self.results() if not one.failed}

    def add(self, result: Result) -> None:
        """Keep a result; what was written before stays."""
        with self._results.open("a", encoding="utf-8") as file:
            file.write(f"{result.model_dump_json()}\n")

    def shown(self) -> dict[str, str]:
        """The faults whose symptom was seen with Airmedic off, and when."""
        return dict(json.loads(self._symptoms.read_text())) if self._symptoms.exists() else {}

    def note_symptom(self, fault: str, at: datetime) -> None:
        """It showed."""
        self._symptoms.write_text(json.dumps({**self.shown(), fault: at.isoformat()}, indent=2))

    def seconds(self) -> dict[str, float]:
        """How long each fault takes, as far as it is known."""
        known: dict[str, list[float]] = {}
        for one in self.results():
            known.setdefault(one.fault, []).append(one.total)
        return {**LONG, **{fault: median(every) for fault, every in known.items()}}


def forget(home: Path, rows: Sequence[FaultRow]) -> None:
    """Drop the earlier results of these faults; their symptom proofs stay."""
    path = home / "results.jsonl"
    gone = {row.id for row in rows}
    kept = [one for one in read_results(path) if one.fault not in gone]
    if path.exists():
        path.write_text("".join(f"{one.model_dump_json()}\n" for one in kept), "utf-8")
