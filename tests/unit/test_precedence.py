"""New failures go first, and what goes on has its turns."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from graph.domain import Door, Status
from server.precedence import AFTER, LEAST, PAUSE, Precedence, kept_for_others, room_for_others
from server.store import IncidentStore
from tests.factories import Clock, make_failure, make_snapshot


async def test_without_new_failures_nobody_waits() -> None:
    precedence = Precedence()

    async with asyncio.timeout(PAUSE / 2):
        for _ in range(100):
            await precedence.turn()


async def test_beside_new_failures_each_gets_a_turn_one_after_the_other() -> None:
    precedence, loop = Precedence(), asyncio.get_running_loop()
    since, taken = loop.time(), []

    async def step(name: int) -> None:
        await precedence.turn()
        taken.append((name, loop.time() - since))

    with precedence.first():
        async with asyncio.timeout(10):
            await asyncio.gather(*(step(name) for name in range(5)))

    assert [name for name, _ in taken] == list(range(5))
    assert all(at >= (name + 0.8) * PAUSE for name, at in taken)


async def test_when_they_are_through_the_rest_follows_quickly() -> None:
    precedence = Precedence()
    with precedence.first():
        waiting = [asyncio.create_task(precedence.turn()) for _ in range(20)]
        await asyncio.sleep(0)

    async with asyncio.timeout(10):
        await asyncio.gather(*waiting)
    await precedence.turn()
    assert AFTER < PAUSE


async def test_who_stops_waiting_holds_nobody_up() -> None:
    precedence = Precedence()
    with precedence.first():
        gone, stays = (asyncio.create_task(precedence.turn()) for _ in range(2))
        await asyncio.sleep(0)
        gone.cancel()

        async with asyncio.timeout(10):
            await stays


@pytest.mark.parametrize(
    ("most", "free", "others", "turn", "kept"),
    [
        pytest.param(16, 16, 0, 1, 4, id="a quarter of the hands is left to them"),
        pytest.param(16, 10, 3, 1, 1, id="less what they have"),
        pytest.param(16, 10, 8, 1, 0, id="nothing more when they have it"),
        pytest.param(16, 2, 0, 1, 2, id="of the hands that are free"),
        pytest.param(1, 1, 0, LEAST - 1, 0, id="a single hand is for new failures"),
        pytest.param(1, 1, 0, LEAST, 1, id="but for each fourth turn"),
    ],
)
def test_what_new_failures_leave(most: int, free: int, others: int, turn: int, kept: int) -> None:
    assert kept_for_others(most, free, others=others, turn=turn) == kept


@pytest.mark.parametrize(
    ("most", "free", "others", "fresh", "room"),
    [
        pytest.param(16, 16, 0, 0, 16, id="all hands when nothing is new"),
        pytest.param(16, 12, 0, 4, 8, id="half of them beside new failures"),
        pytest.param(16, 8, 8, 1, 0, id="no more than half"),
        pytest.param(1, 0, 0, 1, 0, id="none that is not free"),
        pytest.param(1, 1, 0, 0, 1, id="a single hand is not idle"),
    ],
)
def test_what_the_rest_may_take(most: int, free: int, others: int, fresh: int, room: int) -> None:
    assert room_for_others(most, free, others=others, fresh=fresh) == room


async def test_new_failures_can_be_claimed_apart(store: IncidentStore, clock: Clock) -> None:
    numbers = []
    for dag in ("old", "new"):
        await store.accept([make_failure(dag_id=dag)], door=Door.POLL)
        (occurrence,) = await store.new_occurrences()
        numbers.append((await store.open_incident(occurrence, make_snapshot()))[0])
        if dag == "old":
            (lease,) = await store.claim_due(owner="a", limit=1)
            later = clock() + timedelta(seconds=5)
            await store.settle(lease, wake_at=later, status=Status.WAITING_TIMER.value)
            clock.forward(5)

    (new,) = await store.claim_due(owner="a", limit=5, fresh_only=True)
    (old,) = await store.claim_due(owner="a", limit=5)

    assert [old.incident_id, new.incident_id] == numbers
