"""Failures that come in together: each sender learns of their own, on both databases alike."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlmodel import col

from graph.domain import Door, TaskRef
from graph.errors import StoreUnavailable
from server.db.group_writer import Writing
from server.db.tables import OccurrenceRow
from server.store import IncidentStore
from tests.factories import Clock, make_failure


async def test_many_at_once_are_each_told_apart(store: IncidentStore) -> None:
    known = make_failure(run_id="known")
    await store.accept([known], door=Door.POLL)

    new = await asyncio.gather(
        *(
            store.accept([make_failure(run_id=f"run {n}")], door=Door.LISTENER, delivery=f"msg {n}")
            for n in range(40)
        ),
        store.accept([known], door=Door.LISTENER, delivery="of what is known"),
    )

    assert new == [1] * 40 + [0]
    assert len(await store.new_occurrences(limit=100)) == 41


async def test_of_the_same_delivery_at_once_the_first_counts_whatever_the_others_say(
    store: IncidentStore,
) -> None:
    failures = [make_failure(run_id=f"run {n}") for n in range(5)]

    new = await asyncio.gather(
        *(store.accept([one], door=Door.LISTENER, delivery="msg_1") for one in failures)
    )

    assert new == [1, 0, 0, 0, 0]
    (occurrence,) = await store.new_occurrences()
    assert occurrence.task.run_id == "run 0"


async def test_of_the_same_failure_at_once_one_is_new(store: IncidentStore) -> None:
    failure = make_failure()

    new = await asyncio.gather(
        *(
            store.accept([failure], door=door, error=error)
            for door, error in ((Door.LISTENER, "boom"), (Door.POLL, ""), (Door.WEBHOOK, "bang"))
        )
    )

    assert new == [1, 0, 0]
    (occurrence,) = await store.new_occurrences()
    assert (occurrence.door, occurrence.error) == (Door.LISTENER, "boom")


async def test_a_poll_learns_how_many_were_new(store: IncidentStore) -> None:
    await store.accept([make_failure(run_id="run 1")], door=Door.LISTENER)
    found = [make_failure(run_id=f"run {n}") for n in (1, 2, 3, 2)]

    assert await store.accept(found, door=Door.POLL) == 2
    assert await store.accept([], door=Door.POLL) == 0


async def test_what_the_database_refuses_keeps_nobody_else_out(store: IncidentStore) -> None:
    """One of a transaction cannot be stored: the others are, each by itself."""
    many = [store.accept([make_failure(run_id=f"run {n}")], door=Door.LISTENER) for n in range(3)]
    nameless: Any = {"dag_id": "orders", "run_id": None, "task_id": "load", "map_index": -1}
    task = TaskRef.model_construct(**nameless)
    odd = make_failure().model_copy(update={"task": task})
    refused = store.accept([odd], door=Door.LISTENER)

    new = await asyncio.gather(*many, refused, return_exceptions=True)

    assert new[:3] == [1, 1, 1]
    assert isinstance(new[3], Exception)


async def test_what_comes_together_is_redacted_before_it_is_stored(store: IncidentStore) -> None:
    """Each as if it had come alone: with secrets, without, cut to length only when they are gone."""
    secret = "hunter2" * 10
    errors = {
        "clean": "ConnectionError: refused",
        "secret": f"cannot connect: password={secret}",
        "long": "x" * 1985 + f" password={secret}",
        "hidden": f"pass\0word={secret}",
        "opens": "name: token",
        "next": f" value: {secret}",
    }

    new = await asyncio.gather(
        *(
            store.accept([make_failure(run_id=name)], door=Door.LISTENER, error=error)
            for name, error in errors.items()
        )
    )

    stored = {one.task.run_id: one.error for one in await store.new_occurrences()}
    assert new == [1] * len(errors)
    assert stored == {
        "clean": errors["clean"],
        "secret": "cannot connect: password=[password]",
        "long": ("x" * 1985 + " password=[password]")[:2000],
        "hidden": "password=[password]",
        "opens": "name: token",
        "next": errors["next"],
    }


async def test_received_is_when_it_was_stored(store: IncidentStore, clock: Clock) -> None:
    clock.forward(timedelta(minutes=5).total_seconds())
    await store.accept([make_failure()], door=Door.LISTENER)

    async with store._engine.connect() as connection:
        received = (await connection.execute(select(col(OccurrenceRow.received_at)))).scalar_one()
    assert received == clock()


async def test_what_comes_in_does_not_wait_for_many_others(store: IncidentStore) -> None:
    """Other jobs ride along, a few in each transaction; all of them are done in the end."""
    order: list[str] = []

    async def other(_writing: Writing) -> None:
        await asyncio.sleep(0)
        order.append("other")

    async def accept(number: int) -> None:
        await store.accept([make_failure(run_id=f"run {number}")], door=Door.LISTENER)
        order.append("event")

    jobs = [store.writer.run(other) for _ in range(40)]
    await asyncio.gather(*jobs, *(accept(n) for n in range(3)))

    assert order.count("other") == 40
    assert order.index("event") < 40


class Full:
    """A disk without room, for as long as it is."""

    def __init__(self, store: IncidentStore) -> None:
        self._store = store

    async def limit(self, pages: str) -> None:
        async with self._store._engine.connect() as connection:
            await connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_full_disk_is_said_and_forgotten_when_there_is_room(store: IncidentStore) -> None:
    # Every connection has its own limit: with one in the pool it is the writer's.
    full = Full(store)
    await full.limit("1")

    many = [make_failure(run_id=f"{number}" * 40) for number in range(2000)]
    with pytest.raises(StoreUnavailable, match="full"):
        await store.accept(many, door=Door.LISTENER)
    await full.limit("1073741823")

    assert await store.accept([make_failure(run_id="after")], door=Door.LISTENER) == 1
