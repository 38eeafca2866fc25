"""The step that writes: when it begins, what holds it back, and what is taken back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Unpack

import pytest

from graph.domain import (
    Answer,
    AnswerKind,
    Check,
    Decision,
    FixPlan,
    Outcome,
    Role,
    Step,
    Verdict,
    Verification,
)
from graph.routing import after_fix
from graph.state import HealState
from nodes.choosing import choose
from nodes.deps import Control
from nodes.fix import fix
from nodes.monitor import monitor
from tests.factories import Clock, make_diagnosis, make_snapshot
from tests.unit.fix_world import CONTRACT, NEW_TEXT, OLD_TEXT, SETTINGS, clear, failed_airflow, make_fix
from tests.unit.node_world import KnownRecords, make_deps, make_incident, run_node
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec
from tools.ledger import MemoryLedger
from tools.policy_rules import Policy, Rule

AUTO = Policy(version=1, rules=(Rule(name="all", verdict=Verdict.AUTO),))
ASKING = Policy(version=1, rules=(Rule(name="ask", verdict=Verdict.ASK),))
ADMINS = Policy(version=1, rules=(Rule(name="admins", verdict=Verdict.ASK, approvers=Role.ADMIN),))
NEVER = Policy(version=1, rules=(Rule(name="frozen", verdict=Verdict.NEVER, reason="not this week"),))
CLEAR = make_fix(clear())
PAUSED = KnownRecords(switches=Control(paused=True))


@pytest.fixture
async def airflow() -> MemoryAirflow:
    return await failed_airflow()


async def state_of(airflow: MemoryAirflow, **given: Unpack[HealState]) -> HealState:
    state: HealState = {
        "incident": make_incident(),
        "failure": await airflow.task(make_incident().task),
        "diagnosis": make_diagnosis(),
        "plan": CLEAR,
        "decision": Decision(verdict=Verdict.AUTO, rule="all", reasons=()),
    }
    return {**state, **given}


async def fixed(
    airflow: MemoryAirflow, clock: Clock, *, deps: dict[str, Any] | None = None, **state: Any
) -> HealState:
    """What the node found; it may not wait."""
    made = make_deps(airflow, clock, **{"policy": AUTO, **(deps or {})})
    step = await run_node(fix, await state_of(airflow, **state), made)
    assert step.waits is None, step.waits
    return step.found


async def test_what_is_allowed_is_done(airflow: MemoryAirflow, clock: Clock) -> None:
    found = await fixed(airflow, clock, attempt=1)

    assert (found["applied"], found["attempt"]) == (True, 2)
    assert found["watch_until"] is None
    assert [write.verb for write in airflow.writes] == ["clear"]


async def test_without_a_plan_nothing_is_done(airflow: MemoryAirflow, clock: Clock) -> None:
    assert (await fixed(airflow, clock, plan=None))["applied"] is False
    assert airflow.writes == []


# --- its time ---------------------------------------------------------------------------------------------


async def test_before_its_time_it_waits(airflow: MemoryAirflow, clock: Clock) -> None:
    plan = make_fix(
        SETTINGS["pool"].model_copy(update={"name": "wait", "target": {}, "args": {"seconds": 60}})
    )
    due = clock() + timedelta(seconds=60)

    step = await run_node(fix, await state_of(airflow, plan=plan, due=due), make_deps(airflow, clock))

    assert step.waits == {"status": "waiting_timer", "until": due.isoformat()}


async def test_a_clock_that_was_put_back_does_not_lengthen_the_wait(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    found = await fixed(airflow, clock, due=clock() + timedelta(hours=3))

    assert found["due"] == clock()
    assert found["applied"] is False
    assert airflow.writes == []


# --- policy, asked again ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("deps", "words"),
    [
        pytest.param({"policy": NEVER}, "withheld by frozen: not this week", id="policy forbids it now"),
        pytest.param({"records": PAUSED}, "withheld by kill switch: Airmedic is paused", id="it is paused"),
        pytest.param(
            {"records": KnownRecords(switches=Control(shadow=True))},
            "shadow mode was switched on before the fix began; nothing was touched",
            id="shadow mode",
        ),
    ],
)
@pytest.mark.parametrize("approved_by", ["", "ada"])
async def test_what_is_forbidden_by_now_is_withheld(
    airflow: MemoryAirflow, clock: Clock, deps: dict[str, Any], words: str, approved_by: str
) -> None:
    found = await fixed(airflow, clock, deps=deps, approved_by=approved_by, approved_role=Role.ADMIN)

    assert found["plan"] is None
    assert found["reason"] == words
    assert airflow.writes == []


@pytest.mark.parametrize(
    ("policy", "given", "done"),
    [
        pytest.param(ASKING, {}, False, id="nobody approved"),
        pytest.param(ASKING, {"approved_by": "ada"}, True, id="an operator did"),
        pytest.param(ADMINS, {"approved_by": "ada"}, False, id="an operator did, and it takes an admin now"),
        pytest.param(ADMINS, {"approved_by": "ada", "approved_role": Role.ADMIN}, True, id="an admin did"),
        pytest.param(ASKING, {"approved_role": Role.ADMIN}, False, id="a role is nobody"),
    ],
)
async def test_what_is_to_be_asked_about_needs_who_may(
    airflow: MemoryAirflow, clock: Clock, policy: Policy, given: dict[str, Any], done: bool
) -> None:
    found = await fixed(airflow, clock, deps={"policy": policy}, **given)

    assert found.get("applied", False) is done
    assert found.get("asked", False) is not done
    assert bool(airflow.writes) is done
    if not done:
        assert found["approved_by"] == ""


# --- what stops it half way -------------------------------------------------------------------------------


async def test_a_world_that_moved_is_not_written_to(airflow: MemoryAirflow, clock: Clock) -> None:
    then = make_snapshot(try_number=7, end=None)

    found = await fixed(airflow, clock, failure=then)

    assert found["undo"]
    assert "was failed on try 7" in found["stale"]
    assert airflow.writes == []


async def test_the_kill_switch_holds_what_was_begun(airflow: MemoryAirflow, clock: Clock) -> None:
    """And when it is looked at again, nothing counts as applied that was not."""
    ledger = MemoryLedger(1)
    await ledger.intend(1, 0, CLEAR.actions[0], None)
    deps = make_deps(airflow, clock, policy=AUTO, ledger=ledger, records=PAUSED)
    state = await state_of(airflow)

    step = await run_node(fix, state, deps)
    later = await run_node(fix, state, deps, answer=Answer(kind=AnswerKind.EXPIRED, by="the clock"))

    assert step.waits is not None
    assert step.waits["status"] == "waiting_timer"
    assert later.found == {"applied": False}
    assert airflow.writes == []


# --- taking back ------------------------------------------------------------------------------------------


async def applied(airflow: MemoryAirflow, clock: Clock, plan: FixPlan) -> MemoryLedger:
    """The plan's first attempt stands in Airflow and in the ledger."""
    ledger = MemoryLedger(1)
    found = await fixed(airflow, clock, deps={"ledger": ledger}, plan=plan)
    assert found["applied"]
    return ledger


