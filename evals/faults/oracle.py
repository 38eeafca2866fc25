"""Judges a run by the destination alone: reads the warehouse file, knows what the source had, asks nobody.

What must be there is computed here from the source's generator, not by the pipeline's code and not from
anything Airmedic says.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from evals.faults.airflow_admin import BenchFailed
from evals.faults.catalogue import DataCheck
from evals.faults.world import SHARDS_SETTING, Layout
from server.demo.source import DEPARTMENTS, SourceFaults, employee, healthy_rows, rows

COLUMNS = "id, name, email, department, salary, hired_on"
SHOWN = 5  # differences quoted
MAPPED = 200  # map indexes of the bench's mapped task, unless the setting says otherwise


class LoadedRow(NamedTuple):
    """One row of the warehouse."""

    id: int
    name: str
    email: str
    department: str
    salary: float
    hired_on: str


@dataclass(frozen=True)
class DataVerdict:
    """What the destination says of one run."""

    agrees: bool
    expected: int  #: rows
    found: int  #: rows
    differences: tuple[str, ...] = ()


def expected_row(number: int) -> LoadedRow:
    """What the warehouse must hold of one employee."""
    given = employee(number)
    return LoadedRow(
        id=number,
        name=str(given["name"]),
        email=str(given["email"]),
        department=DEPARTMENTS[str(given["department"])],
        salary=float(str(given["salary"])),
        hired_on=str(given["hired_on"]),
    )


def expected_rows(check: DataCheck, faults: SourceFaults) -> list[LoadedRow]:
    """The rows a run must have loaded, given what the source sent."""
    if check is DataCheck.UNCHANGED:
        return []
    numbers = [int(str(row["id"])) for row in healthy_rows()]
    if check is DataCheck.GOOD_ROWS and faults.lacking:
        bad = {int(str(row["id"])) for row in rows(faults) if row.get(faults.lacking) is None}
        numbers = [number for number in numbers if number not in bad]
    return [expected_row(number) for number in numbers]


@contextmanager
def reading(warehouse: Path) -> Iterator[sqlite3.Connection]:
    """The warehouse, not to be changed. Raises `BenchFailed` when it cannot be read."""
    try:
        with closing(sqlite3.connect(f"file:{warehouse}?mode=ro", uri=True)) as database:
            yield database
    except sqlite3.Error as exc:
        raise BenchFailed(f"the warehouse cannot be read: {exc}") from exc


def loaded_rows(warehouse: Path, run_id: str) -> list[LoadedRow]:
    """What the warehouse holds of one run; nothing when there is no table yet."""
    if not warehouse.exists():
        return []
    with reading(warehouse) as database:
        table = database.execute("SELECT 1 FROM sqlite_master WHERE name = 'employees'").fetchone()
        if table is None:
            return []
        found = database.execute(f"SELECT {COLUMNS} FROM employees WHERE run_id = ? ORDER BY id", (run_id,))
        return [LoadedRow(*row) for row in found]


def judge(layout: Layout, run_id: str, check: DataCheck, faults: SourceFaults | None = None) -> DataVerdict:
    """Compare a run's rows with what the source had. `faults` is what the source sent when it was read."""
    faults = faults or SourceFaults()
    if check is DataCheck.NOTHING:
        return DataVerdict(agrees=True, expected=0, found=0)
    if check is DataCheck.EACH_INDEX:
        return judge_shards(layout.warehouse, run_id)
    if check is DataCheck.NO_ENRICHMENT:
        return judge_enriched(layout.warehouse, run_id)
    if check is DataCheck.EACH_INTERVAL:
        return judge_intervals(layout)
    if check not in (DataCheck.ALL_ROWS, DataCheck.GOOD_ROWS, DataCheck.UNCHANGED):
        raise BenchFailed(f"the demo pipeline has no data for the check {check.value!r}")
    expected = expected_rows(check, faults)
    found = loaded_rows(layout.warehouse, run_id)
    differences = [*_repeated(found), *_differing(expected, found), *_sum_differs(expected, found)]
    if check is DataCheck.GOOD_ROWS:
        differences += _not_kept(layout.run_file(run_id, "quarantined"), len(rows(faults)) - len(expected))
    return DataVerdict(not differences, len(expected), len(found), tuple(differences[:SHOWN]))


