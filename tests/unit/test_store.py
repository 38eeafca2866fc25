"""The store's promises, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.domain import Answer, AnswerKind, Door, IncidentKind, Outcome, Status
from graph.errors import DecisionConflict, IncidentNotFound, LeaseLost
from server.driving import Fresh, Taken
from server.ground import is_gone
from server.record import IncidentRecord, Lease
from server.store import LEASE, IncidentStore
from tests.factories import Clock, make_failure, make_snapshot
from tools.correlation import Cause

APPROVE = Answer(kind=AnswerKind.APPROVE, by="ada")


async def open_one(store: IncidentStore) -> int:
    await store.accept([make_failure()], door=Door.LISTENER)
    (occurrence,) = await store.new_occurrences()
    incident_id, created = await store.open_incident(occurrence, make_snapshot())
    assert created
    return incident_id


async def ask(store: IncidentStore, lease: Lease, clock: Clock, *, seconds: float = 60) -> int:
    until = clock() + (LEASE * seconds) / LEASE.total_seconds()
    record = await store.incident(lease.incident_id)
    version = record.version + 1
    waiting = Status.WAITING_DECISION.value
    await store.settle(lease, wake_at=until, status=waiting, expires_at=until, version=version)
    return version


async def test_the_same_failure_through_two_doors_is_one_occurrence(store: IncidentStore) -> None:
    failure = make_failure()

    assert await store.accept([failure], door=Door.LISTENER, error="boom") == 1
    assert await store.accept([failure], door=Door.POLL) == 0

    (occurrence,) = await store.new_occurrences()
    assert (occurrence.door, occurrence.error) == (Door.LISTENER, "boom")


async def test_a_repeated_delivery_stores_nothing(store: IncidentStore) -> None:
    assert await store.accept([make_failure()], door=Door.LISTENER, delivery="msg_1") == 1
    assert await store.accept([make_failure(try_number=2)], door=Door.LISTENER, delivery="msg_1") == 0
    assert len(await store.new_occurrences()) == 1


async def test_a_second_failure_joins_the_open_incident(store: IncidentStore) -> None:
    first = await open_one(store)
    await store.accept([make_failure(try_number=2)], door=Door.LISTENER)
    (occurrence,) = await store.new_occurrences()

    assert await store.open_incident(occurrence, make_snapshot()) == (first, False)
    assert len((await store.detail(first)).occurrences) == 2


async def test_a_closed_incident_is_not_joined(store: IncidentStore, clock: Clock) -> None:
    first = await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=5)
    await store.settle(lease, wake_at=None, status="closed", outcome="healed", open_key=None)
    await store.accept([make_failure(try_number=2)], door=Door.POLL)
    (occurrence,) = await store.new_occurrences()

    second, created = await store.open_incident(occurrence, make_snapshot())

    assert created
    assert second != first
    assert await store.outcomes() == {Outcome.HEALED: 1}


async def escalated(store: IncidentStore, cause: Cause | None = None) -> int:
    await store.accept([make_failure()], door=Door.LISTENER)
    (occurrence,) = await store.new_occurrences()
    incident_id, _ = await store.open_incident(occurrence, make_snapshot(), cause=cause)
    (lease,) = await store.claim_due(owner="a", limit=5)
    await store.settle(lease, wake_at=None, status="escalated", outcome="escalated")
    return incident_id


async def test_who_joins_for_its_cause_while_a_person_closes_is_not_lost(
    store: IncidentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    cause = Cause(key="c1", family="network", resource="db17", kernel="refused")
    incident_id = await escalated(store, cause)
    await store.accept([make_failure(dag_id="feeds")], door=Door.LISTENER)
    (late,) = await store.new_occurrences()
    read = store.incident

    async def read_late(number: int) -> IncidentRecord:
        await store.fold(cause.key, incident_id, [late])
        return await read(number)

    with monkeypatch.context() as patch:
        patch.setattr(store, "incident", read_late)
        await store.close(incident_id, by="ada", reason="done by hand")

    assert (await store.incident(incident_id)).status is Status.CLOSED
    assert [one.id for one in await store.new_occurrences()] == [late.id]


async def test_who_joins_as_its_task_failed_again_while_a_person_closes_is_not_lost(
    engine: AsyncEngine, store: IncidentStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = await escalated(store)
    await store.accept([make_failure(try_number=2)], door=Door.LISTENER)
    (late,) = await store.new_occurrences()
    rouse, closing = store._rouse, list[asyncio.Task[IncidentRecord]]()
    elsewhere = IncidentStore(engine, clock=clock)

    async def rouse_late(*given: Any) -> None:
        closing.append(asyncio.create_task(elsewhere.close(incident_id, by="ada", reason="done by hand")))
        await asyncio.sleep(0.2)
        await rouse(*given)

    monkeypatch.setattr(store, "_rouse", rouse_late)
    await store.open_incident(late, make_snapshot(try_number=2))

    with pytest.raises(DecisionConflict):
        await closing[0]
    assert (await store.incident(incident_id)).status is Status.OPEN


async def test_a_close_that_cannot_be_told_is_none(
    store: IncidentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    incident_id = await escalated(store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "event_row", _fails)
        patch.setattr(store, "add_event", _fails)
        with pytest.raises(RuntimeError):
            await store.close(incident_id, by="ada", reason="done by hand")

    assert (await store.incident(incident_id)).status is Status.ESCALATED


def _fails(*_: object, **__: object) -> None:
    raise RuntimeError("no")


async def test_a_failure_that_an_incident_has_taken_up_opens_no_other(store: IncidentStore) -> None:
    """Who was stopped between reading it and opening finds that another process was faster."""
    await store.accept([make_failure()], door=Door.LISTENER)
    (occurrence,) = await store.new_occurrences()
    first, _ = await store.open_incident(occurrence, make_snapshot(), data={})
    (lease,) = await store.claim_due(owner="a", limit=5)
    await store.settle(lease, wake_at=None, status="closed", outcome="healed", open_key=None)

    with pytest.raises(LeaseLost, match="taken up by another"):
        await store.open_incident(occurrence, make_snapshot(), data={})
    await store.reject_occurrence(occurrence.id, "Airflow knows no such task instance")

    assert [one.id for one in await store.incidents()] == [first]
    assert [one.name for one in await store.events(incident_id=first)] == ["opened"]
    (kept,) = (await store.detail(first)).occurrences
    assert kept.status == "incident"


async def test_one_incident_is_claimed_by_one_worker(store: IncidentStore) -> None:
    await open_one(store)

    claims = await asyncio.gather(*(store.claim_due(owner=f"w{n}", limit=5) for n in range(6)))

    assert sum(len(leases) for leases in claims) == 1


async def test_a_worker_whose_lease_was_taken_over_changes_nothing(
    store: IncidentStore, clock: Clock
) -> None:
    incident_id = await open_one(store)
    (old,) = await store.claim_due(owner="old", limit=5)
    clock.forward(LEASE.total_seconds() + 1)
    (new,) = await store.claim_due(owner="new", limit=5)

    with pytest.raises(LeaseLost):
        await store.record(old, root_cause="code_error", events=[{"name": "diagnosed"}])

    assert new.epoch == old.epoch + 1
    assert (await store.incident(incident_id)).root_cause is None
    assert await store.events(incident_id=incident_id) == []


async def test_a_wake_up_while_driving_is_not_lost(store: IncidentStore, clock: Clock) -> None:
    await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=5)
    clock.forward(1)
    await store.wake({("orders", "manual__1")})
    clock.forward(1)

    await store.settle(lease, wake_at=clock() + LEASE, status=Status.WAITING_OUTCOME.value)

    assert len(await store.claim_due(owner="a", limit=5)) == 1


class Hand:
    """Takes what is opened, and drives none of it."""

    owner = "here:1"

    def __init__(self) -> None:
        self.taken: list[tuple[Lease, Taken]] = []

    def take(self, lease: Lease, taken: Taken) -> None:
        self.taken.append((lease, taken))


async def open_for(store: IncidentStore, hand: Hand, **given: Any) -> tuple[Lease, Taken]:
    await store.accept([make_failure(**given)], door=Door.LISTENER)
    (occurrence,) = await store.new_occurrences()
    _, created = await store.open_incident(occurrence, make_snapshot(task=occurrence.task), taker=hand)
    assert created
    return hand.taken[-1]


async def test_what_is_opened_for_somebody_is_his_alone(store: IncidentStore, clock: Clock) -> None:
    lease, taken = await open_for(store, Hand())

    assert taken.record == (await store.taken([lease]))[lease.incident_id].record
    assert (taken.checkpoint, taken.seen) == (None, make_snapshot(task=taken.record.task))
    assert await store.claim_due(owner="here:2", limit=5) == []
    assert await store.claim_due(owner="here:1", limit=5, in_hand={lease.incident_id}) == []
    await store.settle(lease, wake_at=clock() + LEASE, status=Status.WAITING_TIMER.value)
    assert (await store.incident(lease.incident_id)).status is Status.WAITING_TIMER


async def test_what_is_opened_for_somebody_is_not_claimed_before_he_knows_of_it(
    store: IncidentStore, clock: Clock
) -> None:
    """Between the commit and the word that it is his, he may be looking for what he lost."""
    await open_for(store, Hand())

    assert await store.claim_due(owner="here:1", limit=5, in_hand=()) == []


@pytest.mark.parametrize(
    "seconds", [pytest.param(3, id="a moment later"), pytest.param(-3600, id="the clock was put back")]
)
async def test_what_was_opened_for_somebody_and_never_driven_is_claimed(
    store: IncidentStore, clock: Clock, seconds: float
) -> None:
    lease, _ = await open_for(store, Hand())
    clock.forward(seconds)
    await store.wake_sleepers()

    (again,) = await store.claim_due(owner="here:1", limit=5, in_hand=())

    assert again.epoch > lease.epoch
    with pytest.raises(LeaseLost):
        await store.settle(lease, wake_at=None)


async def test_what_joins_is_handed_to_nobody(store: IncidentStore) -> None:
    await open_one(store)
    await store.accept([make_failure(try_number=2)], door=Door.LISTENER)
    (occurrence,) = await store.new_occurrences()
    hand = Hand()

    assert (await store.open_incident(occurrence, make_snapshot(), taker=hand))[1] is False
    assert hand.taken == []


async def test_failures_that_nobody_has_looked_at_are_claimed_alone_when_there_are_no_hands_for_others(
    store: IncidentStore, clock: Clock
) -> None:
    await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=5)
    await store.settle(lease, wake_at=clock(), status=Status.WAITING_TIMER.value)
    assert await store.claim_due(owner="a", limit=5, fresh=Fresh.ALONE) == []
    await store.accept([make_failure(dag_id="other")], door=Door.LISTENER)
    (occurrence,) = await store.new_occurrences()
    new, _ = await store.open_incident(occurrence, make_snapshot(task=occurrence.task))

    assert [one.incident_id for one in await store.claim_due(owner="a", limit=5, fresh=Fresh.ALONE)] == [new]
    assert len(await store.claim_due(owner="a", limit=5)) == 1


async def test_an_incident_sleeps_until_its_time(store: IncidentStore, clock: Clock) -> None:
    await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=5)
    await store.settle(lease, wake_at=clock() + LEASE, status=Status.WAITING_TIMER.value)

    assert await store.claim_due(owner="a", limit=5) == []
    clock.forward(LEASE.total_seconds())
    assert len(await store.claim_due(owner="a", limit=5)) == 1


async def test_the_first_answer_wins(store: IncidentStore, clock: Clock) -> None:
    incident_id = await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=5)
    version = await ask(store, lease, clock)

    answers = await asyncio.gather(
        *(store.answer(incident_id, version=version, answer=APPROVE) for _ in range(4)),
        return_exceptions=True,
    )

    assert sum(isinstance(one, DecisionConflict) for one in answers) == 3
    assert len(await store.claim_due(owner="a", limit=5)) == 1


@pytest.mark.parametrize(
    ("version_off", "seconds", "words"),
    [
        pytest.param(-1, 0, "moved on", id="another version"),
        pytest.param(0, 61, "expired", id="too late"),
    ],
)
async def test_an_answer_that_does_not_fit_is_refused(
    store: IncidentStore, clock: Clock, version_off: int, seconds: float, words: str
) -> None:
    incident_id = await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=5)
    version = await ask(store, lease, clock)
    clock.forward(seconds)

    with pytest.raises(DecisionConflict, match=words):
        await store.answer(incident_id, version=version + version_off, answer=APPROVE)


async def test_a_withdrawn_question_takes_no_answer(store: IncidentStore, clock: Clock) -> None:
    incident_id = await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=5)
    version = await ask(store, lease, clock)
    await store.withdraw(incident_id, version=version, reason="the task runs again")

    with pytest.raises(DecisionConflict):
        await store.answer(incident_id, version=version, answer=APPROVE)

    record = await store.incident(incident_id)
    assert Answer.model_validate(record.answer).kind is AnswerKind.STALE


async def test_unknown_incident(store: IncidentStore) -> None:
    with pytest.raises(IncidentNotFound):
        await store.answer(99, version=1, answer=APPROVE)


async def test_a_log_is_stored_once_and_comes_back(store: IncidentStore) -> None:
    text = "line one\nline two ☃\n" * 1000

    assert await store.put_log(text) == (digest := await store.put_log(text))
    assert await store.get_log(digest) == text
    assert await store.get_log("nothing") is None


async def test_remembered_values_are_replaced(store: IncidentStore) -> None:
    await store.remember("k", {"n": 1})
    await store.remember("k", {"n": 2})

    assert await store.setting("k") == {"n": 2}
    assert await store.setting("other") is None


async def test_the_leases_of_a_dead_worker_are_given_up_at_once(store: IncidentStore) -> None:
    await open_one(store)
    await store.claim_due(owner="here:1", limit=5)

    assert await store.free_leases(dead=lambda owner: owner == "elsewhere:1") == 0
    assert await store.claim_due(owner="here:2", limit=5) == []
    assert await store.free_leases(dead=lambda owner: owner == "here:1") == 1
    (lease,) = await store.claim_due(owner="here:2", limit=5)
    assert lease.epoch == 2


@pytest.mark.parametrize(
    ("other", "gone"),
    [
        pytest.param("me:space:1", True, id="our own name at start is of a former life"),
        pytest.param(f"me:space:{os.getpid()}", False, id="a process that lives"),
        pytest.param("me:space:999999999", True, id="a process that is no more"),
        pytest.param("me:other:999999999", False, id="another container's processes cannot be seen"),
        pytest.param("you:space:999999999", False, id="another machine's neither"),
        pytest.param("strange", False, id="a name of another form"),
    ],
)
def test_whose_owner_is_gone(other: str, gone: bool) -> None:
    assert is_gone(other, "me:space:1") is gone


async def test_who_waits_for_a_person_is_found_by_kind_and_by_run(store: IncidentStore, clock: Clock) -> None:
    number = await open_one(store)
    (lease,) = await store.claim_due(owner="a", limit=1)
    await ask(store, lease, clock)
    (record,) = await store.asking()
    run, others = (record.task.dag_id, record.task.run_id), {(f"dag_{n}", "r") for n in range(700)}

    assert [one.id for one in await store.asking(kind=IncidentKind.FAILURE, runs={run, *others})] == [number]
    assert await store.asking(kind=IncidentKind.STUCK) == []
    assert await store.asking(runs=others) == []
