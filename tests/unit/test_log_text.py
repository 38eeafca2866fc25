"""Structured logs as text."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from tools.log_text import render

STAMP = "2026-01-01T00:00:00.5Z"


def link(kind: str, value: str, *, cause: bool = False) -> dict[str, JsonValue]:
    frames: list[JsonValue] = [{"filename": "/dags/a.py", "lineno": 7, "name": "load"}]
    return {"exc_type": kind, "exc_value": value, "exc_notes": [], "is_cause": cause, "frames": frames}


@pytest.mark.parametrize(
    ("message", "text"),
    [
        pytest.param({"event": "::endgroup::"}, "::endgroup::", id="no time: the event alone"),
        pytest.param(
            {"timestamp": STAMP, "level": "error", "event": "Task failed", "logger": "task"},
            f"[{STAMP}] ERROR - Task failed",
            id="time, level, event",
        ),
        pytest.param({"timestamp": STAMP, "event": ""}, f"[{STAMP}] INFO -", id="no event: no space after"),
        pytest.param({"timestamp": STAMP, "event": "a "}, f"[{STAMP}] INFO - a ", id="spaces of it are kept"),
        pytest.param(
            {"timestamp": STAMP, "event": "a\nb"}, f"[{STAMP}] INFO - a\nb", id="lines of it are kept"
        ),
        pytest.param({"timestamp": None, "event": "x"}, "x", id="no time at all"),
        pytest.param({"timestamp": 5, "level": 3, "event": 7}, "[5] 3 - 7", id="numbers for texts"),
        pytest.param({}, "", id="nothing"),
        pytest.param("a plain line", "a plain line", id="a string for a message"),
        pytest.param(None, "", id="null for a message"),
        pytest.param(["x"], "['x']", id="a list for a message"),
        pytest.param({"event": "e", "error_detail": "boom"}, "e", id="a detail that is no list"),
        pytest.param({"event": "e", "error_detail": ["boom", None]}, "e", id="links that are no objects"),
        pytest.param({"event": "e", "error_detail": [{}]}, "e\n: ", id="an empty link"),
        pytest.param(
            {"event": "e", "error_detail": [{"exc_type": "E", "exc_value": "v", "frames": []}]},
            "e\nE: v",
            id="no frames: no traceback line",
        ),
    ],
)
def test_a_message(message: JsonValue, text: str) -> None:
    assert render([message]) == text


def test_a_chain_of_exceptions_in_airflows_order() -> None:
    detail: list[JsonValue] = [link("SyncError", "no session"), link("KeyError", "'token'", cause=True)]

    assert render([{"event": "e", "error_detail": detail}]).splitlines() == [
        "e",
        "Traceback (most recent call last):",
        '  File "/dags/a.py", line 7, in load',
        "SyncError: no session",
        "Traceback (most recent call last):",
        '  File "/dags/a.py", line 7, in load',
        "KeyError: 'token'",
    ]


def test_notes_of_an_exception_follow_it() -> None:
    detail: list[JsonValue] = [{**link("E", "v"), "exc_notes": ["try the other door"]}]

    assert render([{"event": "e", "error_detail": detail}]).endswith("E: v\ntry the other door")


def test_no_messages_are_no_text() -> None:
    assert render([]) == ""
