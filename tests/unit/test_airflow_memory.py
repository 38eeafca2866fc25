"""The twin's own script: what tests of the rest rely on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graph.domain import TaskRef
from graph.errors import AirflowDoubt, AirflowUnreachable, Conflict
from tools.airflow_memory import MemoryAirflow, TaskSpec, Ticking, Try
from tools.gateway import AirflowGateway

FLAKY = TaskRef(dag_id="d", run_id="r", task_id="flaky")


def make_airflow(
    *, retries: int = 0, auto: bool = False, tries: tuple[Try, ...] | None = None
) -> MemoryAirflow:
    airflow = MemoryAirflow(auto=auto)
    tries = tries or (Try("failed", "boom"), Try())
    airflow.add_dag("d", [TaskSpec("flaky", tries, ("after",), retries=retries), TaskSpec("after")])
    airflow.start("d", "r")
    return airflow


def test_the_twin_is_a_gateway() -> None:
    gateway: AirflowGateway = MemoryAirflow()

    assert gateway is not None


async def test_nothing_moves_until_the_scheduler_works() -> None:
    airflow = make_airflow()

    before = await airflow.task(FLAKY)
    ran = await airflow.settle()

    assert (before.state, before.try_number, ran) == ("none", 0, 1)
    assert (await airflow.run("d", "r")).state == "failed"


async def test_a_retry_waits_when_it_is_asked_to() -> None:
    airflow = make_airflow(retries=1)

    await airflow.settle(retries=False)
    waiting = await airflow.task(FLAKY)
    tries = await airflow.tries(FLAKY)
    await airflow.settle()

    assert (waiting.state, waiting.try_number, waiting.final) == ("up_for_retry", 1, False)
    assert [one.state for one in tries] == ["failed"]
    assert (await airflow.run("d", "r")).state == "success"


async def test_auto_runs_what_was_cleared_at_once() -> None:
    airflow = make_airflow(auto=True)
    await airflow.settle()

    await airflow.clear("d", "r", [FLAKY], dry_run=False)

    assert (await airflow.run("d", "r")).state == "success"


async def test_step_runs_one_try() -> None:
    airflow = make_airflow(tries=(Try(),))

    assert await airflow.step() == FLAKY
    assert (await airflow.run("d", "r")).state == "running"
    assert (await airflow.step() or FLAKY).task_id == "after"
    assert await airflow.step() is None


async def test_writes_are_recorded_and_dry_runs_are_not() -> None:
    airflow = make_airflow()
    await airflow.settle()

    await airflow.clear("d", "r", [FLAKY], dry_run=True)
    await airflow.clear("d", "r", [FLAKY], dry_run=False, note="k")

    (write,) = airflow.writes
    assert (write.verb, write.args["note"], write.args["tasks"]) == ("clear", "k", [FLAKY.model_dump()])


async def test_a_refused_write_is_no_write() -> None:
    airflow = make_airflow()

    with pytest.raises(Conflict):
        await airflow.clear("d", "r", [FLAKY], dry_run=False)

    assert airflow.writes == []


async def test_a_call_fails_before_its_effect() -> None:
    airflow = make_airflow()
    airflow.fail_next("set_variable", AirflowUnreachable("away"), times=2)

    for _ in range(2):
        with pytest.raises(AirflowUnreachable):
            await airflow.set_variable("k", "v")
    await airflow.set_variable("k", "w")

    assert [one.args["value"] for one in airflow.writes] == ["w"]


async def test_an_answer_is_lost_after_the_effect() -> None:
    airflow = make_airflow()
    await airflow.settle()
    airflow.fail_next("clear", AirflowDoubt("lost"), after_effect=True)

    with pytest.raises(AirflowDoubt):
        await airflow.clear("d", "r", [FLAKY], dry_run=False)

    assert (await airflow.task(FLAKY)).state == "none"
    assert len(airflow.writes) == 1


async def test_what_somebody_else_does_is_not_ours() -> None:
    airflow = make_airflow()
    await airflow.settle()
    airflow.fail_next("clear", AirflowUnreachable("away"))

    with airflow.by_someone_else():
        await airflow.clear("d", "r", [FLAKY], dry_run=False)

    assert airflow.writes == []
    assert await airflow.clear_count(FLAKY) == 1


async def test_a_pool_without_slots_holds_its_tasks() -> None:
    airflow = MemoryAirflow()
    airflow.add_pool("tight", 0)
    airflow.add_dag("d", [TaskSpec("flaky", pool="tight")])
    airflow.start("d", "r")

    await airflow.settle()
    held = await airflow.task(FLAKY)
    await airflow.set_pool_slots("tight", 1)
    await airflow.settle()

    assert (held.state, held.try_number) == ("scheduled", 1)
    assert (await airflow.task(FLAKY)).state == "success"
    assert (await airflow.task(FLAKY)).try_number == 1


async def test_a_running_task_ends_when_the_test_says_so() -> None:
    airflow = make_airflow(tries=(Try("running"),))
    await airflow.settle()
    running = (await airflow.task(FLAKY)).state

    await airflow.finish(FLAKY, Try("failed", "killed"))

    assert running == "running"
    assert (await airflow.run("d", "r")).state == "failed"
    assert (await airflow.log(FLAKY, 1)).text == "killed"


async def test_a_paused_dag_does_not_run() -> None:
    airflow = make_airflow()
    await airflow.set_paused("d", paused=True)

    assert await airflow.settle() == 0


async def test_a_new_version_is_used_only_when_asked_for() -> None:
    airflow = make_airflow()
    await airflow.settle()
    airflow.add_dag(
        "d", [TaskSpec("flaky", [Try("failed"), Try("failed"), Try()], ("after",)), TaskSpec("after")]
    )

    await airflow.clear("d", "r", [FLAKY], dry_run=False)
    await airflow.settle()
    pinned = (await airflow.task(FLAKY)).dag_version
    await airflow.clear("d", "r", [FLAKY], dry_run=False, latest_version=True)

    assert (pinned, (await airflow.task(FLAKY)).dag_version) == (1, 2)


async def test_time_is_the_tests_own() -> None:
    clock = Ticking(datetime(2026, 5, 1, tzinfo=UTC))
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("d", [TaskSpec("flaky", [Try("failed", seconds=5)])])
    airflow.start("d", "r")
    await airflow.settle()

    (failure,) = await airflow.failures_since(datetime(2026, 5, 1, 0, 0, 5, tzinfo=UTC))
    clock.advance(60)

    assert failure.end == datetime(2026, 5, 1, 0, 0, 5, tzinfo=UTC)
    assert await airflow.failures_since(clock()) == ()
