"""Signatures: same failure, same key, whatever the values."""

from __future__ import annotations

import pytest

from graph.domain import RootCause, TaskRef
from tools.signature import signature, template

LOAD = TaskRef(dag_id="orders", run_id="r1", task_id="load")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        pytest.param("row 17 is bad", "row 99,000 is bad", id="numbers"),
        pytest.param("at 2026-03-02T04:10:01Z", "at 2025-01-01 00:00", id="times"),
        pytest.param("job 3f2a9c1b44d0 lost", "job a91bc02277ff lost", id="hex ids"),
        pytest.param("open /data/a/b.csv failed", "open /data/2026/x/y.csv failed", id="paths"),
        pytest.param("connect 10.0.0.1: refused", "connect 192.168.7.12: refused", id="addresses"),
        pytest.param("bad\n  thing", "bad thing", id="space"),
    ],
)
def test_values_do_not_matter(one: str, other: str) -> None:
    assert template(one) == template(other)


def test_words_matter() -> None:
    assert template("column 'email' is gone") != template("column 'salary' is gone")


def test_where_and_what_matter_the_run_does_not() -> None:
    error = "KeyError: 'email'"
    key = signature(RootCause.SCHEMA_DRIFT, error, LOAD)
    assert key == signature(RootCause.SCHEMA_DRIFT, error, LOAD.model_copy(update={"run_id": "r2"}))
    assert key != signature(RootCause.SCHEMA_DRIFT, error, LOAD.model_copy(update={"task_id": "fetch"}))
    assert key != signature(RootCause.CODE_ERROR, error, LOAD)