def judge_shards(warehouse: Path, run_id: str, *, shards: int | None = None) -> DataVerdict:
    """Each map index's row is there once."""
    expected = shards or int(os.environ.get(SHARDS_SETTING) or MAPPED)
    found = _column(warehouse, "SELECT shard FROM shards WHERE run_id = ?", run_id)
    counts = Counter(found)
    wrong = [f"shard {n} is there {counts[n]} times" for n in range(expected) if counts[n] != 1]
    wrong += [f"shard {n} should not be there" for n in counts if n not in range(expected)]
    return DataVerdict(not wrong, expected, len(found), tuple(wrong[:SHOWN]))


def judge_intervals(layout: Layout) -> DataVerdict:
    """Each interval from the first that was loaded to the last, the missed ones among them, is there once."""
    if not layout.missed.exists():
        raise BenchFailed("nobody noted which intervals were missed")
    noted = json.loads(layout.missed.read_text())
    missed, every = (
        [datetime.fromisoformat(one) for one in noted["missed"]],
        timedelta(seconds=noted["every"]),
    )
    counts = Counter(datetime.fromisoformat(one) for one in _texts(layout.warehouse, "interval", "intervals"))
    first, last = min([*counts, *missed]), max([*counts, *missed])
    expected = [first + every * number for number in range(round((last - first) / every) + 1)]
    wrong = [f"interval {at:%H:%M:%S} is there {counts[at]} times" for at in expected if counts[at] != 1]
    wrong += [f"interval {at.isoformat()} is none of the schedule" for at in counts if at not in expected]
    return DataVerdict(not wrong, len(expected), counts.total(), tuple(wrong[:SHOWN]))


def judge_enriched(warehouse: Path, run_id: str) -> DataVerdict:
    """Every employee is there once, without a rating."""
    wanted = [int(str(row["id"])) for row in healthy_rows()]
    found = _column(warehouse, "SELECT id FROM enriched WHERE run_id = ?", run_id)
    rated = _column(warehouse, "SELECT id FROM enriched WHERE run_id = ? AND rating IS NOT NULL", run_id)
    wrong = [] if sorted(found) == sorted(wanted) else [f"{len(found)} rows, not {len(wanted)} once each"]
    wrong += [f"{len(rated)} rows are rated"] if rated else []
    return DataVerdict(not wrong, len(wanted), len(found), tuple(wrong))


def _column(warehouse: Path, query: str, run_id: str) -> list[int]:
    """The numbers of one run; none when there is no such table yet."""
    if not warehouse.exists():
        return []
    with reading(warehouse) as database:
        table = query.split()[3]
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return []
        return [int(value) for (value,) in database.execute(query, (run_id,))]


def _texts(warehouse: Path, column: str, table: str) -> list[str]:
    """A column of every run; nothing when there is no such table yet."""
    if not warehouse.exists():
        return []
    with reading(warehouse) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (table,)).fetchone():
            return []
        return [str(value) for (value,) in database.execute(f"SELECT {column} FROM {table}")]


def _repeated(found: Iterable[LoadedRow]) -> list[str]:
    counts = Counter(row.id for row in found)
    return [f"key {key} is there {count} times" for key, count in counts.items() if count > 1]


def _differing(expected: list[LoadedRow], found: list[LoadedRow]) -> list[str]:
    wanted, there = {row.id: row for row in expected}, {row.id: row for row in found}
    lost = [f"key {key} is missing" for key in wanted.keys() - there.keys()]
    foreign = [f"key {key} should not be there" for key in there.keys() - wanted.keys()]
    changed = [
        f"key {key}: {name} differs"
        for key in wanted.keys() & there.keys()
        for name, right, value in zip(LoadedRow._fields, wanted[key], there[key], strict=True)
        if right != value
    ]
    return sorted(lost) + sorted(foreign) + sorted(changed)


def _sum_differs(expected: list[LoadedRow], found: list[LoadedRow]) -> list[str]:
    right = sum(row.salary for row in expected)
    try:
        there = sum(row.salary for row in found)
    except TypeError:
        return ["salaries are not numbers"]
    return [] if right == there else [f"salaries sum to {there}, not {right}"]


def _not_kept(quarantine: Path, bad: int) -> list[str]:
    kept = len(json.loads(quarantine.read_text())) if quarantine.exists() else 0
    return [] if kept == bad else [f"{kept} bad rows are kept, not {bad}"]
