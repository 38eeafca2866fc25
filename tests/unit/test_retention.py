"""Retention: what is old or too much goes, in small batches; what is open, or is the audit trail, stays."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.checkpoint import open_saver
from graph.domain import Door
from server.audit.chain import AuditKeys
from server.audit.trail import AuditTrail
from server.chat.threads import Threads
from server.db.retention import KEEP_DELIVERIES, Keep, Retention
from server.db.tables_work import CheckpointRow
from server.people.outbox import Outbox
from server.store import IncidentStore
from tests.factories import Clock, make_failure, make_snapshot
from tests.unit import serving
from tests.unit.serving import open_api
from tests.unit.test_metrics import heal
from tools.airflow_memory import MemoryAirflow

FOREVER = timedelta(days=10_000)
KEEP = Keep(incidents=timedelta(days=365), most_incidents=1000, logs=timedelta(days=90), log_bytes=10**9)


class World:
    """A store, and a retention over it."""

    def __init__(self, engine: AsyncEngine, clock: Clock, saver: Any) -> None:
        self.engine, self.clock, self.saver = engine, clock, saver
        self.audit = AuditTrail(engine, keys=AuditKeys(), clock=clock)
        self.store = IncidentStore(engine, clock=clock, audit=self.audit)
        self.counted = 0

    def retention(self, keep: Keep = KEEP) -> Retention:
        outbox = Outbox(
            self.engine,
            routing=None,
            door=None,
            airflow=MemoryAirflow(),
            clock=self.clock,
            link="",
            owner="test",
        )

        async def count() -> None:
            self.counted += 1

        return Retention(
            self.engine,
            keep=keep,
            saver=self.saver,
            outbox=outbox,
            audit=self.audit,
            clock=self.clock,
            before=count,
        )

    async def incident(self, run_id: str, *, closed: bool = True, log: str | None = None) -> int:
        failure = make_failure(run_id=run_id)
        await self.store.accept([failure], door=Door.WEBHOOK, delivery=f"delivery-{run_id}")
        (occurrence,) = await self.store.new_occurrences()
        number, _ = await self.store.open_incident(occurrence, make_snapshot(task=failure.task))
        await self.store.add_event("opened", incident_id=number)
        values: dict[str, Any] = {}
        if log is not None:
            values["log"] = await self.store.put_log(log)
        if closed:
            values |= {"status": "closed", "closed_at": self.clock(), "open_key": None}
        (lease,) = [
            one for one in await self.store.claim_due(owner="t", limit=50) if one.incident_id == number
        ]
        await self.store.settle(lease, wake_at=None, **values)
        return number

    async def count(self, table: str) -> int:
        async with self.engine.connect() as connection:
            return int((await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one())


@pytest.fixture
async def world(engine: AsyncEngine, clock: Clock, database_url: str) -> AsyncIterator[World]:
    async with open_saver(database_url) as saver:
        yield World(engine, clock, saver)


async def test_old_closed_incidents_go_with_all_that_hangs_on_them(world: World) -> None:
    await world.incident("old")
    open_ = await world.incident("open", closed=False)
    world.clock.forward(366 * 86400)
    young = await world.incident("young")

    gone = await world.retention().round()

    assert gone["incidents"] == 1
    assert {one.id for one in await world.store.incidents()} == {open_, young}
    assert (await world.count("occurrence"), await world.count("event")) == (2, 2)
    assert world.counted == 1


async def test_the_oldest_closed_incidents_go_when_there_are_too_many(world: World) -> None:
    numbers = []
    for run in range(4):
        numbers.append(await world.incident(f"run_{run}"))
        world.clock.forward(60)
    keep = Keep(incidents=FOREVER, most_incidents=2, logs=FOREVER, log_bytes=10**9)

    assert (await world.retention(keep).round())["incidents"] == 2
    assert {one.id for one in await world.store.incidents()} == set(numbers[2:])


async def test_old_logs_go_and_those_of_open_incidents_stay(world: World) -> None:
    closed = await world.incident("closed", log="closed " * 100)
    open_ = await world.incident("open", closed=False, log="open " * 100)
    world.clock.forward(91 * 86400)

    gone = await world.retention().round()

    assert gone["task_logs"] == 1
    logs = {one.id: one.log for one in await world.store.incidents()}
    assert await world.store.get_log(logs[closed] or "") is None
    assert await world.store.get_log(logs[open_] or "") is not None


async def test_logs_go_by_size_the_oldest_first(world: World) -> None:
    for run in range(3):
        await world.incident(f"run_{run}", log="".join(chr(97 + (i * (run + 7)) % 26) for i in range(2000)))
        world.clock.forward(60)
    keep = Keep(incidents=FOREVER, most_incidents=1000, logs=FOREVER, log_bytes=0)

    assert (await world.retention(keep).round())["task_logs"] == 3


async def test_what_the_intake_remembers_goes(world: World) -> None:
    await world.incident("one")
    world.clock.forward(KEEP_DELIVERIES.total_seconds() + 60)

    assert (await world.retention().round())["deliveries"] == 1


async def test_lines_of_no_incident_go_but_for_the_newest(world: World) -> None:
    for _ in range(3):
        await world.store.add_event("early_warning")
    world.clock.forward(91 * 86400)

    assert (await world.retention().round())["log_lines"] == 2
    assert await world.count("event") == 1


async def test_the_audit_trail_stays_whole_and_says_what_went(world: World) -> None:
    await world.audit.note("started", by="test")
    await world.incident("old")
    world.clock.forward(366 * 86400)

    await world.retention().round()

    kinds = [one.kind async for one in world.audit.entries()]
    assert kinds[0] == "started"
    assert kinds[-1] == "pruned"
    assert (await world.audit.verify())[1] is None


async def test_a_round_with_nothing_to_do_says_nothing(world: World) -> None:
    await world.incident("young")

    assert not any((await world.retention().round()).values())
    assert await world.count("audit") == 0


async def test_checkpoints_of_closed_incidents_go(world: World) -> None:
    closed, open_ = await world.incident("closed"), await world.incident("open", closed=False)
    async with world.engine.begin() as connection:
        for number in (closed, open_):
            await connection.execute(insert(CheckpointRow).values(incident_id=number, body=b"state"))

    assert (await world.retention().round())["checkpoints"] == 1
    assert await world.count("checkpoint") == 1


async def test_threads_in_which_nobody_speaks_go(world: World) -> None:
    await Threads(world.engine, clock=world.clock).touch("owner", "thread", title="hello")
    world.clock.forward(91 * 86400)

    assert (await world.retention().round())["chats"] == 1
    assert await world.count("chat_thread") == 0


BUDGET = 8 * 1024  # bytes of one closed incident, apart from its log
APART = ("log", "audit", "audit_head", "airmedic_schema", "setting")  # told below, or of no one incident


async def test_a_closed_incident_takes_little_whatever_the_size_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(1)
    lines = (f"[2026-03-01T03:00:00] INFO step {number} {rng.getrandbits(200):x}" for number in range(7000))
    monkeypatch.setattr(serving, "LOG", "\n".join([*lines, serving.LOG]))
    assert len(serving.LOG) > 512_000

    async with open_api(tmp_path) as api:
        number = await heal(api)

        assert (await api.incident(number))["status"] == "closed"
        stored = await _stored(api.service.people.engine)
        assert sum(size for table, size in stored.items() if table not in APART) <= BUDGET
        assert stored["audit"] <= BUDGET / 2, "never pruned, so it must be small too"
        assert "checkpoint" not in stored
        assert stored["log"] < len(serving.LOG) / 2


async def _stored(engine: AsyncEngine) -> dict[str, int]:
    """Bytes of all values by table; those of the search index are a few hundred, and shared."""
    found = {}
    async with engine.connect() as connection:
        named = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'incident_words%'"
        for table in (await connection.execute(text(named))).scalars().all():
            columns = (
                await connection.execute(text(f"SELECT name FROM pragma_table_info('{table}')"))
            ).scalars()
            sizes = " + ".join(f'coalesce(length(CAST("{one}" AS BLOB)), 0)' for one in columns)
            query = text(f'SELECT coalesce(sum({sizes}), 0) FROM "{table}"')
            if size := int((await connection.execute(query)).scalar_one()):
                found[table] = size
    return found
