"""The agent log in words: each line says its own, once, and one with values missing is told all the same."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from pydantic import JsonValue

from server.telling import TITLES, duration, sentence, title

Data = Mapping[str, JsonValue]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        pytest.param(
            "intervened",
            {"severity": "high", "try_number": 2},
            "Airflow will not retry, try 2 was the last; severity high",
            id="why it is taken up",
        ),
        pytest.param(
            "decided",
            {"verdict": "auto", "rule": "r", "wait": 20.0, "plan": "clear 'load'"},
            "to be done without asking, by rule r, after 20 s: clear 'load'",
            id="a wait is told",
        ),
        pytest.param(
            "decided",
            {"verdict": "auto", "rule": "r", "wait": 20.0, "plan": "after 20 s, clear 'load'"},
            "to be done without asking, by rule r: after 20 s, clear 'load'",
            id="a wait that the plan names itself is told once",
        ),
        pytest.param(
            "decided",
            {"verdict": "ask", "rule": "r", "plan": "p", "shadow": True},
            "a person is asked, by rule r (shadow mode: nothing is touched): p",
            id="shadow mode is said",
        ),
        pytest.param(
            "diagnosed",
            {"root_cause": "lock_contention", "confidence": 0.93, "summary": "two wait for each other"},
            "Lock contention, 93% sure: two wait for each other",
            id="a cause with its confidence",
        ),
        pytest.param(
            "answered", {"kind": "approve", "by": "ada"}, "approved by ada", id="an answer without words"
        ),
    ],
)
def test_a_line_is_one_sentence(name: str, data: Data, words: str) -> None:
    assert sentence(name, data) == words


@pytest.mark.parametrize("name", [*TITLES, "written_by_a_newer_version"])
def test_a_line_with_nothing_in_it_is_told(name: str) -> None:
    assert title(name)
    assert "None" not in sentence(name, {})


@pytest.mark.parametrize(
    ("seconds", "words"), [(1.25, "1.25 s"), (89, "89 s"), (90, "2 min"), (7200, "2 h"), (259_200, "3 days")]
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds).replace(".0", "") == words
