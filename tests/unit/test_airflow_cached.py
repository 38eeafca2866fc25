"""What is remembered of Airflow for a moment, and what never is."""

from __future__ import annotations

from typing import cast

import pytest

from tests.factories import Clock, make_snapshot
from tests.unit.healing_world import TASK, make_airflow
from tools.airflow_cached import KEEP, CachedDags
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


async def test_only_the_first_look_is_the_one_that_was_had_just_now(clock: Clock) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    seen = make_snapshot(task=TASK, state="failed")
    cached = CachedDags(airflow, clock=clock, seen=seen)

    assert await cached.task(TASK) is seen
    assert airflow.calls.count("task") == 0
    assert (await cached.task(TASK)).state != "failed"
    assert airflow.calls.count("task") == 1


@pytest.mark.parametrize("seconds", [1, -1])
async def test_what_was_seen_longer_ago_is_read_again(clock: Clock, seconds: float) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    cached = CachedDags(airflow, clock=clock, seen=make_snapshot(task=TASK, state="failed"))
    clock.forward(seconds)

    assert (await cached.task(TASK)).state != "failed"


async def test_what_was_seen_of_one_task_is_not_told_of_another(clock: Clock) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    other = make_snapshot(task=TASK.model_copy(update={"task_id": "extract"}), state="failed")

    assert (await CachedDags(airflow, clock=clock, seen=other).task(TASK)).state != "failed"


async def test_what_was_written_to_a_dag_is_read_back(clock: Clock) -> None:
    cached = CachedDags(make_airflow(clock), clock=clock)
    assert not (await cached.dag("orders")).is_paused

    await cached.set_paused("orders", paused=True)

    assert (await cached.dag("orders")).is_paused
