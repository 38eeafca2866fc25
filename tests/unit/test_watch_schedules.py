"""Runs that were due and were never made: found, asked about, made up for, each once."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from graph.domain import AnswerKind, Outcome, RootCause, Status
from tests.factories import START, Clock
from tests.unit.healing_world import GOOD, SAFE, Ward, open_ward
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try

HOUR = timedelta(hours=1)
DAG = "feed"


def feed(clock: Clock, *tries: Try, tags: Sequence[str] = SAFE) -> MemoryAirflow:
    """An hourly DAG whose run of 03:00 is done; time stands at 03:00."""
    airflow = MemoryAirflow(clock=clock, auto=True)
    airflow.add_dag(DAG, [TaskSpec("load", tries or (GOOD,))], tags=tags, schedule=HOUR)
    return airflow


async def run_at(airflow: MemoryAirflow, date: datetime) -> None:
    """The scheduler makes a run."""
    airflow.start(DAG, f"scheduled__{date.isoformat()}", run_type="scheduled", logical_date=date)
    await airflow.settle()


async def pause(airflow: MemoryAirflow, *, paused: bool = True) -> None:
    with airflow.by_someone_else():
        await airflow.set_paused(DAG, paused=paused)


async def look(ward: Ward, seconds: float) -> None:
    ward.clock.forward(seconds)
    await ward.service.watch.scan()
    await ward.go_on()


async def found_paused(ward: Ward, airflow: MemoryAirflow) -> None:
    """A run at 03:00, paused, 04:00 and 05:00 missed."""
    await run_at(airflow, START)
    await pause(airflow)
    await look(ward, 60)
    for _ in range(5):
        await look(ward, 1800)


async def dates(airflow: MemoryAirflow) -> list[tuple[datetime | None, str]]:
    runs = await airflow.recent_runs(DAG, limit=50)
    return sorted(((one.logical_date, one.state) for one in runs), key=lambda one: one[0] or START)


async def test_a_paused_dag_that_missed_two_runs_is_unpaused_and_made_up_for(
    tmp_path: Path, clock: Clock
) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await found_paused(ward, airflow)

        record = await ward.only()
        assert (record.kind, record.status) == ("missed_schedule", Status.WAITING_DECISION)
        assert record.root_cause is RootCause.MISSING_DATA
        assert record.plan is not None
        assert [one.name for one in record.plan.actions] == ["backfill", "unpause_dag"]
        assert record.task.run_id == f"missed__{(START + HOUR).isoformat()}"
        assert airflow.writes == []
        clock.forward(3600)  # 06:00 is missed too while nobody answers
        await ward.answer(AnswerKind.APPROVE)
        for _ in range(3):
            await look(ward, 60)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED, record.reason
        assert await dates(airflow) == [(START + HOUR * number, "success") for number in range(4)]
        assert [one.verb for one in airflow.writes] == ["backfill", "set_paused"]
        assert not (await airflow.dag(DAG)).is_paused


async def test_of_a_dag_deleted_after_the_gap_was_filled_people_hear(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await found_paused(ward, airflow)
        airflow.auto = False
        await ward.answer(AnswerKind.APPROVE)
        assert (await ward.only()).status is Status.WAITING_OUTCOME
        airflow.delete_dag(DAG)
        await look(ward, 600)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "cannot be verified any more" in record.reason


async def test_one_missed_run_of_a_paused_dag_is_no_trouble_yet(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await run_at(airflow, START)
        await pause(airflow)
        await look(ward, 60)
        await look(ward, 3700)

        assert await ward.service.store.incidents() == []


async def test_a_dag_that_never_ran_by_its_schedule_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    await pause(airflow)
    async with open_ward(tmp_path, airflow, clock) as ward:
        for _ in range(5):
            await look(ward, 7200)

        assert await ward.service.store.incidents() == []


async def test_a_dag_that_has_stood_still_for_long_is_meant_to(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    await run_at(airflow, START)
    await pause(airflow)
    clock.forward(30 * 86_400)
    async with open_ward(tmp_path, airflow, clock) as ward:
        for _ in range(3):
            await look(ward, 60)

        assert await ward.service.store.incidents() == []


async def test_a_dag_that_we_paused_ourselves_is_not_asked_about(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:

        async def by_us(dag_id: str) -> bool:
            return dag_id == DAG

        ward.service.watch.memory.paused_by_us = by_us  # type: ignore[method-assign]
        await found_paused(ward, airflow)

        assert await ward.service.store.incidents() == []


async def test_a_scheduler_that_was_down_leaves_a_gap_that_is_found(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await run_at(airflow, START)
        airflow.status = airflow.status.model_copy(update={"scheduler": False})
        for _ in range(4):
            await look(ward, 2700)
        assert await ward.service.store.incidents() == []  # one trouble, and not each DAG's
        airflow.status = airflow.status.model_copy(update={"scheduler": True})
        await run_at(airflow, START + HOUR * 3)  # without catch-up only the newest interval is run
        await look(ward, 60)

        record = await ward.only()
        assert record.status is Status.WAITING_DECISION, record.reason
        await ward.answer(AnswerKind.APPROVE)
        for _ in range(3):
            await look(ward, 60)

        assert (await ward.only()).outcome is Outcome.HEALED
        assert await dates(airflow) == [(START + HOUR * number, "success") for number in range(4)]


async def test_a_late_run_is_waited_for_while_the_last_one_works(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock, Try("running"))
    async with open_ward(tmp_path, airflow, clock) as ward:
        await run_at(airflow, START)
        await look(ward, 3600 * 2)
        await look(ward, 600)

        assert await ward.service.store.incidents() == []


async def test_a_gap_that_somebody_fills_takes_the_question_back(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await found_paused(ward, airflow)
        assert (await ward.only()).status is Status.WAITING_DECISION
        await pause(airflow, paused=False)
        for number in (1, 2):
            await run_at(airflow, START + HOUR * number)
        await look(ward, 60)

        record = await ward.only()
        assert (record.status, record.outcome) == (Status.CLOSED, Outcome.SELF_RECOVERED)


async def test_a_rejected_question_is_not_asked_again(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await found_paused(ward, airflow)
        await ward.answer(AnswerKind.REJECT)
        for _ in range(5):
            await look(ward, 3600)

        assert (await ward.only()).outcome is Outcome.ESCALATED
        assert airflow.writes == []


async def test_an_ignored_dag_is_recorded_only(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock, tags=("airmedic:ignore",))
    async with open_ward(tmp_path, airflow, clock) as ward:
        await found_paused(ward, airflow)

        assert (await ward.only()).outcome is Outcome.DISMISSED


async def test_a_run_of_the_gap_that_fails_keeps_it_open(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await found_paused(ward, airflow)
        airflow.add_dag(DAG, [TaskSpec("load", (Try("failed"),))], tags=SAFE, schedule=HOUR, paused=True)
        await ward.answer(AnswerKind.APPROVE)
        await look(ward, 60)
        assert (await ward.only()).status is Status.WAITING_OUTCOME
        for _ in range(3):
            await look(ward, 3000)

        record = (await ward.service.store.incidents())[-1]  # later intervals are a gap of their own
        assert record.outcome is Outcome.ESCALATED
        assert "failed" in record.reason


@pytest.mark.parametrize("count", [1, 1000, 2500])
async def test_a_round_costs_as_many_requests_whatever_the_number_of_dags(
    tmp_path: Path, clock: Clock, count: int
) -> None:
    airflow = MemoryAirflow(clock=clock)
    for number in range(count):
        airflow.add_dag(f"dag_{number:04}", [TaskSpec("load")], paused=True, schedule=HOUR)
    async with open_ward(tmp_path, airflow, clock) as ward:
        airflow.calls.clear()
        for _ in range(3):
            await look(ward, 60)

        assert len(airflow.calls) <= 3 * 30


async def test_a_file_that_does_not_import_is_mended_by_people(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock, tags=(*SAFE, "airmedic:skippable"))
    async with open_ward(tmp_path, airflow, clock) as ward:
        airflow._dag(DAG).has_import_errors = True
        await found_paused(ward, airflow)

        record = await ward.only()
        assert (record.outcome, record.root_cause) == (Outcome.ESCALATED, RootCause.CODE_ERROR)
        assert "does not import" in record.checklist[0]
        assert airflow.writes == []


async def test_a_gap_that_grew_beyond_what_was_shown_is_asked_about_again(
    tmp_path: Path, clock: Clock
) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock, approval_timeout=timedelta(days=9)) as ward:
        await found_paused(ward, airflow)
        clock.forward(3600 * 60)
        await ward.answer(AnswerKind.APPROVE)

        record = await ward.only()
        assert record.status is Status.WAITING_DECISION, record.reason
        assert record.plan is not None
        shown = record.plan.actions[0].target["shown"]
        assert isinstance(shown, list)
        assert len(shown) > 50
        assert airflow.writes == []


async def test_after_a_pause_the_newest_run_is_left_to_the_scheduler(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await run_at(airflow, START)
        await pause(airflow)
        await look(ward, 60)
        clock.forward(3540)  # 04:00 is due at this moment
        await pause(airflow, paused=False)
        await look(ward, 1)
        assert await ward.service.store.incidents() == []
        await run_at(airflow, START + HOUR)
        await look(ward, 60)

        assert await ward.service.store.incidents() == []
        assert await ward.service.watch.memory.suspects() == {}


async def test_a_gap_that_a_person_left_when_unpausing_is_asked_about(tmp_path: Path, clock: Clock) -> None:
    airflow = feed(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await run_at(airflow, START)
        await pause(airflow)
        await look(ward, 60)
        clock.forward(3 * 3600)
        await pause(airflow, paused=False)
        await run_at(airflow, START + HOUR * 3)
        await look(ward, 60)

        record = await ward.only()
        assert record.plan is not None
        assert [one.name for one in record.plan.actions] == ["backfill"]
