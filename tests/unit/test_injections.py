"""The bench's own parts without an Airflow: catalogue, what faults do to files and source, the oracle."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from evals.faults.airflow_admin import AirflowAdmin, BenchFailed
from evals.faults.catalogue import CATALOGUE, DataCheck, Mode, causes
from evals.faults.injections import INJECTIONS
from evals.faults.oracle import DataVerdict, LoadedRow, expected_row, judge
from evals.faults.world import GOOD_CONTRACT, Layout, World
from server.demo.source import EMPLOYEES, SourceFaults, SourceServer, SourceState

SOURCE_FAULTS = ("F03", "F04", "F05", "F06", "F10", "F11", "F12", "F13", "F14", "F16", "F19", "F20")
CODE_FAULTS = ("F25", "F26", "F27", "F28", "F29", "F31", "F32", "F33")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A world whose Airflow is never asked for anything but the contract's Variable."""

    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/api/v2/variables"
        return httpx.Response(201, json={})

    airflow = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://airflow")
    async with SourceServer(SourceState()) as source, airflow:
        layout = Layout(tmp_path).make()
        (layout.files / "pids").mkdir()
        yield World(layout, source, AirflowAdmin(airflow), tmp_path / "logs")


# --- the catalogue ----------------------------------------------------------------------------------------


def test_the_catalogue_has_every_fault_once() -> None:
    assert set(CATALOGUE) == {f"F{number:02d}" for number in range(1, 50)}


def test_every_injection_is_a_fault_of_the_catalogue() -> None:
    assert set(INJECTIONS) <= set(CATALOGUE)


@pytest.mark.parametrize("row", CATALOGUE.values(), ids=CATALOGUE)
def test_a_row_is_consistent(row: object) -> None:
    row = CATALOGUE[str(getattr(row, "id", ""))]

    assert row.mode is not Mode.ESCALATE or not row.actions
    assert not row.on or row.on in CATALOGUE
    assert causes(row) or row.mode is Mode.NOTHING
    assert row.mode not in (Mode.AUTO, Mode.ASK) or row.actions or row.on


# --- what faults do ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", SOURCE_FAULTS)
async def test_a_fault_of_the_source_comes_and_goes(world: World, number: str) -> None:
    await INJECTIONS[number].inject(world)
    wrong = world.source.state.faults
    await INJECTIONS[number].lift(world)

    assert wrong != SourceFaults()
    assert world.source.state.faults == SourceFaults()


@pytest.mark.parametrize("number", CODE_FAULTS)
async def test_a_fault_of_the_code_changes_one_file_of_the_copy_and_goes(world: World, number: str) -> None:
    before = {path.name: path.read_text() for path in world.layout.dags.glob("*.py")}
    await INJECTIONS[number].inject(world)
    broken = {path.name: path.read_text() for path in world.layout.dags.glob("*.py")}
    await INJECTIONS[number].lift(world)

    assert sum(before[name] != broken[name] for name in before) == 1
    assert before == {path.name: path.read_text() for path in world.layout.dags.glob("*.py")}


async def test_a_closed_source_refuses_until_the_fault_is_lifted(world: World) -> None:
    await INJECTIONS["F01"].inject(world)
    refused = not world.source.running
    await INJECTIONS["F01"].lift(world)

    assert refused
    assert world.source.running


async def test_a_locked_warehouse_lets_nobody_write(world: World) -> None:
    await INJECTIONS["F23"].inject(world)
    with (
        closing(sqlite3.connect(world.layout.warehouse, timeout=0.05)) as other,
        pytest.raises(sqlite3.OperationalError, match="locked"),
    ):
        other.execute("CREATE TABLE t (x)")
    await INJECTIONS["F23"].lift(world)

    load(world.layout, "run", [])


def test_the_contract_names_what_the_source_sends() -> None:
    assert list(GOOD_CONTRACT["columns"]) == list(LoadedRow._fields)


# --- the oracle -------------------------------------------------------------------------------------------


def load(layout: Layout, run_id: str, loaded: list[LoadedRow]) -> None:
    layout.files.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(layout.warehouse)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS employees (run_id, id, name, email, department, salary, hired_on)"
        )
        database.executemany(
            "INSERT INTO employees VALUES (?, ?, ?, ?, ?, ?, ?)", [(run_id, *row) for row in loaded]
        )


def all_rows() -> list[LoadedRow]:
    return [expected_row(number) for number in range(1, EMPLOYEES + 1)]


