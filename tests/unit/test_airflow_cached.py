"""What is remembered of Airflow for a moment, and what never is."""

from __future__ import annotations

from typing import cast

from tests.factories import Clock, make_snapshot
from tests.unit.healing_world import TASK, make_airflow
from tools.airflow_cached import HANDED_OVER, KEEP, LATELY, CachedDags, JustSeen
from tools.gateway import AirflowGateway


async def test_a_dag_is_asked_for_once_in_a_moment(clock: Clock) -> None:
    airflow = make_airflow(clock)
    cached = CachedDags(airflow, clock=clock)

    await cached.dag("orders")
    await cached.dag("orders")
    assert airflow.calls.count("dag") == 1

    clock.forward(KEEP.total_seconds())
    await cached.dag("orders")
    assert airflow.calls.count("dag") == 2


async def test_a_task_instance_is_read_fresh_every_time(clock: Clock) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    cached = cast(AirflowGateway, CachedDags(airflow, clock=clock))

    await cached.task(TASK)
    await cached.task(TASK)

    assert airflow.calls.count("task") == 2


async def test_what_was_written_to_a_dag_is_read_back(clock: Clock) -> None:
    cached = CachedDags(make_airflow(clock), clock=clock)
    assert not (await cached.dag("orders")).is_paused

    await cached.set_paused("orders", paused=True)

    assert (await cached.dag("orders")).is_paused


async def test_what_intake_has_seen_answers_the_first_question_and_no_other(clock: Clock) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    seen = make_snapshot(task=TASK, hostname="as it was seen")
    cached = CachedDags(airflow, clock=clock, seen=seen)

    assert await cached.task(TASK) == seen
    assert await cached.task(TASK) != seen


async def test_it_is_forgotten_when_something_else_is_asked_first(clock: Clock) -> None:
    """A guard before a write reads Airflow, whatever way led to it."""
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    seen = make_snapshot(task=TASK, hostname="as it was seen")
    after_a_dag = CachedDags(airflow, clock=clock, seen=seen)
    after_a_run = CachedDags(airflow, clock=clock, seen=seen)

    await after_a_dag.dag("orders")
    await cast(AirflowGateway, after_a_run).run("orders", "manual__1")

    assert await after_a_dag.task(TASK) != seen
    assert await after_a_run.task(TASK) != seen


def test_what_was_seen_is_handed_over_once_and_soon(clock: Clock) -> None:
    seen = JustSeen(clock=clock)
    snapshot = make_snapshot(task=TASK)

    seen.put(snapshot)
    assert (seen.take(TASK), seen.take(TASK)) == (snapshot, None)

    seen.put(snapshot)
    clock.forward(LATELY.total_seconds())
    assert seen.take(TASK) is None


def test_what_nobody_takes_does_not_pile_up(clock: Clock) -> None:
    seen = JustSeen(clock=clock)
    for number in range(HANDED_OVER + 1):
        seen.put(make_snapshot(task=TASK.model_copy(update={"run_id": f"manual__{number}"})))

    assert seen.take(TASK.model_copy(update={"run_id": "manual__0"})) is None
    assert seen.take(TASK.model_copy(update={"run_id": "manual__1"})) is not None