FAILED_CHECK = Verification(
    outcome=Outcome.NOT_HEALED, checks=(Check(name="rows", ok=False, detail="60 rows"),)
)


async def test_what_did_not_help_is_taken_back(airflow: MemoryAirflow, clock: Clock) -> None:
    plan = make_fix(SETTINGS["contract"])
    ledger = await applied(airflow, clock, plan)
    assert airflow.stored_variable(CONTRACT) == NEW_TEXT

    found = await fixed(
        airflow, clock, deps={"ledger": ledger}, plan=plan, undo=True, attempt=1, spent=["older"]
    )

    assert airflow.stored_variable(CONTRACT) == OLD_TEXT
    assert found["spent"] == ["older", plan.id]
    assert found["taken_back"]
    assert found["stale"] == "the plan did not help and was taken back"
    assert [entry.step for entry in await ledger.entries()] == [Step.UNDONE]


async def test_what_somebody_else_changed_since_is_left_to_a_person(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    plan = make_fix(SETTINGS["contract"])
    ledger = await applied(airflow, clock, plan)
    with airflow.by_someone_else():
        await airflow.set_variable(CONTRACT, "{}")

    found = await fixed(airflow, clock, deps={"ledger": ledger}, plan=plan, undo=True, attempt=1)

    assert found["outcome"] is Outcome.ESCALATED
    assert "could not be taken back" in found["reason"]
    assert airflow.stored_variable(CONTRACT) == "{}"


async def test_the_kill_switch_holds_taking_back_too(airflow: MemoryAirflow, clock: Clock) -> None:
    plan = make_fix(SETTINGS["contract"])
    ledger = await applied(airflow, clock, plan)
    deps = make_deps(airflow, clock, ledger=ledger, records=PAUSED)

    step = await run_node(fix, await state_of(airflow, plan=plan, undo=True, attempt=1), deps)

    assert step.waits is not None
    assert airflow.stored_variable(CONTRACT) == NEW_TEXT


async def test_a_plan_that_changed_nothing_leaves_nothing_to_take_back(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    """The kill switch does not hold what writes nothing."""
    found = await fixed(
        airflow, clock, deps={"records": PAUSED}, undo=True, attempt=1, verification=FAILED_CHECK
    )

    assert not found["taken_back"]
    assert found["stale"] == "the plan did not help"
    assert found["plan"] is None


@pytest.mark.parametrize("stale", ["", "the task instance is gone"])
async def test_of_a_run_that_was_deleted_what_was_changed_is_taken_back(
    airflow: MemoryAirflow, clock: Clock, stale: str
) -> None:
    """And it is looked at afresh, as whatever else moved."""
    plan = make_fix(SETTINGS["contract"])
    ledger = await applied(airflow, clock, plan)
    state = await state_of(airflow, plan=plan, undo=True, attempt=1, stale=stale)
    airflow.delete_dag("orders")

    step = await run_node(fix, state, make_deps(airflow, clock, ledger=ledger))

    assert airflow.stored_variable(CONTRACT) == OLD_TEXT
    assert step.found["stale"]
    assert step.found["plan"] is None
    assert after_fix({**state, **step.found}) == "monitor"


async def test_a_green_task_with_bad_data_is_a_person_s(clock: Clock) -> None:
    airflow = await failed_airflow(auto=True)
    plan = make_fix(SETTINGS["contract"], clear())
    ledger = await applied(airflow, clock, plan)
    await airflow.settle()

    found = await fixed(
        airflow,
        clock,
        deps={"ledger": ledger},
        plan=plan,
        undo=True,
        attempt=1,
        stale="",
        verification=FAILED_CHECK,
    )

    assert found["outcome"] is Outcome.ESCALATED
    assert found["reason"] == "the task is green and its run or data are not: 60 rows"
    assert airflow.stored_variable(CONTRACT) == OLD_TEXT


@pytest.mark.parametrize("approved", [False, True], ids=["decided before", "approved before"])
async def test_a_dag_that_was_paused_since_is_asked_about(
    airflow: MemoryAirflow, clock: Clock, approved: bool
) -> None:
    await airflow.set_paused("orders", paused=True)
    airflow.writes.clear()

    found = await fixed(airflow, clock, approved_by="ada" if approved else "")

    assert (found["asked"], found["approved_by"]) == (True, "")
    assert found["decision"] is not None
    assert "the DAG is paused" in str(found["decision"].reasons)
    assert airflow.writes == []


async def test_a_clear_of_a_paused_dag_goes_when_that_was_approved(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    await airflow.set_paused("orders", paused=True)
    asked = (await fixed(airflow, clock))["decision"]

    found = await fixed(airflow, clock, decision=asked, approved_by="ada")

    assert found["applied"]


async def test_a_run_that_was_marked_as_success_since_is_not_opened_again(
    airflow: MemoryAirflow, clock: Clock
) -> None:
    airflow.mark_run("orders", "manual__1", "success")

    found = await fixed(airflow, clock)

    assert "somebody marked the run as success" in found["stale"]
    assert airflow.writes == []


async def test_a_dag_that_was_deleted_since_is_looked_at_afresh(airflow: MemoryAirflow, clock: Clock) -> None:
    state = await state_of(airflow)
    airflow.delete_dag("orders")

    step = await run_node(fix, state, make_deps(airflow, clock, policy=AUTO))
    again = await run_node(monitor, {"incident": make_incident()}, make_deps(airflow, clock))

    assert step.found["stale"]
    assert not step.found["applied"]
    assert airflow.writes == []
    assert again.found["outcome"] is Outcome.DISMISSED


@pytest.mark.parametrize(
    ("stale", "words"),
    [
        pytest.param(False, "has no task", id="the task was removed or renamed"),
        pytest.param(True, "is gone or does not load", id="the file went"),
    ],
)
async def test_what_the_dag_cannot_run_any_more_is_not_cleared(
    airflow: MemoryAirflow, clock: Clock, stale: bool, words: str
) -> None:
    if stale:
        airflow.change_dag("orders", is_stale=True)
    else:
        airflow.add_dag("orders", [TaskSpec("load_new")], tags=["airmedic:rerun-safe"])

    found = await fixed(airflow, clock)
    next_plan = await choose(
        make_deps(airflow, clock, policy=AUTO),
        failure=await airflow.task(make_incident().task),
        diagnosis=make_diagnosis(),
        state=await state_of(airflow),
    )

    assert words in found["stale"]
    assert airflow.writes == []
    assert next_plan["plan"] is None
    assert words in str(next_plan["checklist"])
    assert words in next_plan["reason"]
