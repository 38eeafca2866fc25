"""What one drive promises: nothing is sent before it is on record; a crash loses what is found again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.checkpoint import CarriedSaver
from graph.domain import Action, Door, Outcome, Status, Step
from graph.errors import LeaseLost, StoreDoubt, StoreUnavailable
from server import ledger as ledgers
from server.db.group_writer import GroupWriter, Job
from server.draft import PATIENCE, Draft
from server.driving import Taken
from server.ledger import StoreLedger, entries_on_record
from server.record import Lease
from server.store import LEASE, IncidentStore
from tests.factories import Clock, make_clear, make_failure, make_snapshot, make_task
from tests.unit.healing_world import make_airflow, open_ward

WAIT = Action(name="wait", args={"seconds": 5})


class Drive:
    """One drive of the one incident in the store."""

    def __init__(self, engine: AsyncEngine, store: IncidentStore, lease: Lease, clock: Clock) -> None:
        self.lease = lease
        self.draft = Draft(store, lease, saver=CarriedSaver(), clock=clock)
        self.engine = engine
        self.ledger = StoreLedger(engine, self.draft, make_task(), clock=clock, quiet=frozenset({"wait"}))

    async def on_record(self) -> list[tuple[str, Step]]:
        """The ledger as another process would read it."""
        return [(entry.action.name, entry.step) for entry in await entries_on_record(self.engine, self.lease)]


@pytest.fixture
async def drive(engine: AsyncEngine, store: IncidentStore, clock: Clock) -> AsyncIterator[Drive]:
    await store.accept([make_failure()], door=Door.POLL)
    (occurrence,) = await store.new_occurrences()
    await store.open_incident(occurrence, make_snapshot())
    (lease,) = await store.claim_due(owner="a", limit=1)
    one = Drive(engine, store, lease, clock)
    yield one
    await one.draft.end()


async def test_sent_is_on_record_before_the_write_leaves(drive: Drive, store: IncidentStore) -> None:
    drive.draft.add([{"name": "diagnosed"}], {"reason": "because"})
    waited = await drive.ledger.intend(1, 0, WAIT, None)
    waited = await drive.ledger.advance(waited, Step.SENT)
    await drive.ledger.advance(waited, Step.CONFIRMED)
    entry = await drive.ledger.intend(1, 1, make_clear(), "before")
    assert await drive.on_record() == []

    await drive.ledger.advance(entry, Step.SENT)

    assert await drive.on_record() == [("wait", Step.CONFIRMED), ("clear_task", Step.SENT)]
    assert (await store.incident(drive.lease.incident_id)).reason == "because"
    assert [event.name for event in await store.events(incident_id=drive.lease.incident_id)] == ["diagnosed"]


async def test_a_step_taken_while_another_is_written_is_on_record_too(
    drive: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alarm writes the intent at the very moment at which the drive sends."""
    inserted, real = asyncio.Event(), ledgers.ENTRIES

    class Slow:
        async def run_many(self, connection: Any, rows: Any) -> None:
            await real.run_many(connection, rows)
            inserted.set()
            await asyncio.sleep(0.05)

    monkeypatch.setattr(ledgers, "ENTRIES", Slow())
    entry = await drive.ledger.intend(1, 0, make_clear(), None)
    alarm = asyncio.create_task(drive.draft.flush())
    await inserted.wait()

    sent = await drive.ledger.advance(entry, Step.SENT)

    await alarm
    assert await drive.on_record() == [("clear_task", Step.SENT)]
    await drive.ledger.advance(sent, Step.CONFIRMED)
    await drive.draft.settle(wake_at=None)
    assert await drive.on_record() == [("clear_task", Step.CONFIRMED)]


async def test_what_airflow_answered_may_wait_for_the_end_of_the_drive(drive: Drive) -> None:
    entry = await drive.ledger.intend(1, 0, make_clear(), None)
    sent = await drive.ledger.advance(entry, Step.SENT)
    await drive.ledger.advance(sent, Step.CONFIRMED, after={"state": "success"})
    assert await drive.on_record() == [("clear_task", Step.SENT)]

    await drive.draft.settle(wake_at=None)

    assert await drive.on_record() == [("clear_task", Step.CONFIRMED)]


async def test_after_a_takeover_nothing_is_sent(drive: Drive, store: IncidentStore, clock: Clock) -> None:
    entry = await drive.ledger.intend(1, 0, make_clear(), None)
    clock.forward(LEASE.total_seconds() + 1)
    (taken,) = await store.claim_due(owner="b", limit=1)

    with pytest.raises(LeaseLost):
        await drive.ledger.advance(entry, Step.SENT)

    assert await entries_on_record(drive.engine, taken) == ()


async def test_a_slow_step_keeps_nobody_waiting_for_the_log(drive: Drive, store: IncidentStore) -> None:
    drive.draft.add([{"name": "intervened"}], {})

    async with asyncio.timeout(20):
        while not await store.events(incident_id=drive.lease.incident_id):  # noqa: ASYNC110
            await asyncio.sleep(PATIENCE / 3)


