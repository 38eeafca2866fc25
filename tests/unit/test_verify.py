"""The step that judges: what it waits for, when it gives up, and when healed is said."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import JsonValue

from graph.domain import Action, FixPlan, Outcome, RootCause, TaskRef
from graph.state import HealState
from nodes.deps import Limits
from nodes.verify import LOOK_AGAIN, LOST_AFTER, verify
from tests.factories import Clock, make_clear, make_diagnosis, make_task
from tests.unit.fix_world import make_fix
from tests.unit.node_world import KnownRecords, make_deps, make_incident, run_node
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try

RUN = "manual__1"
MOMENT = timedelta(seconds=1)
REPORT: dict[str, JsonValue] = {"airmedic_report": {"rows_out": 10, "rows_expected": 10}}
GOOD = Try(xcom=REPORT)
LESS = Try(xcom={"airmedic_report": {"rows_out": 6, "rows_expected": 10}})
CLEAR = make_fix(make_clear())
LIMITS = Limits(watch_window=timedelta(hours=2), outcome_timeout=timedelta(hours=24))


async def cleared(clock: Clock, *tries: Try, **dag: Any) -> tuple[MemoryAirflow, HealState]:
    """`load` failed and was cleared; what it does on its second try is told."""
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", [Try("failed"), *tries])], **dag)
    return airflow, await cleared_in(airflow, clock)


async def cleared_in(airflow: MemoryAirflow, clock: Clock) -> HealState:
    """The same, of a DAG that is there."""
    airflow.start("orders", RUN)
    await airflow.settle()
    failure = await airflow.task(make_task())
    await airflow.clear("orders", RUN, [make_task()], dry_run=False)
    return {
        "incident": make_incident(),
        "failure": failure,
        "diagnosis": make_diagnosis(),
        "plan": CLEAR,
        "applied": True,
        "applied_at": clock(),
        "watch_until": None,
        "attempt": 1,
    }


async def judged(airflow: MemoryAirflow, clock: Clock, state: HealState, **deps: Any) -> HealState:
    """What the node found; it may not wait."""
    step = await run_node(verify, state, make_deps(airflow, clock, limits=LIMITS, **deps))
    assert step.waits is None, step.waits
    return step.found


async def awaited(airflow: MemoryAirflow, clock: Clock, state: HealState) -> dict[str, Any]:
    """What the node waits for; it may find nothing."""
    step = await run_node(verify, state, make_deps(airflow, clock, limits=LIMITS))
    assert step.waits is not None, step.found
    return step.waits


async def test_a_task_that_runs_is_waited_for(clock: Clock) -> None:
    airflow, state = await cleared(clock, Try("running"))
    await airflow.settle()

    waits = await awaited(airflow, clock, state)

    assert waits == {"status": "waiting_outcome", "until": (clock() + LOOK_AGAIN).isoformat()}


async def test_a_task_that_runs_for_ever_goes_to_people(clock: Clock) -> None:
    airflow, state = await cleared(clock, Try("running"))
    await airflow.settle()
    clock.now = state["applied_at"] + LIMITS.outcome_timeout
    assert await awaited(airflow, clock, state)

    clock.now += MOMENT
    found = await judged(airflow, clock, state)

    assert found["outcome"] is Outcome.ESCALATED
    assert "has not ended within" in found["reason"]


async def test_a_task_that_is_well_is_not_said_to_run_for_ever(clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock)
    load = TaskSpec("load", [Try("failed"), GOOD], downstream=("publish",))
    airflow.add_dag("orders", [load, TaskSpec("publish", [Try("running")])])
    state = await cleared_in(airflow, clock)
    await airflow.settle()
    clock.now = state["applied_at"] + LIMITS.outcome_timeout + MOMENT

    found = await judged(airflow, clock, state)

    assert found["outcome"] is Outcome.ESCALATED
    assert found["reason"].startswith("the task succeeded, and what runs with it or after it has not ended")


@pytest.mark.parametrize(
    ("after", "lost"),
    [
        pytest.param(LOST_AFTER, False, id="Airflow may be about to start it"),
        pytest.param(LOST_AFTER + MOMENT, True, id="it never will"),
    ],
)
async def test_a_clear_that_the_end_of_its_run_swallowed(clock: Clock, after: timedelta, lost: bool) -> None:
    airflow, state = await cleared(clock, GOOD)
    airflow.lose_clear(make_task())
    clock.now = state["applied_at"] + after

    step = await run_node(verify, state, make_deps(airflow, clock, limits=LIMITS))

    assert (step.found.get("outcome") is Outcome.ESCALATED) is lost
    assert (step.waits is None) is lost
    if lost:
        assert "clear it once more" in step.found["reason"]


async def test_a_cleared_task_whose_run_goes_on_is_waited_for(clock: Clock) -> None:
    """It may have to wait for the tasks before it."""
    airflow, state = await cleared(clock, GOOD)
    clock.now = state["applied_at"] + LOST_AFTER + MOMENT

    assert (await awaited(airflow, clock, state))["status"] == "waiting_outcome"


@pytest.mark.parametrize(
    "second",
    [pytest.param(Try("failed"), id="failed again"), pytest.param(LESS, id="green, rows are missing")],
)
async def test_what_did_not_help_is_to_be_taken_back(clock: Clock, second: Try) -> None:
    airflow, state = await cleared(clock, second)
    await airflow.settle()

    found = await judged(airflow, clock, state)

    assert found["undo"]
    assert "outcome" not in found


async def test_a_map_index_that_failed_since_needs_a_plan_of_its_own(clock: Clock) -> None:
    def ends(task: TaskRef, number: int) -> Try:
        return GOOD if task.map_index == 0 and number == 2 else Try("failed")

    first, second = make_task(map_index=0), make_task(map_index=1)
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", ends, map_indexes=(0, 1))])
    airflow.start("orders", RUN)
    await airflow.settle()
    failure = await airflow.task(first)
    await airflow.clear("orders", RUN, [first], dry_run=False)
    await airflow.settle()
    state: HealState = {
        "incident": make_incident(task=first),
        "failure": failure,
        "diagnosis": make_diagnosis(),
        "plan": make_fix(make_clear(first)),
        "applied_at": clock(),
    }

    found = await judged(airflow, clock, state, records=KnownRecords(of_incident=(first, second)))

    assert found["plan"] is None
    assert found["stale"] == "more map indexes failed"
    assert "outcome" not in found


# --- the watch --------------------------------------------------------------------------------------------


async def healed(clock: Clock, **dag: Any) -> tuple[MemoryAirflow, HealState]:
    airflow, state = await cleared(clock, GOOD, **dag)
    await airflow.settle()
    return airflow, state


async def test_healed_is_not_said_before_the_watch(clock: Clock) -> None:
    airflow, state = await healed(clock)

    found = await judged(airflow, clock, state)

    assert found["watch_until"] == clock() + LIMITS.watch_window
    assert found["verification"].outcome is Outcome.HEALED
    assert "outcome" not in found


@pytest.mark.parametrize(
    ("every", "ends"),
    [
        pytest.param(timedelta(hours=1), timedelta(hours=1), id="with the next run of the schedule"),
        pytest.param(timedelta(days=1), LIMITS.watch_window, id="or with its window, if that is sooner"),
        pytest.param(-timedelta(hours=1), LIMITS.watch_window, id="a run that is overdue ends nothing"),
    ],
)
async def test_the_watch_has_an_end(clock: Clock, every: timedelta, ends: timedelta) -> None:
    airflow, state = await healed(clock, schedule=every)
    airflow.start("orders", "scheduled__1", run_type="scheduled", logical_date=clock())

    found = await judged(airflow, clock, state)

    assert found["watch_until"] == clock() + ends


async def test_while_it_lasts_it_is_waited_for(clock: Clock) -> None:
    airflow, state = await healed(clock)
    until = clock() + timedelta(hours=1)

    waits = await awaited(airflow, clock, {**state, "watch_until": until})

    assert waits == {"status": "waiting_outcome", "until": until.isoformat()}


async def test_a_clock_that_was_put_back_does_not_lengthen_it(clock: Clock) -> None:
    airflow, state = await healed(clock)

    found = await judged(airflow, clock, {**state, "watch_until": clock() + timedelta(days=9)})

    assert found["watch_until"] == clock() + LIMITS.watch_window
    assert "outcome" not in found


async def failed_again(clock: Clock, ends: Try) -> tuple[MemoryAirflow, HealState]:
    """`load` failed, was cleared and is well; the next run of it has ended like this."""
    turns = iter([Try("failed"), GOOD, ends])
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", lambda _task, _number: next(turns))])
    airflow.start("orders", RUN)
    await airflow.settle()
    failure = await airflow.task(make_task())
    await airflow.clear("orders", RUN, [make_task()], dry_run=False)
    await airflow.settle()
    applied_at = clock()
    clock.forward(60)
    airflow.start("orders", "manual__2")
    await airflow.settle()
    clock.forward(60)
    state: HealState = {
        "incident": make_incident(),
        "failure": failure,
        "diagnosis": make_diagnosis(),
        "plan": CLEAR,
        "applied_at": applied_at,
        "watch_until": clock(),
    }
    return airflow, state


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        pytest.param(GOOD, Outcome.HEALED, id="the next run is well"),
        pytest.param(Try("failed"), Outcome.ESCALATED, id="the next run fails as well"),
    ],
)
async def test_what_comes_again_is_not_healed(clock: Clock, ends: Try, outcome: Outcome) -> None:
    airflow, state = await failed_again(clock, ends)

    found = await judged(airflow, clock, state)

    assert found["outcome"] is outcome
    assert ("failed again in manual__2" in found["reason"]) is (outcome is Outcome.ESCALATED)


SAME, OTHER = make_diagnosis().root_cause, RootCause.CODE_ERROR
NOTED = Action(
    name="add_note", target={"dag_id": "orders", "run_id": RUN, "task_id": "load"}, args={"text": "seen"}
)
ADAPTED = make_fix(make_clear(), NOTED)


@pytest.mark.parametrize(
    ("causes", "plan", "outcome"),
    [
        pytest.param({OTHER}, CLEAR, Outcome.HEALED, id="another cause"),
        pytest.param({SAME}, CLEAR, Outcome.ESCALATED, id="the same"),
        pytest.param({SAME, OTHER}, CLEAR, Outcome.ESCALATED, id="the same at another map index"),
        pytest.param({None}, CLEAR, Outcome.ESCALATED, id="nobody knows yet"),
        pytest.param({RootCause.UNKNOWN}, CLEAR, Outcome.ESCALATED, id="nobody could tell"),
        pytest.param({OTHER}, ADAPTED, Outcome.ESCALATED, id="another, after a setting was changed"),
    ],
)
async def test_a_later_failure_of_another_cause_is_no_recurrence(
    clock: Clock, causes: set[RootCause | None], plan: FixPlan, outcome: Outcome
) -> None:
    airflow, state = await failed_again(clock, Try("failed"))

    records = KnownRecords(found={"manual__2": frozenset(causes)})
    found = await judged(airflow, clock, {**state, "plan": plan}, records=records)

    assert found["outcome"] is outcome
    assert ("manual__2 failed since of code_error" in found["reason"]) is (outcome is Outcome.HEALED)


async def test_stopping_the_harm_heals_nothing(clock: Clock) -> None:
    airflow, state = await cleared(clock, GOOD)
    plan = make_fix(Action(name="pause_dag", target={"dag_id": "orders"}))

    found = await judged(airflow, clock, {**state, "plan": plan})

    assert found["outcome"] is Outcome.ESCALATED
    assert found["verification"].outcome is Outcome.ESCALATED


async def test_what_was_deleted_meanwhile_is_handed_over(clock: Clock) -> None:
    airflow, state = await cleared(clock, GOOD)
    airflow.delete_dag("orders")

    found = await judged(airflow, clock, state)

    assert found["outcome"] is Outcome.ESCALATED
    assert "cannot be verified any more" in found["reason"]


@pytest.mark.parametrize(
    ("run", "over"),
    [
        pytest.param("success", True, id="the run ended without it"),
        pytest.param("running", False, id="it goes on"),
    ],
)
async def test_a_map_index_that_airflow_removed_is_not_waited_for(clock: Clock, run: str, over: bool) -> None:
    airflow, state = await cleared(clock, GOOD)
    airflow.remove_index(make_task())
    airflow.mark_run("orders", RUN, run)
    clock.now = state["applied_at"] + LOST_AFTER + MOMENT

    step = await run_node(verify, state, make_deps(airflow, clock, limits=LIMITS))

    assert (step.waits is None) is over
    assert (step.found.get("outcome") is Outcome.ESCALATED) is over
    assert ("has this map index no longer" in step.found.get("reason", "")) is over


async def test_a_task_whose_dag_file_is_gone_is_not_waited_for(clock: Clock) -> None:
    airflow, state = await cleared(clock, GOOD)
    airflow.change_dag("orders", is_stale=True)
    clock.now = state["applied_at"] + LOST_AFTER + MOMENT

    found = await judged(airflow, clock, state)

    assert found["outcome"] is Outcome.ESCALATED
    assert "file is gone or does not load" in found["reason"]


async def test_what_a_task_reported_before_it_failed_is_not_the_data_of_one_marked_as_success(
    clock: Clock,
) -> None:
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", [Try("failed", xcom=REPORT)])])
    airflow.start("orders", RUN)
    await airflow.settle()
    failure = await airflow.task(make_task())
    await airflow.mark_task(make_task(), "success")
    mark = Action(name="mark_task", target=dict(make_task().model_dump()), args={"state": "success"})
    state: HealState = {
        "incident": make_incident(),
        "failure": failure,
        "diagnosis": make_diagnosis(),
        "plan": make_fix(mark),
        "applied": True,
        "applied_at": clock(),
        "watch_until": None,
        "attempt": 1,
    }

    found = await judged(airflow, clock, state)

    assert found["verification"].outcome is Outcome.RECOVERED_UNVERIFIED
