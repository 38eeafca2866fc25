"""Writes that share a transaction: each is told apart, and none is lost with another."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.errors import LeaseLost
from server.db.group_writer import GroupWriter, Job, Writing
from server.db.tables import SettingRow
from tests.factories import START


def job(key: str, *, fails: bool = False) -> Job[str]:
    async def write(writing: Writing) -> str:
        row = {"key": key, "value": 1, "updated_at": START}
        await writing.connection.execute(insert(SettingRow).values(**row))
        if fails:
            raise LeaseLost(key)
        return key

    return write


async def stored(engine: AsyncEngine) -> set[str]:
    async with engine.connect() as connection:
        return set((await connection.execute(select(col(SettingRow.key)))).scalars())


async def test_many_at_once_are_all_written(engine: AsyncEngine) -> None:
    writer = GroupWriter(engine, audit=None)

    results = await asyncio.gather(*(writer.run(job(f"key {n}")) for n in range(100)))

    assert results == [f"key {n}" for n in range(100)]
    assert await stored(engine) == set(results)


async def test_one_that_fails_takes_nobody_along(engine: AsyncEngine) -> None:
    writer = GroupWriter(engine, audit=None)

    jobs = [writer.run(job(f"key {n}", fails=n == 3)) for n in range(6)]
    results = await asyncio.gather(*jobs, return_exceptions=True)

    assert isinstance(results[3], LeaseLost)
    assert await stored(engine) == {f"key {n}" for n in range(6) if n != 3}


async def test_a_caller_that_goes_away_leaves_the_others_alone(engine: AsyncEngine) -> None:
    writer = GroupWriter(engine, audit=None)
    first, second = (asyncio.create_task(writer.run(job(name))) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    first.cancel()

    assert await second == "stays"
    assert "stays" in await stored(engine)
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_writers_on_sqlite_take_turns(engine: AsyncEngine) -> None:
    """Transactions begun side by side on connections of their own wait for one another."""
    async with engine.begin() as connection:
        row = {"key": "count", "value": 0, "updated_at": START}
        await connection.execute(insert(SettingRow).values(**row))

    async def count() -> None:
        async with engine.begin() as connection:
            query = select(col(SettingRow.value)).where(col(SettingRow.key) == "count").with_for_update()
            await connection.execute(update(SettingRow).values(updated_at=START))
            now = int(str((await connection.execute(query)).scalar_one()))
            await asyncio.sleep(0)
            await connection.execute(update(SettingRow).values(value=now + 1))

    await asyncio.gather(*(count() for _ in range(20)))

    async with engine.connect() as connection:
        assert (await connection.execute(select(col(SettingRow.value)))).scalar_one() == 20
