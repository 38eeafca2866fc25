"""What the crash harness found once, played again by hand."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from graph.domain import (
    AnswerKind,
    Door,
    FailureId,
    LedgerEntry,
    Outcome,
    RootCause,
    Status,
    Step,
    TaskRef,
    TaskSnapshot,
)
from graph.errors import AirflowDoubt, AirflowUnreachable, LeaseLost, StoreUnavailable
from server import runner
from server.draft import Draft
from server.drift import Drift
from server.record import Lease
from server.store import IncidentStore
from tests.factories import Clock, make_diagnosis, make_failure, make_task
from tests.unit.airflow_server import answer, open_scripted
from tests.unit.fix_world import Bench, clear, failed_airflow, make_fix, verbs
from tests.unit.healing_world import Ward, make_airflow, open_ward
from tools import carry_out, leaving
from tools.airflow_auth import StaticToken
from tools.airflow_http import AirflowHttp
from tools.airflow_memory import MemoryAirflow
from tools.airflow_rest import AirflowRest


async def failed_world(clock: Clock) -> MemoryAirflow:
    """An Airflow whose one run has failed."""
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    return airflow


async def asking_ward(clock: Clock) -> Any:
    """An Airflow whose failure needs a person."""
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    return airflow


async def dies_before_it_waits(ward: Ward, patch: pytest.MonkeyPatch) -> None:
    """The alarm has written the draft; the drive ends before it is on record what is waited for."""
    settle, deaths = Draft.settle, list[Lease]()

    async def dies_once(self: Draft, *, suspended: bool = False, **given: Any) -> None:
        if not suspended or deaths:
            await settle(self, suspended=suspended, **given)
            return
        deaths.append(self.lease)
        await self.flush()
        raise LeaseLost("killed")

    with patch.context() as inner:
        inner.setattr(runner, "UNRECORDED", 0.0)
        inner.setattr(Draft, "settle", dies_once)
        await ward.go_on()
    assert deaths


async def test_a_question_that_nobody_was_shown_does_not_expire(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_ward(tmp_path, await asking_ward(clock), clock) as ward:
        real = ward.service.runner.settle_all
        monkeypatch.setattr(ward.service.runner, "settle_all", _not_now)
        await ward.report()
        monkeypatch.setattr(ward.service.runner, "settle_all", real)
        await dies_before_it_waits(ward, monkeypatch)

        record = await ward.only()
        assert (record.status, record.outcome) == (Status.WAITING_DECISION, None)
        assert record.question is not None


async def test_an_answer_is_not_taken_for_the_answer_to_the_next_question(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_ward(tmp_path, await asking_ward(clock), clock) as ward:
        await ward.report()
        real = ward.service.runner.settle_all
        monkeypatch.setattr(ward.service.runner, "settle_all", _not_now)
        await ward.answer(AnswerKind.RESPOND, message="the source moved")
        monkeypatch.setattr(ward.service.runner, "settle_all", real)
        await dies_before_it_waits(ward, monkeypatch)

        assert (await ward.only()).status is Status.WAITING_DECISION
        assert [note.text for note in ward.doctor.cases[-1].context.notes] == ["the source moved"]


async def _not_now() -> None:
    """The drive comes later."""


async def test_what_was_in_hand_when_the_database_went_away_is_taken_up_when_it_is_back(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = await failed_world(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        monkeypatch.setattr(runner, "UNRECORDED", 0.0)
        with monkeypatch.context() as away:
            away.setattr(ward.service.store, "write_found", _gone)
            await ward.service.store.accept([make_failure()], door=Door.LISTENER)
            await ward.service.intake.admit()
            assert await ward.service.runner.drive_due() == 1
            while _driving():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

        await ward.go_on()

        assert (await ward.only()).status is Status.WAITING_TIMER


async def _gone(*_: Any) -> None:
    raise StoreUnavailable("the database went away")


def _driving() -> bool:
    return any(task.get_name().startswith("incident-") for task in asyncio.all_tasks())


async def test_a_write_that_could_not_leave_at_once_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process was stopped between the ledger's commit and the request; another may have taken over."""
    bench = Bench(await failed_airflow())
    with monkeypatch.context() as stopped:
        stopped.setattr(carry_out, "LEAVES", -1.0)
        with pytest.raises(AirflowUnreachable):
            await bench.apply(make_fix(clear()))
    assert verbs(bench.airflow) == []

    (entry,) = await bench.apply(make_fix(clear()))

    assert entry.step is Step.CONFIRMED
    assert verbs(bench.airflow) == ["clear"]


async def test_a_write_that_waited_for_a_thread_is_certainly_not_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(leaving, "LEAVES", -1.0)
    async with open_scripted(answer(200, {})) as airflow:
        gateway = AirflowRest(AirflowHttp(airflow.url, StaticToken("t")))
        try:
            with pytest.raises(AirflowUnreachable, match="not sent") as told:
                await gateway.set_paused("d", paused=True)
        finally:
            await gateway.aclose()

        assert not isinstance(told.value, AirflowDoubt)
        assert airflow.requests == []


