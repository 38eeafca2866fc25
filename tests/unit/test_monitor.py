"""The first step: what is left to Airflow, what is no failure, what is over, and what is taken up."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from graph.domain import IncidentKind, Outcome, Severity, TaskRef
from graph.errors import NotFound
from graph.state import HealState
from nodes.monitor import GATHER, LOOK_AGAIN, monitor
from tests.factories import START, Clock, make_task
from tests.unit.node_world import KnownRecords, make_deps, make_incident, run_node
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try

RUN = "manual__1"
OVER = timedelta(seconds=1)


def started(clock: Clock, *tries: Try, **given: Any) -> MemoryAirflow:
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", tries or (Try("failed"),), **given)])
    airflow.start("orders", RUN)
    return airflow


def of_kind(kind: IncidentKind, **given: object) -> HealState:
    return {"incident": make_incident(kind=kind, **given)}


async def test_a_final_failure_is_taken_up_with_its_weight(clock: Clock) -> None:
    airflow = started(clock)
    await airflow.settle()

    step = await run_node(monitor, of_kind(IncidentKind.FAILURE), make_deps(airflow, clock))

    assert step.found["intervene"]
    assert step.found["failure"].state == "failed"
    assert step.found["incident"].severity is Severity.HIGH
    assert step.found["incident"].failed_at == step.found["failure"].end


async def test_what_airflow_still_works_on_is_watched(clock: Clock) -> None:
    airflow = started(clock, Try("running"))
    await airflow.settle()

    step = await run_node(monitor, of_kind(IncidentKind.FAILURE), make_deps(airflow, clock))

    assert step.waits == {"status": "watching", "until": (clock() + LOOK_AGAIN).isoformat()}


@pytest.mark.parametrize(
    ("ends", "outcome", "words"),
    [
        pytest.param(Try(), Outcome.SELF_RECOVERED, "succeeded on try 1", id="Airflow's own retry did it"),
        pytest.param(Try("skipped"), Outcome.DISMISSED, "the task is skipped", id="it was skipped"),
    ],
)
async def test_what_is_no_failure_any_more_ends(
    clock: Clock, ends: Try, outcome: Outcome, words: str
) -> None:
    airflow = started(clock, ends)
    await airflow.settle()

    step = await run_node(monitor, of_kind(IncidentKind.FAILURE), make_deps(airflow, clock))

    assert step.found["outcome"] is outcome
    assert words in step.found["reason"]


@pytest.mark.parametrize(
    ("tag", "outcome"),
    [
        pytest.param("airmedic:ignore", Outcome.DISMISSED, id="the DAG is to be left alone"),
        pytest.param("airmedic:severity=low", Outcome.DISMISSED, id="it does not matter"),
        pytest.param("airmedic:severity=high", None, id="it matters"),
    ],
)
async def test_tags_say_what_is_ours(clock: Clock, tag: str, outcome: Outcome | None) -> None:
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", [Try("failed")])], tags=(tag,))
    airflow.start("orders", RUN)
    await airflow.settle()

    step = await run_node(monitor, of_kind(IncidentKind.FAILURE), make_deps(airflow, clock))

    assert step.found.get("outcome") is outcome
    assert step.found.get("intervene", False) is (outcome is None)


async def test_a_task_instance_that_is_gone_is_no_failure(clock: Clock) -> None:
    gone = of_kind(IncidentKind.FAILURE, task=make_task(run_id="deleted"))

    step = await run_node(monitor, gone, make_deps(started(clock), clock))

    assert step.found["outcome"] is Outcome.DISMISSED


@pytest.mark.parametrize(
    ("try_now", "state", "taken_up"),
    [
        pytest.param(1, "running", True, id="it still runs"),
        pytest.param(1, "deferred", True, id="it waits with the triggerer"),
        pytest.param(1, "failed", False, id="it has failed meanwhile: that is another incident"),
        pytest.param(1, "success", False, id="it has ended well"),
        pytest.param(2, "running", False, id="it runs, and on another try"),
    ],
)
async def test_a_task_that_runs_too_long(clock: Clock, try_now: int, state: str, taken_up: bool) -> None:
    last = Try(state)
    airflow = started(clock, *((Try("failed"), last) if try_now == 2 else (last,)), retries=try_now - 1)
    await airflow.settle()

    step = await run_node(monitor, of_kind(IncidentKind.STUCK_RUNNING), make_deps(airflow, clock))

    assert step.found.get("intervene", False) is taken_up
    assert (step.found.get("outcome") is Outcome.SELF_RECOVERED) is not taken_up


@pytest.mark.parametrize(
    ("slots", "taken_up"),
    [
        pytest.param(0, True, id="it waits for a slot that does not come"),
        pytest.param(5, False, id="it started"),
    ],
)
async def test_a_task_that_does_not_start(clock: Clock, slots: int, taken_up: bool) -> None:
    airflow = MemoryAirflow(clock=clock)
    airflow.add_pool("narrow", slots)
    airflow.add_dag("orders", [TaskSpec("load", [Try("running")], pool="narrow")])
    airflow.start("orders", RUN)
    await airflow.settle()

    step = await run_node(monitor, of_kind(IncidentKind.STUCK), make_deps(airflow, clock))

    assert step.found.get("intervene", False) is taken_up
    assert (step.found.get("outcome") is Outcome.SELF_RECOVERED) is not taken_up


# --- several map indexes ----------------------------------------------------------------------------------


def part(index: int) -> TaskRef:
    return make_task(map_index=index)


async def mapped(clock: Clock) -> MemoryAirflow:
    """Three map indexes: one good, one broken, one that still runs."""

    def ends(task: TaskRef, _number: int) -> Try:
        return {0: Try(), 1: Try("failed"), 2: Try("running")}[task.map_index]

    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", ends, map_indexes=(0, 1, 2))])
    airflow.start("orders", RUN)
    await airflow.settle()
    return airflow


@pytest.mark.parametrize(
    ("after", "waits"),
    [
        pytest.param(GATHER - OVER, True, id="a sibling may fail next"),
        pytest.param(GATHER, False, id="and is not waited for any longer"),
    ],
)
async def test_siblings_are_waited_for_a_while(clock: Clock, after: timedelta, waits: bool) -> None:
    airflow = await mapped(clock)
    clock.now = START + after
    state = of_kind(IncidentKind.FAILURE, task=part(1))
    records = KnownRecords(of_incident=(part(0), part(1)))

    step = await run_node(monitor, state, make_deps(airflow, clock, records=records))

    assert (step.waits is not None) is waits
    if not waits:
        assert step.found["failure"].task == part(1)


async def test_of_the_incident_s_own_the_one_that_runs_comes_first(clock: Clock) -> None:
    """What runs may yet take the failed ones along; nothing is done to them before."""
    airflow = await mapped(clock)
    clock.now = START + GATHER
    state = of_kind(IncidentKind.FAILURE, task=part(1))
    records = KnownRecords(of_incident=(part(1), part(2)))

    step = await run_node(monitor, state, make_deps(airflow, clock, records=records))

    assert step.waits is not None


async def test_map_indexes_that_are_all_gone_are_no_failure(clock: Clock) -> None:
    state = of_kind(IncidentKind.FAILURE, task=make_task(map_index=7))
    records = KnownRecords(of_incident=(part(7), part(8)))
    clock.now = START + GATHER

    step = await run_node(monitor, state, make_deps(started(clock), clock, records=records))

    assert step.found["outcome"] is Outcome.DISMISSED


@pytest.mark.parametrize("last", ["upstream_failed", "success"], ids=["a person did it", "its last task ran"])
async def test_a_run_that_a_person_marked_as_success_is_left_alone(clock: Clock, last: str) -> None:
    airflow = MemoryAirflow(clock=clock)
    rule = "all_done" if last == "success" else "all_success"
    airflow.add_dag(
        "orders",
        [TaskSpec("load", (Try("failed"),), ("report",)), TaskSpec("report", trigger_rule=rule)],
    )
    airflow.start("orders", RUN)
    await airflow.settle()
    airflow.mark_run("orders", RUN, "success")

    step = await run_node(monitor, of_kind(IncidentKind.FAILURE), make_deps(airflow, clock))

    if last == "success":
        assert step.found["intervene"]
    else:
        assert step.found["outcome"] is Outcome.DISMISSED
        assert "somebody marked the run as success" in step.found["reason"]


async def test_a_dag_that_airflow_no_longer_describes_is_no_failure_to_act_on(clock: Clock) -> None:
    airflow = started(clock)
    await airflow.settle()
    airflow.fail_next("dag_tasks", NotFound("no DAG 'orders'"))

    step = await run_node(monitor, of_kind(IncidentKind.FAILURE), make_deps(airflow, clock))

    assert step.found["outcome"] is Outcome.DISMISSED
    assert "its DAG or its run is gone" in step.found["reason"]
