"""Airflow 3's own log files: JSON lines are read as Airflow prints them, and counted as they lie there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graph.domain import Diagnosis, RootCause
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase
from tools.log_file import read_log


def line(event: str, level: str = "info", **more: Any) -> str:
    return json.dumps({"timestamp": "2026-03-01T03:00:00Z", "level": level, "event": event, **more})


def raised(kind: str, value: str) -> list[dict[str, Any]]:
    frames = [{"filename": "/opt/airflow/dags/orders.py", "lineno": 12, "name": "load"}]
    return [{"exc_type": kind, "exc_value": value, "frames": frames, "exc_notes": []}]


FAILED = "Task failed with exception"


def diagnosed(*lines: str) -> Diagnosis:
    given = read_log("\n".join(lines) + "\n")
    return given.counted(KnowledgeBase.load().diagnose(Case(log=given.log)))


def test_an_exception_in_a_field_is_found_and_counted_at_its_line() -> None:
    found = diagnosed(
        line("reading 3 pages"),
        "",
        line(FAILED, "error", error_detail=raised("psycopg.errors.UniqueViolation", "duplicate key value")),
    )

    assert found.root_cause is RootCause.CONSTRAINT_VIOLATION
    assert found.evidence[0].line == 3
    assert found.evidence[0].text.startswith("psycopg.errors.UniqueViolation")
    assert found.location is not None
    assert found.location.line == 12


def test_secrets_go_on_both_ways() -> None:
    given = read_log(line("password=hunter2secret", error_detail=raised("E", "password=hunter2secret")))

    assert "hunter2secret" not in given.log.text
    assert "hunter2secret" not in str(given.log.content)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("[2026-03-01] INFO - hello\nKeyError: 'x'\n", id="text"),
        pytest.param('{"a": 1}\n{"b": 2}\n', id="other JSON"),
        pytest.param('{"event": "x"}\n' * 3, id="no time"),
        pytest.param("[" * 100_000, id="too deep"),
        pytest.param('{"event": ' + "[" * 5000 + "\n", id="cut off"),
    ],
)
def test_everything_else_stands_as_it_is(text: str) -> None:
    given = read_log(text)

    assert given.log.text == text
    assert given.numbers == ()


def test_a_line_among_them_that_is_no_message_is_kept() -> None:
    given = read_log("\n".join([line("one"), line("two"), line("three"), line("four"), "Killed"]))

    assert given.log.text.split("\n")[-1] == "Killed"
    assert given.numbers == (1, 2, 3, 4, 5)


def test_an_event_of_many_lines_counts_as_one() -> None:
    given = read_log("\n".join([line("one\ntwo"), line("three")]))

    assert given.numbers == (1, 1, 2)


def test_words_about_lines_count_as_well() -> None:
    found = diagnosed(
        line("a\nb\nc"),
        line("ConnectionRefusedError: [Errno 111] Connection refused", "error"),
        line(FAILED, "error", error_detail=raised("KeyError", "'id'")),
    )

    assert found.root_cause is RootCause.NETWORK_UNREACHABLE
    assert all("line 3" in one.why for one in found.ruled_out)


def test_a_printed_line_does_not_speak_for_the_exception_that_was_raised() -> None:
    """A retry without a person does not rest on what a task, or a stranger through it, has printed."""
    printed = "ConnectionError: [Errno 111] Connection refused"
    forged = [FAILED, "Traceback (most recent call last):", '  File "x.py", line 1, in x', printed]
    failed = line(FAILED, "error", error_detail=raised("KeyError", "'customer_id'"))

    for said in ([printed], forged):
        found = diagnosed(line("got 120 customers"), *(line(one) for one in said), failed)
        assert not found.transient or found.disputed is RootCause.CODE_ERROR


def test_an_exception_that_says_it_itself_is_not_disputed() -> None:
    found = diagnosed(
        line("connecting"),
        line(FAILED, "error", error_detail=raised("ConnectionError", "Connection refused")),
    )

    assert found.transient
    assert found.disputed is None
