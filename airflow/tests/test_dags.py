"""The DAG files load in the Airflow that is locked here and say of themselves what Airmedic relies on."""

from __future__ import annotations

import importlib
from datetime import timedelta
from pathlib import Path

import employees_sql
import pytest
from employees_transform import transform

BENCH_DAGS = Path(__file__).parents[1] / "bench_dags"


@pytest.fixture(scope="module")
def pipeline():
    return importlib.import_module("self_healing_pipeline").self_healing_pipeline()


def test_the_pipeline_is_a_line_of_four_tasks(pipeline):
    order = {task.task_id: task.downstream_task_ids for task in pipeline.tasks}

    assert order == {"fetch": {"validate"}, "validate": {"transform"}, "transform": {"load"}, "load": set()}


def test_the_tags_declare_rerun_safety_the_contract_and_the_producer(pipeline):
    assert set(pipeline.tags) == {
        "airmedic:rerun-safe",
        "airmedic:contract=airmedic_contract_employees",
        "airmedic:upstream=employees_feed",
    }


def test_only_fetch_and_load_are_retried_by_airflow(pipeline):
    assert {task.task_id: task.retries for task in pipeline.tasks} == {
        "fetch": 1,
        "validate": 0,
        "transform": 0,
        "load": 1,
    }
    assert pipeline.get_task("load").retry_delay == timedelta(seconds=3)


def test_the_feed_loads():
    feed = importlib.import_module("employees_feed").employees_feed()

    assert [task.task_id for task in feed.tasks] == ["publish_departments"]


def test_the_bench_dag_that_runs_by_the_clock_makes_up_for_nothing_by_itself(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH_DAGS / "scheduled"))

    dag = importlib.import_module("employees_intervals").employees_intervals()

    assert [task.task_id for task in dag.tasks] == ["load"]
    assert (dag.schedule, dag.catchup, dag.tags) == ("* * * * * */15", False, {"airmedic:rerun-safe"})


def test_transform_spells_out_departments_and_keeps_unknown_codes():
    row = {
        "id": 1,
        "name": " Ada ",
        "email": "ADA@example.com",
        "department": "D1",
        "salary": 5,
        "hired_on": None,
    }

    done = transform([row, {**row, "department": "D9"}], {"D1": "Finance"})

    assert [(r["name"], r["email"], r["department"]) for r in done] == [
        ("Ada", "ada@example.com", "Finance"),
        ("Ada", "ada@example.com", "D9"),
    ]


def test_the_sql_parts_name_the_same_columns():
    for column in ("run_id", "id", "name", "email", "department", "salary", "hired_on"):
        assert column in employees_sql.CREATE
        assert f":{column}" in employees_sql.INSERT
