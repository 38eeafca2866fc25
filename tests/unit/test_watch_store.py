"""What the watch remembers, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.domain import Severity
from server.watch.findings import Findings, Sight
from server.watch.store import KEPT, Durations, Suspect, WatchStore
from tests.factories import START, Clock


@pytest.fixture
def memory(engine: AsyncEngine, clock: Clock) -> WatchStore:
    return WatchStore(engine, clock=clock)


async def test_suspects_are_kept_changed_and_forgotten(memory: WatchStore) -> None:
    one = Suspect(dag_id="orders", due=START, paused=True, check_at=START, reason="")
    other = one.model_copy(update={"dag_id": "feed"})
    await memory.put_suspects([one, other])
    later = one.model_copy(update={"check_at": START + timedelta(hours=1), "reason": "nothing yet"})
    await memory.put_suspects([later], gone=["feed"])

    assert await memory.suspects() == {"orders": later}


async def test_only_the_newest_durations_are_kept(memory: WatchStore) -> None:
    name, other = ("orders", "load"), ("orders", "fetch")
    many = Durations(seconds=tuple(float(n) for n in range(KEPT + 10)), until=START)
    await memory.put_durations({name: many, other: Durations(seconds=(1.0,), until=START)})

    known = await memory.durations({name, other, ("nobody", "knows")})
    assert set(known) == {name, other}
    assert known[name].seconds == many.seconds[-KEPT:]
    assert known[name].until == START


async def test_a_dag_without_writes_of_ours_was_not_paused_by_us(memory: WatchStore) -> None:
    assert not await memory.paused_by_us("orders")


async def test_findings_begin_go_on_and_end(engine: AsyncEngine, clock: Clock) -> None:
    findings = Findings(engine, clock=clock)
    sight = Sight(kind="pool_starvation", subject="narrow", text="full", numbers={"slots": 4})
    assert await findings.sync("pool_starvation", [sight]) == (1, 0)
    clock.forward(60)
    later = sight.model_copy(update={"text": "still full"})
    assert await findings.sync("pool_starvation", [later]) == (0, 0)
    (found,) = await findings.listed(lasting=True)
    assert (found.since, found.seen_at, found.until) == (START, START + timedelta(seconds=60), None)
    assert (found.text, found.severity, found.numbers) == ("still full", Severity.MEDIUM, {"slots": 4})
    assert await findings.sync("duration_drift", []) == (0, 0)
    assert await findings.sync("pool_starvation", []) == (0, 1)

    assert await findings.listed(lasting=True) == []
    assert len(await findings.listed(lasting=False, kind="pool_starvation")) == 1
    assert await findings.listed(before=found.id) == []