async def test_a_write_leaves_soon_after_what_it_rests_on_or_not_at_all() -> None:
    """Stopped anywhere between the ledger's entry and the first byte; an answer in between counts anew."""
    async with open_scripted(answer(200, {"is_paused": True})) as airflow:
        gateway = AirflowRest(AirflowHttp(airflow.url, StaticToken("t")))
        try:
            with leaving.leaving(time.monotonic() - 2 * leaving.LEAVES):
                with pytest.raises(AirflowUnreachable, match="not sent") as told:
                    await gateway.set_paused("d", paused=True)
                leaving.answered()
                await gateway.set_paused("d", paused=True)
        finally:
            await gateway.aclose()

        assert not isinstance(told.value, AirflowDoubt)
        assert len(airflow.requests) == 1


async def test_an_answer_that_was_acted_on_is_not_withdrawn_for_what_it_did(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process goes away behind the write, and the place on record is still where the answer came."""
    airflow = await asking_ward(clock)
    lost = make_diagnosis(root_cause=RootCause.WORKER_LOST)  # run again at once
    async with open_ward(tmp_path, airflow, clock, lost) as ward:
        await ward.report()
        flush, dead = Draft.flush, list[str]()

        async def place_of_before(self: Draft, **given: Any) -> None:
            with monkeypatch.context() as same:
                same.setattr(self._saver, "interrupts", lambda _thread: True)
                await flush(self, **given)

        async def dies(self: carry_out._Hand, entry: LedgerEntry, *, accepted: bool) -> LedgerEntry:
            if dead:
                return await settled(self, entry, accepted=accepted)
            dead.append(entry.key)
            raise LeaseLost("killed")

        settled = carry_out._Hand._settle
        monkeypatch.setattr(carry_out._Hand, "_settle", dies)
        monkeypatch.setattr(runner, "UNRECORDED", 0.0)
        with monkeypatch.context() as early:
            early.setattr(Draft, "flush", place_of_before)
            await ward.answer(AnswerKind.APPROVE)
        assert dead
        await airflow.settle()
        await ward.go_on()

        found = await ward.detail()
        assert found.incident.outcome is not Outcome.SELF_RECOVERED
        assert [entry.step for entry in found.ledger if entry.action.name == "clear_task"] == [Step.CONFIRMED]
        assert ward.writes() == 1


async def test_a_wait_that_a_clock_put_back_made_endless_is_cut_short(tmp_path: Path, clock: Clock) -> None:
    """Planned while the clock was hours ahead."""
    airflow = await failed_world(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.service.intake.poll()
        clock.forward(7200)
        await ward.report()
        await ward.service.intake.poll()
        clock.forward(-7200)
        await ward.pass_time(0)
        for _ in range(4):
            await ward.pass_time(61)

        assert (await ward.only()).outcome is Outcome.HEALED


async def test_a_rest_that_a_clock_put_back_made_endless_is_over(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow did not answer once, while the clock was hours ahead."""
    airflow = await failed_world(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:

        async def away(task: TaskRef) -> TaskSnapshot:
            raise AirflowUnreachable("read the task instance: cannot connect")

        clock.forward(7200)
        with monkeypatch.context() as inner:
            inner.setattr(airflow, "task", away)
            await ward.report()
            assert await ward.service.intake.admit() == 0
        clock.forward(-7200)
        await ward.service.store.wake_sleepers()
        assert await ward.service.intake.admit() == 1


async def test_what_was_accepted_in_time_to_come_is_looked_at_once_the_clock_is_put_back(
    tmp_path: Path, clock: Clock
) -> None:
    """Whoever accepted it was killed before its next poll: nobody who ran saw the clock go back."""
    airflow = await failed_world(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.service.intake.poll()
        clock.forward(7200)
        failure = FailureId(airflow="default", task=make_task(), try_number=1)
        await ward.service.store.accept([failure], door=Door.LISTENER)
    clock.forward(-7200)
    async with open_ward(tmp_path, airflow, clock) as ward:
        assert await ward.service.intake.admit() == 0
        await ward.service.intake.poll()
        assert await ward.service.intake.admit() == 1


async def test_an_incident_put_to_sleep_in_time_to_come_is_woken_once_the_clock_is_put_back(
    tmp_path: Path, clock: Clock
) -> None:
    airflow = await failed_world(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.service.intake.poll()
        clock.forward(7200)
        await ward.report()
        await ward.pass_time(0)
        asleep = await ward.only()
        assert asleep.wake_at is not None
        assert asleep.wake_at > clock()
    clock.forward(-7200)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.service.intake.poll()
        woken = await ward.only()
        assert woken.wake_at is not None
        assert woken.wake_at <= clock()


async def test_an_orderly_sleep_wakes_nobody(tmp_path: Path, clock: Clock) -> None:
    airflow = await failed_world(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(0)
        assert (await ward.only()).wake_at is not None
        assert not await ward.service.store.sleeps_by_another_clock()


async def test_what_sleeps_by_another_clock_is_found_on_either_database(
    store: IncidentStore, clock: Clock
) -> None:
    clock.forward(7200)
    await store.accept([FailureId(airflow="default", task=make_task(), try_number=1)], door=Door.LISTENER)
    assert not await store.sleeps_by_another_clock()
    clock.forward(-7200)
    assert await store.sleeps_by_another_clock()

    await store.wake_sleepers()

    assert len(await store.new_occurrences()) == 1


def test_only_a_step_back_counts() -> None:
    clock, moment = Clock(), [0.0]
    drift = Drift(clock, timer=lambda: moment[0])
    seen = []
    for wall, steady in ((1, 1), (3600, 1), (1, 1), (-3600, 1), (0, 4)):
        clock.forward(wall)
        moment[0] += steady
        seen.append(drift.went_back())

    assert seen == [False, False, False, True, False]
