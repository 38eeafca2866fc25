"""Tasks that run on, tasks that grow slower, pools that starve, parts of Airflow that fall silent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from graph.domain import Outcome, TaskRef
from graph.errors import NotFound
from server.watch import runs
from server.watch.findings import Finding, Sight
from tests.factories import START, Clock
from tests.unit.healing_world import FAIL, GOOD, SAFE, TASK, Ward, make_airflow, open_ward
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try


class Steady:
    """An hourly task whose runs take as long as told; `hang` makes the next one go on."""

    def __init__(self, clock: Clock, *, pool: str = "default_pool") -> None:
        self.airflow = MemoryAirflow(clock=clock)
        self.clock = clock
        self.runs = 0
        self._pool = pool

    async def run(self, seconds: float = 600.0, *, hang: str = "") -> TaskRef:
        """`hang`: the state in which it stays."""
        state = hang or "success"
        specs = [TaskSpec("load", (Try(state, seconds=seconds),), pool=self._pool)]
        self.airflow.add_dag("orders", specs, tags=SAFE)
        self.runs += 1
        run_id = f"run_{self.runs}"
        self.airflow.start("orders", run_id)
        await self.airflow.settle()
        self.clock.forward(1)
        return TaskRef(dag_id="orders", run_id=run_id, task_id="load")


async def look(ward: Ward, seconds: float = 60.0) -> None:
    await ward.pass_time(seconds)
    await ward.service.watch.scan()
    await ward.go_on()


async def lasting(ward: Ward) -> list[Finding]:
    return await ward.service.watch.findings.listed(lasting=True)


@pytest.mark.parametrize("state", ["running", "deferred"])
async def test_a_task_far_beyond_its_past_is_handed_over_with_the_numbers(
    tmp_path: Path, clock: Clock, state: str
) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        for _ in range(6):
            await steady.run()
            await look(ward)
        hung = await steady.run(hang=state)
        await look(ward, 1000)
        assert await ward.service.store.incidents() == []  # past its usual, not yet past twice of it
        await look(ward, 300)

        record = await ward.only()
        assert (record.kind, record.task, record.outcome) == ("stuck_running", hung, Outcome.ESCALATED)
        assert record.diagnosis is not None
        assert "its last 6 good runs took 10 min" in record.diagnosis.summary
        assert steady.airflow.writes == []
        await look(ward, 3600)
        assert len(await ward.service.store.incidents()) == 1


async def test_a_slow_run_that_ends_in_time_is_no_trouble(tmp_path: Path, clock: Clock) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        for _ in range(6):
            await steady.run()
            await look(ward)
        slow = await steady.run(hang="running")
        await look(ward, 1100)
        await steady.airflow.finish(slow, GOOD)
        await look(ward, 600)

        assert await ward.service.store.incidents() == []


async def test_without_a_past_nothing_is_too_long(tmp_path: Path, clock: Clock) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        for _ in range(4):
            await steady.run()
            await look(ward)
        await steady.run(hang="running")
        for _ in range(4):
            await look(ward, 7200)

        assert await ward.service.store.incidents() == []


async def test_a_past_that_we_did_not_see_is_asked_for_once(tmp_path: Path, clock: Clock) -> None:
    steady = Steady(clock)
    for _ in range(6):
        await steady.run()
    clock.forward(86_400)
    await steady.run(hang="running")
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        await look(ward, 3600)
        assert (await ward.only()).kind == "stuck_running"
        steady.airflow.calls.clear()
        await look(ward, 600)
        await look(ward, 600)

        assert "history" not in steady.airflow.calls


async def test_a_task_that_grows_slower_is_warned_about_until_that_is_usual(
    tmp_path: Path, clock: Clock
) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        for _ in range(20):
            await steady.run(600)
            await look(ward)
        assert await lasting(ward) == []
        for _ in range(5):
            await steady.run(900)
            await look(ward)

        (warning,) = await lasting(ward)
        assert (warning.kind, warning.subject) == ("duration_drift", "orders.load")
        assert warning.numbers["now"] == 900.0
        assert "1.5 times" in warning.text
        assert await ward.service.store.incidents() == []
        for _ in range(5):
            await steady.run(600)
            await look(ward)

        assert await lasting(ward) == []
        (over,) = await ward.service.watch.findings.listed(lasting=False)
        assert over.until is not None
        told = [one.name for one in await ward.service.store.events(node="watch")]
        assert told == ["early_warning", "warning_over"]


async def test_a_pool_that_stays_full_while_tasks_wait_is_warned_about(tmp_path: Path, clock: Clock) -> None:
    steady = Steady(clock, pool="narrow")
    steady.airflow.add_pool("narrow", 0)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        await steady.run()
        await look(ward, 60)
        await look(ward, 300)
        assert await lasting(ward) == []
        await look(ward, 400)

        (warning,) = await lasting(ward)
        assert (warning.kind, warning.subject, warning.numbers["waiting"]) == ("pool_starvation", "narrow", 1)
        assert warning.since > START
        with steady.airflow.by_someone_else():
            await steady.airflow.set_pool_slots("narrow", 4)
        await steady.airflow.settle()
        await look(ward, 60)

        assert await lasting(ward) == []


async def test_how_long_a_pool_was_full_days_ago_says_nothing_of_now(tmp_path: Path, clock: Clock) -> None:
    """Others had the watch meanwhile."""
    steady = Steady(clock, pool="narrow")
    steady.airflow.add_pool("narrow", 0)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        await steady.run()
        await look(ward, 60)
        await look(ward, 3 * 24 * 3600)

        assert [one for one in await lasting(ward) if one.kind == "pool_starvation"] == []


async def test_a_part_that_falls_silent_is_found_in_two_rounds(tmp_path: Path, clock: Clock) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        well = steady.airflow.status
        steady.airflow.status = well.model_copy(update={"dag_processor": False})
        await look(ward)
        assert await lasting(ward) == []
        await look(ward)
        assert [(one.kind, one.subject) for one in await lasting(ward)] == [
            ("component_unhealthy", "dag_processor")
        ]
        steady.airflow.status = well
        await look(ward)

        assert await lasting(ward) == []


async def test_findings_are_told_once_and_again_when_they_are_over(tmp_path: Path, clock: Clock) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        findings = ward.service.watch.findings
        sight = Sight(kind="pool_starvation", subject="narrow", text="full")

        assert await findings.sync("pool_starvation", [sight]) == (1, 0)
        assert await findings.sync("pool_starvation", [sight]) == (0, 0)
        assert await findings.sync("pool_starvation", [], looked_at=["other"]) == (0, 0)
        assert await findings.sync("pool_starvation", []) == (0, 1)
        assert await findings.sync("pool_starvation", [sight]) == (1, 0)
        assert len(await findings.listed()) == 2


async def test_a_run_whose_time_was_over_is_told_until_a_later_one_is_well(
    tmp_path: Path, clock: Clock
) -> None:
    """Airflow skips what had not run: no task fails, and nobody else would say a word."""
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        hung = await steady.run(hang="running")
        steady.airflow.time_out("orders", hung.run_id)
        await look(ward)
        (warning,) = await lasting(ward)
        assert (warning.kind, warning.subject) == ("run_failed", "orders @ run_1")
        assert "1 skipped" in warning.text
        assert await ward.service.store.incidents() == []

        await look(ward)
        await look(ward, 600)
        assert [one.id for one in await lasting(ward)] == [warning.id]

        await steady.run()
        await look(ward)
        assert await lasting(ward) == []


async def test_a_run_in_which_a_task_failed_is_no_news(tmp_path: Path, clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", (Try("failed"),))])
    async with open_ward(tmp_path, airflow, clock) as ward:
        airflow.start("orders", "run_1")
        await airflow.settle()
        await ward.service.watch.scan()
        assert await lasting(ward) == []
        before = airflow.calls.count("run_tasks")
        await ward.report()
        await ward.service.watch.scan()

        assert await lasting(ward) == []
        assert airflow.calls.count("run_tasks") - before <= 2


async def test_a_run_that_was_healed_and_then_timed_out_is_told(tmp_path: Path, clock: Clock) -> None:
    """What failed in it before was mended: that is not what it failed of now."""
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        await ward.pass_time(30)
        assert (await ward.only()).outcome is Outcome.HEALED

        clock.forward(60)
        airflow.time_out("orders", "manual__1")
        await look(ward)

        assert [(one.kind, one.subject) for one in await lasting(ward)] == [
            ("run_failed", "orders @ manual__1")
        ]


async def test_a_run_that_is_run_again_and_fails_again_within_a_minute_is_looked_at_again(
    tmp_path: Path, clock: Clock
) -> None:
    airflow = make_airflow(clock, FAIL, GOOD)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.service.watch.scan()
        assert await lasting(ward) == []  # its task failed, which the poll finds
        with airflow.by_someone_else():
            await airflow.clear("orders", "manual__1", [TASK], dry_run=False)
        await airflow.settle()
        clock.forward(50)
        airflow.time_out("orders", "manual__1")
        await ward.service.watch.scan()

        assert [one.subject for one in await lasting(ward)] == ["orders @ manual__1"]


async def test_more_failed_runs_than_one_round_looks_into_are_all_looked_into(
    tmp_path: Path, clock: Clock
) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        for _ in range(25):
            hung = await steady.run(hang="running")
            steady.airflow.time_out("orders", hung.run_id)
        for _ in range(3):
            await look(ward)

        assert len(await lasting(ward)) == 25


async def test_more_failed_runs_within_a_minute_than_a_page_holds_hide_none(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "MOST", 5)
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        for _ in range(18):
            hung = await steady.run(hang="running")
            steady.airflow.time_out("orders", hung.run_id)
        for _ in range(6):
            await look(ward, 1)

        assert len(await lasting(ward)) == 18


async def test_who_takes_the_watch_over_after_days_tells_no_history(tmp_path: Path, clock: Clock) -> None:
    """What failed while others had the watch they told, and it is over by their word."""
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        hung = await steady.run(hang="running")
        steady.airflow.time_out("orders", hung.run_id)
        await look(ward, 3 * 24 * 3600)
        assert await lasting(ward) == []

        hung = await steady.run(hang="running")
        steady.airflow.time_out("orders", hung.run_id)
        await look(ward)
        assert [one.subject for one in await lasting(ward)] == ["orders @ run_2"]


async def test_a_run_that_is_gone_is_told_no_more(tmp_path: Path, clock: Clock) -> None:
    steady = Steady(clock)
    async with open_ward(tmp_path, steady.airflow, clock) as ward:
        hung = await steady.run(hang="running")
        steady.airflow.time_out("orders", hung.run_id)
        await look(ward)
        assert len(await lasting(ward)) == 1
        steady.airflow.fail_next("run", NotFound("run 'run_1' of 'orders' not found"))
        await look(ward)

        assert await lasting(ward) == []


def chained(clock: Clock, *, active: int, dags: Sequence[str] = ("chain",)) -> MemoryAirflow:
    """Three daily runs of a task that depends on its past; the first one fails once."""
    airflow = MemoryAirflow(clock=clock)

    def tries(task: TaskRef, number: int) -> Try:
        return Try("failed") if (task.run_id, number) == ("day_1", 1) else GOOD

    for dag_id in dags:
        airflow.add_dag(dag_id, [TaskSpec("load", tries, depends_on_past=True)], max_active_runs=active)
        for day in (1, 2, 3):
            airflow.start(dag_id, f"day_{day}", logical_date=START + timedelta(days=day))
    return airflow


async def cleared(airflow: MemoryAirflow, dags: Sequence[str] = ("chain",)) -> None:
    await airflow.settle()
    with airflow.by_someone_else():
        for dag_id in dags:
            first = TaskRef(dag_id=dag_id, run_id="day_1", task_id="load")
            await airflow.clear(dag_id, "day_1", [first], dry_run=False)
    await airflow.settle()


async def test_runs_that_wait_for_each_other_are_told_until_one_moves(tmp_path: Path, clock: Clock) -> None:
    airflow = chained(clock, active=2)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await cleared(airflow)
        await look(ward)
        assert await lasting(ward) == []  # the scheduler may be slow
        for _ in range(11):
            await look(ward)

        (warning,) = await lasting(ward)
        assert (warning.kind, warning.subject) == ("runs_deadlocked", "chain")
        assert warning.numbers == {"dag_id": "chain", "queued": 1, "running": 2}
        assert "behind 2 running ones (day_2, day_3)" in warning.text
        airflow.change_dag("chain", max_active_runs=3)
        await airflow.settle()
        await look(ward)

        assert await lasting(ward) == []


@pytest.mark.parametrize(
    ("active", "paused", "scheduler"),
    [
        pytest.param(3, False, True, id="there is room for all"),
        pytest.param(2, True, True, id="the DAG is paused on purpose"),
        pytest.param(2, False, False, id="the scheduler is away, which is told"),
    ],
)
async def test_runs_that_wait_for_something_else_are_no_news(
    tmp_path: Path, clock: Clock, active: int, paused: bool, scheduler: bool
) -> None:
    airflow = chained(clock, active=active)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await cleared(airflow)
        airflow.change_dag("chain", is_paused=paused)
        airflow.status = airflow.status.model_copy(update={"scheduler": scheduler})
        for _ in range(15):
            await look(ward)

        assert [one for one in await lasting(ward) if one.kind == "runs_deadlocked"] == []


async def deadlocked(ward: Ward) -> set[str]:
    return {one.subject for one in await lasting(ward) if one.kind == "runs_deadlocked"}


async def test_of_more_deadlocks_than_one_round_looks_into_all_are_told(tmp_path: Path, clock: Clock) -> None:
    dags = [f"chain_{n}" for n in range(12)]
    airflow = chained(clock, active=2, dags=dags)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await cleared(airflow, dags)
        for _ in range(20):
            await look(ward)
        assert await deadlocked(ward) == set(dags)
        airflow.change_dag("chain_7", max_active_runs=3)
        await airflow.settle()
        for _ in range(4):
            await look(ward)

        assert await deadlocked(ward) == set(dags) - {"chain_7"}


async def test_a_deadlock_behind_many_dags_with_queued_runs_is_told(tmp_path: Path, clock: Clock) -> None:
    airflow = chained(clock, active=2)
    for n in range(12):
        airflow.add_dag(f"busy_{n}", [TaskSpec("load", (Try("running"),))], max_active_runs=1)
        for run in (1, 2):
            airflow.start(f"busy_{n}", f"run_{run}")
    async with open_ward(tmp_path, airflow, clock) as ward:
        await cleared(airflow)
        before = airflow.calls.count("at_work")
        for _ in range(16):
            await look(ward)

        assert await deadlocked(ward) == {"chain"}
        assert airflow.calls.count("at_work") - before <= 16 * 5
