"""The step that waits for people: what is asked, and what follows from each answer."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Unpack

import pytest

from graph.domain import (
    Action,
    Answer,
    AnswerKind,
    Decision,
    FixPlan,
    Group,
    Note,
    Outcome,
    Role,
    Step,
    Verdict,
)
from graph.state import HealState
from nodes.deps import Control
from nodes.human import human, moved_between
from tests.factories import Clock, make_diagnosis, make_plan, make_snapshot
from tests.unit.fix_world import SETTINGS, failed_airflow, make_fix, set_contract
from tests.unit.node_world import KnownRecords, make_deps, make_incident, run_node
from tests.unit.policy_cases import make_retry
from tools.airflow_memory import MemoryAirflow
from tools.ledger import MemoryLedger
from tools.policy import PAUSED
from tools.policy_rules import Policy, Rule

ASKING = Policy(version=1, rules=(Rule(name="ask", verdict=Verdict.ASK),))
ADMINS = Policy(version=1, rules=(Rule(name="admins", verdict=Verdict.ASK, approvers=Role.ADMIN),))
NEVER = Policy(version=1, rules=(Rule(name="frozen", verdict=Verdict.NEVER, reason="not this week"),))
EMPTY = Action(name="set_variable", target={"key": "orders_path", "base": None})  # a person gives the value


def asked(**given: Any) -> Decision:
    return Decision(**{"verdict": Verdict.ASK, "rule": "ask", "reasons": ("because",), **given})


def answer(kind: AnswerKind = AnswerKind.APPROVE, **given: Any) -> Answer:
    return Answer(**{"kind": kind, "by": "ada", **given})


@pytest.fixture
async def airflow() -> MemoryAirflow:
    return await failed_airflow()


async def state_of(airflow: MemoryAirflow, **given: Unpack[HealState]) -> HealState:
    state: HealState = {
        "incident": make_incident(),
        "failure": await airflow.task(make_incident().task),
        "diagnosis": make_diagnosis(),
        "plan": make_retry(),
        "decision": asked(),
        "asked": True,
    }
    return {**state, **given}


# --- before anybody is asked ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param({"plan": None}, "no plan that policy allows", id="no plan"),
        pytest.param({"decision": None}, "no plan that policy allows", id="no decision"),
        pytest.param({"plan": None, "reason": "rejected by ada"}, "rejected by ada", id="no plan, and why"),
        pytest.param(
            {"decision": asked(shadow=True)},
            "shadow mode: decided and recorded, nothing touched; the plan was: retry",
            id="shadow mode",
        ),
    ],
)
async def test_without_a_question_a_person_has_it(
    airflow: MemoryAirflow, clock: Clock, given: dict[str, Any], reason: str
) -> None:
    step = await run_node(human, await state_of(airflow, **given), make_deps(airflow, clock))

    assert step.waits is None
    assert (step.found["outcome"], step.found["reason"]) == (Outcome.ESCALATED, reason)


async def test_the_question_names_the_plan_and_ends_in_time(airflow: MemoryAirflow, clock: Clock) -> None:
    deps = make_deps(airflow, clock)

    step = await run_node(human, await state_of(airflow), deps)

    assert step.waits is not None
    assert step.waits["status"] == "waiting_decision"
    assert step.waits["until"] == (clock() + deps.limits.approval_timeout).isoformat()
    assert step.waits["question"]["plan_id"] == make_retry().id
    assert airflow.writes == []


# --- what follows from an answer --------------------------------------------------------------------------


async def answered(
    airflow: MemoryAirflow, clock: Clock, given: Answer, *, deps: dict[str, Any] | None = None, **state: Any
) -> HealState:
    made = make_deps(airflow, clock, **{"policy": ASKING, **(deps or {})})
    step = await run_node(human, await state_of(airflow, **state), made, answer=given)
    assert airflow.writes == []  # a person's word is carried out by another node
    return step.found


async def test_an_approval_is_bound_to_who_gave_it(airflow: MemoryAirflow, clock: Clock) -> None:
    group = Group(members=3, upto=17)

    found = await answered(airflow, clock, answer(role=Role.ADMIN), group=group)

    assert (found["asked"], found["approved_by"], found["approved_role"]) == (False, "ada", Role.ADMIN)
    assert found["plan"] == make_retry()
    assert found["due"] == clock() + timedelta(seconds=20)  # the plan's own wait counts from the approval
    assert (found["group"].approved_upto, found["group"].approved_by) == (17, "ada")


async def test_nobody_answered(airflow: MemoryAirflow, clock: Clock) -> None:
    found = await answered(airflow, clock, answer(AnswerKind.EXPIRED))

    assert found["outcome"] is Outcome.EXPIRED


async def test_a_question_about_members_that_was_opened_again_is_asked_again(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    """Nobody declined."""
    state = await state_of(airflow, release="ask", group=Group(asked=3))

    step = await run_node(human, state, make_deps(airflow, clock), answer=answer(AnswerKind.STALE))

    assert step.found["release"] == "ask"


async def test_words_are_evidence_and_approve_nothing(airflow: MemoryAirflow, clock: Clock) -> None:
    before = [Note(by="bob", text="since the move")]

    found = await answered(
        airflow, clock, answer(AnswerKind.RESPOND, message="the disk is full"), notes=before
    )

    assert found["notes"] == [*before, Note(by="ada", text="the disk is full")]
    assert found["rethink"]
    assert found["plan"] is None
    assert "approved_by" not in found


async def test_a_rejected_plan_is_spent(airflow: MemoryAirflow, clock: Clock) -> None:
    found = await answered(airflow, clock, answer(AnswerKind.REJECT, message="not now"), spent=["older"])

    assert found["spent"] == ["older", make_retry().id]
    assert found["reason"] == "rejected by ada: not now"


async def test_a_rejection_needs_no_words(airflow: MemoryAirflow, clock: Clock) -> None:
    assert (await answered(airflow, clock, answer(AnswerKind.REJECT)))["reason"] == "rejected by ada"


@pytest.mark.parametrize(
    ("given", "state", "words"),
    [
        pytest.param(
            answer(plan_id="another"), {}, f"for another plan than {make_retry().id}", id="for another plan"
        ),
        pytest.param(answer(AnswerKind.STALE, message="it runs"), {}, "it runs", id="the clock says so"),
        pytest.param(answer(AnswerKind.STALE), {}, "the world moved", id="nobody says why"),
        pytest.param(
            answer(),
            {"failure": make_snapshot(try_number=9, end=None)},
            "was failed on try 9 and is failed on try 1",
            id="another try",
        ),
    ],
)
async def test_an_answer_to_what_is_over_is_for_nothing(
    airflow: MemoryAirflow, clock: Clock, given: Answer, state: dict[str, Any], words: str
) -> None:
    found = await answered(airflow, clock, given, **state)

    assert found["plan"] is None
    assert not found["asked"]
    assert words in found["stale"]
    assert "approved_by" not in found


async def test_a_task_instance_that_is_gone_is_not_acted_on(airflow: MemoryAirflow, clock: Clock) -> None:
    gone = make_snapshot(task=make_incident().task.model_copy(update={"run_id": "deleted"}))

    assert (await answered(airflow, clock, answer(), failure=gone))["stale"] == "the task instance is gone"


@pytest.mark.parametrize("role", [Role.VIEWER, Role.OPERATOR])
async def test_the_rule_that_holds_now_says_who_may(airflow: MemoryAirflow, clock: Clock, role: Role) -> None:
    """The question was for operators; the policy has become stricter since."""
    found = await answered(airflow, clock, answer(role=role), deps={"policy": ADMINS})

    assert found["asked"]
    assert found["approved_by"] == ""
    assert found["decision"] is not None
    assert found["decision"].approvers is Role.ADMIN
    assert found["reason"] == f"admins asks for admin; ada is {role.value}"


async def test_a_dag_paused_since_the_question_is_asked_about_once_more(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    await airflow.set_paused("orders", paused=True)
    deps = make_deps(airflow, clock)

    step = await run_node(human, await state_of(airflow), deps, answer=answer())
    told = await run_node(human, await state_of(airflow, **step.found), deps, answer=answer())

    assert step.found["asked"]
    assert (again := step.found["decision"]) is not None
    assert f"the DAG {PAUSED}" in again.reasons
    assert not step.found["approved_by"]
    assert told.found["approved_by"] == "ada"


async def test_what_the_dag_cannot_run_any_more_is_looked_at_afresh(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    airflow.change_dag("orders", is_stale=True)

    found = await answered(airflow, clock, answer())

    assert found["plan"] is None
    assert "is gone or does not load" in found["stale"]


@pytest.mark.parametrize(
    ("deps", "words"),
    [
        pytest.param({"policy": NEVER}, "(frozen): not this week", id="the policy has changed"),
        pytest.param(
            {"records": KnownRecords(switches=Control(paused=True))}, "(kill switch)", id="it is paused"
        ),
    ],
)
async def test_what_policy_forbids_by_now_is_not_done(
    airflow: MemoryAirflow, clock: Clock, deps: dict[str, Any], words: str
) -> None:
    found = await answered(airflow, clock, answer(role=Role.ADMIN), deps=deps)

    assert found["outcome"] is Outcome.ESCALATED
    assert found["plan"] is None
    assert words in found["reason"]


@pytest.mark.parametrize(
    ("plan", "given", "words"),
    [
        pytest.param(
            make_fix(SETTINGS["pool"]),
            answer(AnswerKind.EDIT, args=({"slots": "many"},)),
            "the edit was refused",
            id="a value of another type",
        ),
        pytest.param(
            make_fix(SETTINGS["pool"]),
            answer(AnswerKind.EDIT, args=({"slots": 1}, {"slots": 2})),
            "the edit was refused",
            id="more objects than actions",
        ),
        pytest.param(
            make_fix(EMPTY), answer(), "a person must give set_variable.value", id="what must be given is not"
        ),
        pytest.param(
            make_fix(set_contract()),
            answer(AnswerKind.EDIT, args=({"value": '{"password": "***"}'},)),
            "the edit was refused",
            id="a masked value",
        ),
    ],
)
async def test_an_edit_that_cannot_be_is_asked_again(
    airflow: MemoryAirflow, clock: Clock, plan: FixPlan, given: Answer, words: str
) -> None:
    found = await answered(airflow, clock, given, plan=plan)

    assert found["asked"]
    assert words in found["reason"]
    assert "approved_by" not in found


async def test_an_edit_is_what_is_approved(airflow: MemoryAirflow, clock: Clock) -> None:
    edit = answer(AnswerKind.EDIT, args=({"slots": 7},))

    found = await answered(airflow, clock, edit, plan=make_fix(SETTINGS["pool"]))

    assert found["plan"] is not None
    assert found["plan"].actions[0].args == {"slots": 7}
    assert found["plan"].summary.endswith("(edited: slots)")
    assert found["plan"].actions[0].target == SETTINGS["pool"].target
    assert found["approved_by"] == "ada"


@pytest.mark.parametrize(
    ("step", "goes_on"),
    [
        pytest.param(Step.SENT, True, id="a write was sent"),
        pytest.param(Step.INTENT, False, id="nothing was sent"),
    ],
)
async def test_an_answer_that_was_acted_on_is_not_withdrawn(
    airflow: MemoryAirflow, clock: Clock, step: Step, goes_on: bool
) -> None:
    """The process that took it up died; the task has moved because of what it did."""
    ledger = MemoryLedger(1)
    entry = await ledger.intend(3, 0, make_retry().actions[1], None)
    if step is Step.SENT:
        await ledger.advance(entry, step)
    moved = make_snapshot(try_number=9, end=None)

    found = await answered(airflow, clock, answer(), deps={"ledger": ledger}, failure=moved, attempt=2)

    assert (found.get("approved_by") == "ada") is goes_on
    assert bool(found.get("plan")) is goes_on


# --- did the world move -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "words"),
    [
        pytest.param({}, "", id="nothing moved"),
        pytest.param({"state": "running"}, "is running on try 1", id="another state"),
        pytest.param({"try_number": 2}, "is failed on try 2", id="another try"),
        pytest.param({"dag_version": 4}, "the DAG went from version 3 to 4", id="another version of the DAG"),
        pytest.param({"note": "looked at", "hostname": "b"}, "", id="a note is no move"),
    ],
)
def test_what_counts_as_a_move(now: dict[str, Any], words: str) -> None:
    then = make_snapshot(dag_version=3)
    told = moved_between(then, then.model_copy(update=now))

    assert (words in told) if words else told == ""


def test_what_is_asked_for_anew_is_a_new_plan() -> None:
    assert make_plan().id == make_plan().id
    assert make_plan(request=1).id != make_plan(request=2).id != make_plan().id
