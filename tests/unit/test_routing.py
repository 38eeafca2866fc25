"""Which node comes next."""

from __future__ import annotations

import pytest

from graph.domain import Decision, Outcome, Verdict
from graph.routing import after_diagnose, after_fix, after_human, after_monitor, after_verify
from graph.state import HealState
from tests.factories import make_plan

ALLOWED = Decision(verdict=Verdict.AUTO, rule="r", reasons=("because",))
SHADOW = ALLOWED.model_copy(update={"shadow": True})
READY: HealState = {"plan": make_plan(), "decision": ALLOWED, "asked": False}
ENDED: HealState = {"outcome": Outcome.ESCALATED}


@pytest.mark.parametrize(
    ("state", "node"),
    [
        pytest.param({"intervene": False}, "monitor", id="Airflow still works on it"),
        pytest.param({"intervene": True}, "diagnose", id="a final failure"),
        pytest.param({"outcome": Outcome.SELF_RECOVERED}, "__end__", id="it repaired itself"),
    ],
)
def test_after_monitor(state: HealState, node: str) -> None:
    assert after_monitor(state) == node


@pytest.mark.parametrize(
    ("state", "node"),
    [
        pytest.param(READY, "fix", id="policy allows the plan"),
        pytest.param({**READY, "asked": True}, "human", id="policy asks"),
        pytest.param({**READY, "decision": SHADOW}, "human", id="shadow mode touches nothing"),
        pytest.param({**READY, "plan": None}, "human", id="no plan"),
        pytest.param({}, "human", id="nothing known is never fixed"),
    ],
)
def test_after_diagnose(state: HealState, node: str) -> None:
    assert after_diagnose(state) == node


@pytest.mark.parametrize(
    ("state", "node"),
    [
        pytest.param(READY, "fix", id="approved"),
        pytest.param({**READY, "stale": "someone cleared it"}, "monitor", id="the world moved"),
        pytest.param({"plan": None, "rethink": True}, "diagnose", id="a person said something"),
        pytest.param({"plan": None}, "human", id="rejected and no other plan"),
        pytest.param({**READY, "asked": True}, "human", id="another plan to ask about"),
        pytest.param({**READY, **ENDED}, "__end__", id="expired never runs"),
    ],
)
def test_after_human(state: HealState, node: str) -> None:
    assert after_human(state) == node


@pytest.mark.parametrize(
    ("state", "node"),
    [
        pytest.param({**READY, "applied": True}, "verify", id="applied"),
        pytest.param({**READY, "undo": True, "applied": True}, "fix", id="to be taken back"),
        pytest.param({"plan": None, "stale": "taken back"}, "monitor", id="look afresh"),
        pytest.param(READY, "fix", id="its time has not come"),
        pytest.param({**READY, "asked": True}, "human", id="policy changed its mind to ask"),
        pytest.param({"plan": None}, "human", id="policy withheld it"),
        pytest.param(ENDED, "__end__", id="undo was blocked"),
    ],
)
def test_after_fix(state: HealState, node: str) -> None:
    assert after_fix(state) == node


@pytest.mark.parametrize(
    ("state", "node"),
    [
        pytest.param({"applied": True}, "verify", id="still moving"),
        pytest.param({"stale": "more map indexes failed"}, "monitor", id="what was left over"),
        pytest.param({"applied": True, "undo": True}, "fix", id="did not help"),
        pytest.param({"outcome": Outcome.HEALED}, "__end__", id="healed"),
    ],
)
def test_after_verify(state: HealState, node: str) -> None:
    assert after_verify(state) == node
