"""Several processes on one Postgres: who is dead, who has a duty, and who is woken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.domain import Door
from server.crew import LOOK_FOR_UNKNOWN, Crew, listen
from server.db.database import open_database
from server.store import IncidentStore
from tests.factories import Clock, make_failure, make_snapshot


@pytest.fixture
def url(new_database: Callable[[str], str]) -> str:
    return new_database("postgres")


@pytest.fixture
async def shared(url: str) -> AsyncIterator[AsyncEngine]:
    async with open_database(url) as engine:
        yield engine


def crew(engine: AsyncEngine, owner: str, *, dead: str = "") -> Crew:
    return Crew(engine, owner=owner, is_dead=lambda other: other == dead)


async def claimed(store: IncidentStore, owner: str) -> None:
    await store.accept([make_failure()], door=Door.POLL)
    (occurrence,) = await store.new_occurrences()
    await store.open_incident(occurrence, make_snapshot())
    assert len(await store.claim_due(owner=owner, limit=1)) == 1


async def silence(engine: AsyncEngine, owner: str) -> None:
    async with engine.begin() as connection:
        query = "UPDATE worker SET seen_at = now() - interval '10 seconds' WHERE owner = :owner"
        await connection.execute(text(query), {"owner": owner})


@pytest.mark.parametrize("how", ["silent", "gone"])
async def test_the_incidents_of_a_dead_worker_are_given_back(
    shared: AsyncEngine, clock: Clock, how: str
) -> None:
    store = IncidentStore(shared, clock=clock)
    await crew(shared, "dies").beat()
    await claimed(store, "dies")
    if how == "silent":
        await silence(shared, "dies")

    assert await crew(shared, "lives", dead="dies" if how == "gone" else "").beat() == 1

    (lease,) = await store.claim_due(owner="lives", limit=1)
    assert lease.epoch == 2


async def test_one_that_was_buried_and_drove_again_before_it_died_leaves_nothing_behind(
    shared: AsyncEngine, clock: Clock
) -> None:
    store = IncidentStore(shared, clock=clock)
    await claimed(store, "revived")
    lives = crew(shared, "lives")

    freed = [await lives.beat() for _ in range(LOOK_FOR_UNKNOWN)]

    assert sum(freed) == 1
    assert len(await store.claim_due(owner="lives", limit=1)) == 1


async def test_one_that_is_only_busy_keeps_what_it_drives(shared: AsyncEngine, clock: Clock) -> None:
    store = IncidentStore(shared, clock=clock)
    await crew(shared, "busy").beat()
    await claimed(store, "busy")

    assert await crew(shared, "other").beat() == 0
    assert await store.claim_due(owner="other", limit=1) == []


async def test_a_duty_is_one_process_s_until_it_dies(shared: AsyncEngine) -> None:
    first, second = crew(shared, "first"), crew(shared, "second")
    await first.beat()
    await second.beat()

    assert await first.on_duty("poll")
    assert not await second.on_duty("poll")
    assert await second.on_duty("watch")
    await silence(shared, "first")
    await second.beat()
    assert await second.on_duty("poll")
    assert not await first.on_duty("poll")


async def test_a_duty_is_free_when_its_owner_leaves(shared: AsyncEngine) -> None:
    first, second = crew(shared, "first"), crew(shared, "second")
    await first.beat()
    assert await first.on_duty("poll")

    await first.leave()

    assert await second.on_duty("poll")


async def test_who_leaves_gives_back_what_it_drove(shared: AsyncEngine, clock: Clock) -> None:
    store = IncidentStore(shared, clock=clock)
    leaving = crew(shared, "leaving")
    await leaving.beat()
    await claimed(store, "leaving")

    await leaving.leave()

    assert len(await store.claim_due(owner="other", limit=1)) == 1


async def test_a_sqlite_store_has_one_process(new_database: Callable[[str], str]) -> None:
    async with open_database(new_database("sqlite")) as engine:
        assert not crew(engine, "only").shared
        assert await crew(engine, "only").on_duty("poll")


async def test_what_one_process_makes_due_wakes_the_others(
    shared: AsyncEngine, url: str, clock: Clock
) -> None:
    rung = asyncio.Event()
    listening = asyncio.create_task(listen(url, ring=rung.set))
    try:
        async with asyncio.timeout(20):
            await rung.wait()  # once when it begins to listen
            rung.clear()
            await IncidentStore(shared, clock=clock).accept([make_failure()], door=Door.WEBHOOK)
            await rung.wait()
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