async def test_what_was_not_written_is_written_the_next_time(
    drive: Drive, store: IncidentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = store.write_found

    async def fails(*_: Any) -> None:
        raise LeaseLost("not now")

    monkeypatch.setattr(store, "write_found", fails)
    drive.draft.add([{"name": "diagnosed"}], {"reason": "because"})
    with pytest.raises(LeaseLost):
        await drive.draft.flush()
    monkeypatch.setattr(store, "write_found", real)
    drive.draft.add([{"name": "decided"}], {})
    await drive.draft.flush()

    names = [event.name for event in await store.events(incident_id=drive.lease.incident_id)]
    assert names == ["diagnosed", "decided"]
    assert (await store.incident(drive.lease.incident_id)).reason == "because"


async def test_what_may_be_written_or_not_is_never_written_again(
    drive: Drive, store: IncidentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def written_and_not_said(writing: GroupWriter, job: Job[None], *, beside: bool) -> None:
        await run(writing, job, beside=beside)
        raise StoreDoubt("lost")

    run = GroupWriter.run
    drive.draft.add([{"name": "noted"}], {})
    with monkeypatch.context() as patch:
        patch.setattr(GroupWriter, "run", written_and_not_said)
        with pytest.raises(StoreDoubt):
            await drive.draft.flush()

    drive.draft.add([{"name": "noted"}], {})
    with pytest.raises(StoreDoubt):
        await drive.draft.flush()

    assert [event.name for event in await store.events(incident_id=drive.lease.incident_id)] == ["noted"]


async def test_a_closed_incident_leaves_no_checkpoint(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        record = await ward.only()
        leases = [Lease(incident_id=record.id, epoch=1, owner="test", since=clock())]
        assert record.status is Status.WAITING_TIMER
        assert (await ward.service.store.taken(leases))[record.id].checkpoint is not None
        await ward.pass_time(60)
        await ward.pass_time(30)

        assert (await ward.only()).outcome is Outcome.HEALED
        assert (await ward.service.store.taken(leases))[record.id].checkpoint is None


async def test_a_defect_while_looking_for_work_does_not_end_the_healing(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        store, claims = ward.service.store, 0
        claim_due = store.claim_due

        async def claim(**given: Any) -> list[Lease]:
            nonlocal claims
            claims += 1
            if claims == 1:
                raise RuntimeError("nobody thought of this")
            return await claim_due(**given)

        monkeypatch.setattr(store, "claim_due", claim)
        running = asyncio.create_task(ward.service.runner.run())
        while claims < 2:
            ward.service.runner.ring()
            await asyncio.sleep(0)
            assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_database_that_went_away_for_a_moment_does_not_end_the_renewals(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        store, renewed, tries = ward.service.store, asyncio.Event(), 0
        renew, taken = store.renew, store.taken

        async def renewing(lease: Lease) -> None:
            nonlocal tries
            tries += 1
            if tries == 1:
                raise StoreUnavailable("the database hung up")
            await renew(lease)
            renewed.set()

        async def slowly(leases: Sequence[Lease]) -> dict[int, Taken]:
            await asyncio.wait_for(renewed.wait(), 5)
            return await taken(leases)

        monkeypatch.setattr("server.runner.HEARTBEAT", 0.001)
        monkeypatch.setattr(store, "renew", renewing)
        monkeypatch.setattr(store, "taken", slowly)
        clock.forward(60)
        (lease,) = await store.claim_due(owner="test", limit=1)
        await ward.service.runner.drive(lease)

        assert (await ward.only()).status is Status.WAITING_OUTCOME


async def test_a_new_failure_is_driven_by_who_opened_it_and_claimed_by_nobody(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        claimed = []
        claim_due = ward.service.store.claim_due

        async def claim(**given: Any) -> list[Lease]:
            claimed.append(leases := await claim_due(**given))
            return leases

        monkeypatch.setattr(ward.service.store, "claim_due", claim)
        running = asyncio.create_task(ward.service.runner.run())
        await asyncio.sleep(0)
        before = airflow.calls.count("task")
        await ward.service.store.accept([make_failure()], door=Door.LISTENER)
        await ward.service.intake.admit()
        await ward.service.runner.settle_all()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

        assert (await ward.only()).status is Status.WAITING_TIMER
        assert [lease for leases in claimed for lease in leases] == []
        assert airflow.calls.count("task") == before + 1  # admission's own look serves both


async def test_a_service_that_stops_takes_up_nothing_any_more(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        runner = ward.service.runner
        assert runner.taker() is None
        running = asyncio.create_task(runner.run())
        await asyncio.sleep(0)
        taker = runner.taker()
        assert taker is not None
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await ward.service.store.accept([make_failure()], door=Door.LISTENER)
        (occurrence,) = await ward.service.store.new_occurrences()

        await ward.service.store.open_incident(occurrence, make_snapshot(), taker=taker)

        assert (await ward.only()).status is Status.OPEN
        clock.forward(3)  # it is ours, and nobody drives it
        await ward.go_on()
        assert (await ward.only()).status is not Status.OPEN
