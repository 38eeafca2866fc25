"""Each benchmark runs, small, to its end, and says what it is for. Its figures are for a quiet machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evals.benchmarks.report import Report

pytestmark = pytest.mark.timeout(300)

AIRMEDIC = str(Path(sys.executable).with_name("airmedic"))


def bench(name: str, folder: Path, *options: str) -> Report:
    """What a benchmark wrote."""
    command = [AIRMEDIC, "bench", name, "--report", str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "index.html").exists()
    (file,) = (one for one in folder.glob("*.json") if one.name.count(".") == 1)
    found = json.loads(file.read_text())
    assert found.pop("machine")["cores"]
    return Report.model_validate(found)


def figure(report: Report, name: str) -> float:
    """The row of this name."""
    (found,) = (row.value for row in report.rows if row.name == name)
    return found


def test_heal_is_measured_beside_bare_graphs(tmp_path: Path) -> None:
    found = bench("heal", tmp_path, "--count", "5")

    assert sum(row.baseline for row in found.rows) >= 4
    assert 0 < figure(found, "stored for a closed incident") < 100


def test_heal_on_postgres(tmp_path: Path, new_database: Callable[[str], str]) -> None:
    found = bench("heal-postgres", tmp_path, "--count", "5", "--postgres", new_database("postgres"))

    assert figure(found, "of the stock saver") > 0


def test_what_intake_accepted_is_there_after_the_kill(tmp_path: Path) -> None:
    found = bench("ingest", tmp_path, "--count", "200")

    assert figure(found, "lost after kill -9") == 0
    assert figure(found, "FastAPI, nothing stored") > 0


def test_each_failure_of_the_open_loop_is_diagnosed(tmp_path: Path) -> None:
    found = bench("latency", tmp_path, "--rate", "5", "--seconds", "4")

    assert figure(found, "not diagnosed") == 0


def test_incidents_wait_for_people(tmp_path: Path) -> None:
    found = bench("parked", tmp_path, "--count", "200", "--answers", "20")

    assert all(row.value >= 0 for row in found.rows if row.unit == "ms")


def test_one_worker_and_two(tmp_path: Path, new_database: Callable[[str], str]) -> None:
    found = bench("workers", tmp_path, "--count", "10", "--postgres", new_database("postgres"))

    assert figure(found, "two of one") > 0
    assert figure(found, "tasks cleared twice") == 0


def test_what_a_worker_held_is_taken_over_on_a_database_of_the_run(tmp_path: Path) -> None:
    found = bench("takeover", tmp_path, "--rounds", "1")

    assert figure(found, "after SIGKILL, median") > 0
    assert figure(found, "tasks cleared twice") == 0


def test_a_storm_is_one_incident(tmp_path: Path) -> None:
    found = bench("storm", tmp_path, "--count", "300", "--seconds", "3", "--patience", "200")

    assert figure(found, "incidents") == 1
    assert figure(found, "lost") == 0


def test_an_idle_server(tmp_path: Path) -> None:
    found = bench("idle", tmp_path, "--seconds", "2")

    assert 0 < figure(found, "memory") < 1000


def test_a_profile_says_whose_time_it_is(tmp_path: Path) -> None:
    found = bench("profile", tmp_path, "--incidents", "20", "--events", "400")

    for of in ("healing", "event", "bare endpoint"):
        parts = [row for row in found.rows if row.name.startswith(f"{of}: ")]
        (whole,) = (row.value for row in parts if row.name.endswith(": all"))
        assert whole * 0.9 < sum(row.value for row in parts) - whole <= whole * 1.001
    assert figure(found, "bare endpoint: FastAPI and Starlette") > 0


def test_one_that_does_not_exist_is_said_to(tmp_path: Path) -> None:
    command = [AIRMEDIC, "bench", "speed", "--report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 2
    assert "no benchmark 'speed'" in done.stderr


@pytest.mark.parametrize(
    ("name", "options", "row"),
    [
        pytest.param("list", ("--incidents", "1000", "--rounds", "20"), "slowest question, p99", id="list"),
        pytest.param("scan", (), "100 kB log, median", id="scan"),
        pytest.param("redaction", ("--megabytes", "1"), "redaction: a secret in 20 lines", id="redaction"),
    ],
)
def test_what_is_read_and_asked(tmp_path: Path, name: str, options: tuple[str, ...], row: str) -> None:
    assert figure(bench(name, tmp_path, *options), row) > 0
