"""Counts of incidents are those of the moment, whatever was counted before."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import delete, insert
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import Outcome, Status
from server.db.tables import IncidentRow
from server.observe.standing import ANEW, MANY, SERVES, SETTLED, Standing
from server.store import IncidentStore
from tests.factories import Clock


async def add(engine: AsyncEngine, clock: Clock, *, dag_id: str = "orders", **given: Any) -> None:
    row = {
        "airflow": "default",
        "dag_id": dag_id,
        "run_id": "run_1",
        "task_id": "load",
        "status": "closed",
        "outcome": "healed",
        "opened_at": clock(),
        "updated_at": clock(),
        "closed_at": clock() if given.get("status", "closed") == "closed" else None,
        **given,
    }
    async with engine.begin() as connection:
        await connection.execute(insert(IncidentRow).values(**row))


async def test_what_is_closed_between_two_looks_is_counted_once(
    store: IncidentStore, engine: AsyncEngine, clock: Clock
) -> None:
    await add(engine, clock)
    assert await store.outcomes() == {Outcome.HEALED: 1}

    for seconds in (1, SETTLED.total_seconds(), 2 * ANEW.total_seconds()):
        clock.forward(seconds)
        await add(engine, clock)
        await add(engine, clock, outcome="dismissed")
        await store.outcomes()
        await asyncio.sleep(0.05)  # counted anew in the background, if it is time

    assert await store.outcomes() == {Outcome.HEALED: 4, Outcome.DISMISSED: 3}
    assert await store.status_counts() == {Status.CLOSED: 7}


async def test_the_open_ones_are_those_of_the_moment(
    store: IncidentStore, engine: AsyncEngine, clock: Clock
) -> None:
    await add(engine, clock, status="waiting_decision", outcome=None, dag_id="asks")
    await add(engine, clock, status="escalated", outcome="expired")
    before = await store.status_counts(), await store.outcomes()

    async with engine.begin() as connection:
        await connection.execute(delete(IncidentRow).where(col(IncidentRow.dag_id) == "asks"))

    assert before == ({Status.WAITING_DECISION: 1, Status.ESCALATED: 1}, {Outcome.EXPIRED: 1})
    assert await store.status_counts() == {Status.ESCALATED: 1}


async def test_what_retention_removed_is_noticed(
    store: IncidentStore, engine: AsyncEngine, clock: Clock
) -> None:
    await add(engine, clock)
    clock.forward(2 * SETTLED.total_seconds())
    assert await store.outcomes() == {Outcome.HEALED: 1}
    async with engine.begin() as connection:
        await connection.execute(delete(IncidentRow))

    clock.forward(ANEW.total_seconds())
    await store.outcomes()
    for _ in range(100):
        await asyncio.sleep(0.01)
        found = await store.outcomes()
        if not found:
            break
    assert found == {}


async def test_a_look_at_many_serves_others_for_a_moment_and_one_at_few_does_not(
    store: IncidentStore, engine: AsyncEngine, clock: Clock
) -> None:
    seconds = [0.0]
    standing = Standing(engine, clock=clock, timer=lambda: seconds[0])
    waiting: dict[str, Any] = {
        "airflow": "default", "dag_id": "orders", "task_id": "load", "status": "escalated",
        "outcome": "escalated", "opened_at": clock(), "updated_at": clock(),
    }  # fmt: skip
    key = (Status.ESCALATED, Outcome.ESCALATED)
    await add(engine, clock, **waiting)
    assert await standing.look() == {key: 1}
    async with engine.begin() as connection:
        await connection.execute(insert(IncidentRow), [waiting | {"run_id": f"r{n}"} for n in range(MANY)])

    assert await standing.look() == {key: MANY + 1}
    await add(engine, clock, **waiting)
    assert await standing.look() == {key: MANY + 1}
    seconds[0] += SERVES * (MANY + 2)
    assert await standing.look() == {key: MANY + 2}