@pytest.mark.parametrize(
    ("loaded", "check", "differences"),
    [
        pytest.param(all_rows(), DataCheck.ALL_ROWS, (), id="all rows once"),
        pytest.param([], DataCheck.UNCHANGED, (), id="nothing where nothing must be"),
        pytest.param(
            [*all_rows(), expected_row(7)],
            DataCheck.ALL_ROWS,
            ("key 7 is there 2 times", "salaries sum to 7847900.0, not 7762000.0"),
            id="a row loaded twice",
        ),
        pytest.param(
            all_rows()[:-1],
            DataCheck.ALL_ROWS,
            ("key 120 is missing", "salaries sum to 7678000.0, not 7762000.0"),
            id="a row lost",
        ),
        pytest.param(
            [expected_row(1)._replace(email=None), *all_rows()[1:]],  # type: ignore[arg-type]
            DataCheck.ALL_ROWS,
            ("key 1: email differs",),
            id="an e-mail lost",
        ),
        pytest.param(
            [expected_row(1)],
            DataCheck.UNCHANGED,
            ("key 1 should not be there", "salaries sum to 53700.0, not 0"),
            id="a row of a run that must have none",
        ),
        pytest.param(
            [expected_row(1)._replace(salary="53,700"), *all_rows()[1:]],  # type: ignore[arg-type]
            DataCheck.ALL_ROWS,
            ("key 1: salary differs", "salaries are not numbers"),
            id="a salary loaded as text",
        ),
    ],
)
def test_the_oracle_sees_at_the_warehouse(
    tmp_path: Path, loaded: list[LoadedRow], check: DataCheck, differences: tuple[str, ...]
) -> None:
    layout = Layout(tmp_path)
    load(layout, "this", loaded)
    load(layout, "another", all_rows())

    verdict = judge(layout, "this", check)

    assert verdict.differences == differences
    assert verdict.agrees is not bool(differences)
    assert verdict.found == len(loaded)


def test_a_warehouse_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert astuple(judge(Layout(tmp_path), "run", DataCheck.UNCHANGED)) == (True, 0, 0, ())


def test_good_rows_are_loaded_and_bad_rows_kept(tmp_path: Path) -> None:
    layout, faults = Layout(tmp_path), SourceFaults(lacking="email", lacking_fraction=0.02)
    load(layout, "run", [row for row in all_rows() if row.id not in (50, 100)])

    lost = judge(layout, "run", DataCheck.GOOD_ROWS, faults)
    kept = layout.run_file("run", "quarantined")
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps([{}, {}]))

    assert lost == DataVerdict(False, 118, 118, ("0 bad rows are kept, not 2",))
    assert judge(layout, "run", DataCheck.GOOD_ROWS, faults).agrees


def test_the_oracle_does_not_judge_what_it_cannot_see(tmp_path: Path) -> None:
    with pytest.raises(BenchFailed, match="which intervals were missed"):
        judge(Layout(tmp_path), "run", DataCheck.EACH_INTERVAL)


@pytest.mark.parametrize(
    ("seconds", "differences"),
    [
        pytest.param((0, 15, 30, 45, 60), (), id="each interval once"),
        pytest.param((0, 15, 45), ("interval 00:00:30 is there 0 times",), id="a missed one stays missing"),
        pytest.param((0, 15, 30, 30, 45), ("interval 00:00:30 is there 2 times",), id="loaded twice"),
        pytest.param((0, 15, 30, 60), ("interval 00:00:45 is there 0 times",), id="another one was lost"),
    ],
)
def test_each_interval_is_there_once(
    tmp_path: Path, seconds: tuple[int, ...], differences: tuple[str, ...]
) -> None:
    layout = Layout(tmp_path).make()
    start = datetime(2026, 1, 1, tzinfo=UTC)
    ticks = [(start + timedelta(seconds=one)).isoformat() for one in seconds]
    missed = [(start + timedelta(seconds=one)).isoformat() for one in (15, 30)]
    layout.missed.write_text(json.dumps({"missed": missed, "every": 15}))
    with closing(sqlite3.connect(layout.warehouse)) as database, database:
        database.execute("CREATE TABLE intervals (interval TEXT, run_id TEXT, rows INTEGER)")
        database.executemany("INSERT INTO intervals VALUES (?, 'r', 120)", [(one,) for one in ticks])

    verdict = judge(layout, "", DataCheck.EACH_INTERVAL)

    assert verdict.differences == differences
    assert verdict.agrees is not bool(differences)
