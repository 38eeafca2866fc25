"""What memory makes of people's words."""

from __future__ import annotations

from typing import Any

import pytest

from graph.domain import DiagnosedBy, Remediation, RootCause, TaskLog
from tests.factories import make_diagnosis
from tools.diagnosis import Case
from tools.memory import Remembered, Remembering

KNOWN = make_diagnosis(signature="s1", confidence=0.6)


class Fixed:
    """Knowledge and memory that say the same every time."""

    def __init__(self, remembered: Remembered | None) -> None:
        self.remembered = remembered

    async def diagnose(self, case: Case) -> Any:
        return KNOWN

    async def recall(self, signature: str) -> Remembered | None:
        return self.remembered


def remembered(**given: Any) -> Remembered:
    base = {"incident_id": 7, "diagnosis": KNOWN, "healed": 2, "failed": 0, "last_failed": False}
    return Remembered(**{**base, **given})


@pytest.mark.parametrize(
    ("given", "good"),
    [
        pytest.param({}, True, id="it healed"),
        pytest.param({"wrong": 2}, False, id="people said it was wrong as often"),
        pytest.param({"wrong": 2, "right": 1}, True, id="right more often"),
        pytest.param({"healed": 0, "right": 3}, False, id="words alone heal nothing"),
        pytest.param({"corrected": RootCause.TIMEOUT}, False, id="corrected"),
    ],
)
def test_trust(given: dict[str, Any], good: bool) -> None:
    assert remembered(**given).good is good


def test_words_move_the_confidence_like_outcomes() -> None:
    assert remembered(right=1).confidence > remembered().confidence > remembered(wrong=1).confidence


async def test_a_correction_is_answered_with_and_starts_no_fix() -> None:
    mind = Fixed(remembered(corrected=RootCause.RATE_LIMITED, corrected_by="ada", wrong=1))

    found = await Remembering(mind, mind).diagnose(Case(log=TaskLog(text="x")))

    assert (found.root_cause, found.by) == (RootCause.RATE_LIMITED, DiagnosedBy.PERSON)
    assert (found.transient, found.remediation) == (False, Remediation.ESCALATE)
    assert found.ruled_out[-1].root_cause is KNOWN.root_cause
    assert found.evidence == KNOWN.evidence
    assert "ada" in found.summary


async def test_a_correction_that_knowledge_shares_makes_it_surer() -> None:
    mind = Fixed(remembered(corrected=KNOWN.root_cause, corrected_by="ada", wrong=1))

    found = await Remembering(mind, mind).diagnose(Case(log=TaskLog(text="x")))

    assert found.root_cause is KNOWN.root_cause
    assert found.confidence > KNOWN.confidence
    assert found.remediation is KNOWN.remediation


async def test_what_was_told_from_memory_is_told_once_again() -> None:
    told = KNOWN
    for incident in (7, 8, 9):
        mind = Fixed(remembered(incident_id=incident, diagnosis=told))
        told = await Remembering(mind, mind).diagnose(Case(log=TaskLog(text="x")))

    assert told.summary == f"{KNOWN.summary} (seen before: incident 9, healed 2 times)"
