"""Writes that share a transaction: each is told apart, and none is lost with another."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.errors import LeaseLost, StoreDoubt, StoreUnavailable
from server.background import beside
from server.db.database import open_database, store_errors
from server.db.driver import READER
from server.db.group_writer import GroupWriter, Job, Writing
from server.db.prepared import Prepared
from server.db.tables import SettingRow
from tests.factories import START
from tests.unit.postgres_proxy import Proxy


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


async def test_who_comes_while_the_connection_is_given_back_is_written_too(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closed = AsyncConnection.close, asyncio.Semaphore(0)

    async def slowly(connection: AsyncConnection) -> None:
        await asyncio.sleep(0.02)
        await close(connection)
        closed.release()

    monkeypatch.setattr(AsyncConnection, "close", slowly)
    writer = GroupWriter(engine, audit=None)

    async with asyncio.timeout(20):
        await writer.run(job("first"))
        await writer.run(job("second"))
        await closed.acquire()
        await closed.acquire()


async def test_a_caller_that_goes_away_leaves_the_others_alone(engine: AsyncEngine) -> None:
    writer = GroupWriter(engine, audit=None)
    first, second = (asyncio.create_task(writer.run(job(name))) for name in ("gone", "stays"))
    await asyncio.sleep(0)
    first.cancel()

    assert await second == "stays"
    assert "stays" in await stored(engine)
    with pytest.raises(asyncio.CancelledError):
        await first


KEPT = Prepared(lambda _dialect, _names: insert(SettingRow))


@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "through SQLAlchemy"])
@pytest.mark.parametrize("fails", [None, 3], ids=["all good", "one fails"])
async def test_jobs_beside_each_other_are_one_transaction(
    engine: AsyncEngine, prepared: bool, fails: int | None
) -> None:
    writer = GroupWriter(engine, audit=None)

    async def write(writing: Writing, number: int) -> None:
        for part in ("a", "b"):
            row = {"key": f"{number} {part}", "value": 1, "updated_at": START}
            if prepared:
                await KEPT.run(writing.connection, row)
            else:
                await writing.execute(insert(SettingRow).values(**row))
        if number == fails:
            raise LeaseLost(str(number))

    jobs = [writer.run(partial(write, number=n), beside=True) for n in range(20)]
    failed = [n for n, one in enumerate(await asyncio.gather(*jobs, return_exceptions=True)) if one]

    assert failed == ([] if fails is None else [fails])
    assert await stored(engine) == {f"{n} {part}" for n in range(20) if n != fails for part in ("a", "b")}


async def test_a_job_that_is_not_beside_others_runs_by_itself(engine: AsyncEngine) -> None:
    """Two that claim the same thing would each see half of what the other one did."""
    writer, running, most = GroupWriter(engine, audit=None), 0, 0

    async def write(writing: Writing, number: int) -> None:
        nonlocal running, most
        running, most = running + 1, max(most, running + 1)
        await KEPT.run(writing.connection, {"key": f"{number}", "value": 1, "updated_at": START})
        await asyncio.sleep(0)
        running -= 1

    await asyncio.gather(*(writer.run(partial(write, number=n)) for n in range(20)))

    assert most == 1


async def test_writing_goes_on_when_the_other_end_has_hung_up(
    new_database: Callable[[str], str],
) -> None:
    async with open_database(new_database("postgres")) as engine:
        writer = GroupWriter(engine, audit=None)
        await writer.run(job("before"))
        async with engine.connect() as connection:
            ours = "datname = current_database() AND pid <> pg_backend_pid()"
            await connection.execute(
                text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {ours}")
            )

        await asyncio.gather(*(writer.run(job(f"after {n}"), beside=True) for n in range(3)))

        assert await stored(engine) == {"before", "after 0", "after 1", "after 2"}


async def test_what_may_be_committed_is_not_written_again(new_database: Callable[[str], str]) -> None:
    async with Proxy.of(new_database("postgres")) as proxy, open_database(proxy.url) as engine:
        writer, runs = GroupWriter(engine, audit=None), 0

        async def write(writing: Writing, number: int) -> None:
            nonlocal runs
            runs += 1
            await KEPT.run(writing.connection, {"key": f"{number}", "value": 1, "updated_at": START})

        proxy.cut_after = b"COMMIT"
        jobs = [writer.run(partial(write, number=n), beside=n > 1) for n in range(4)]
        failed = await asyncio.gather(*jobs, return_exceptions=True)
        proxy.cut_after = None

        assert [type(one) for one in failed] == [StoreDoubt] * 4
        assert runs == 4
        await writer.run(partial(write, number=4))
        assert await stored(engine) == {f"{n}" for n in range(5)}


@pytest.mark.parametrize("lingers", [0.0, 0.02])
@pytest.mark.parametrize("prepared", [True, False], ids=["prepared", "through SQLAlchemy"])
async def test_what_is_said_to_be_committed_is_so_when_the_line_breaks_behind_it(
    new_database: Callable[[str], str], prepared: bool, lingers: float
) -> None:
    async with Proxy.of(new_database("postgres")) as proxy, open_database(proxy.url) as engine:
        writer, runs = GroupWriter(engine, audit=None), 0

        async def write(writing: Writing, number: int) -> int:
            nonlocal runs
            runs += 1
            row = {"key": f"{number}", "value": 1, "updated_at": START}
            if prepared:
                await KEPT.run(writing.connection, row)
            else:
                await writing.execute(insert(SettingRow).values(**row))
            return number

        proxy.cut_behind, proxy.lingers = b"COMMIT\0", lingers
        jobs = [writer.run(partial(write, number=n), beside=n > 1) for n in range(4)]
        assert await asyncio.gather(*jobs) == [0, 1, 2, 3]
        proxy.cut_behind = None
        await writer.run(partial(write, number=4))

        assert runs == 5
        assert await stored(engine) == {f"{n}" for n in range(5)}


WROTE = Table("wrote", MetaData(), Column("number", Integer))
KEEP_NUMBER = Prepared(lambda _dialect, _names: insert(WROTE))


async def test_whenever_the_line_breaks_nothing_is_written_twice_and_nothing_said_is_lost(
    new_database: Callable[[str], str],
) -> None:
    drawn = random.Random(7)
    async with Proxy.of(new_database("postgres")) as proxy, open_database(proxy.url) as engine:
        async with engine.begin() as connection:
            await connection.run_sync(WROTE.create)
        writer, told = GroupWriter(engine, audit=None), {}

        async def write(writing: Writing, number: int) -> None:
            await KEEP_NUMBER.run(writing.connection, {"number": number})
            if number % 3 == 0:
                await writing.execute(select(func.count()).select_from(WROTE))

        async def one(number: int) -> None:
            await asyncio.sleep(drawn.uniform(0, 2))
            try:
                with store_errors("writing"):
                    await writer.run(partial(write, number=number), beside=number % 2 == 0)
            except StoreUnavailable as exc:
                told[number] = type(exc)

        async def breaking() -> None:
            while True:
                await asyncio.sleep(drawn.uniform(0.002, 0.02))
                proxy.cut_after = b"COMMIT" if drawn.random() < 0.3 else None
                proxy.cut_behind = b"COMMIT\0" if drawn.random() < 0.2 else None
                if drawn.random() < 0.3:
                    proxy.cut()

        async with beside(breaking=breaking()):
            await asyncio.gather(*(one(number) for number in range(800)))
        await proxy.stop()
        await proxy.start()
        proxy.cut_after = proxy.cut_behind = None
        async with engine.connect() as connection:
            wrote = Counter((await connection.execute(select(WROTE.c.number))).scalars())

    assert set(wrote.values()) == {1}
    assert {n for n in range(800) if n not in told} <= set(wrote)
    assert not set(wrote) & {n for n, kind in told.items() if kind is not StoreDoubt}
    assert StoreDoubt in told.values()


async def test_a_transaction_whose_statements_were_forgotten_is_written_again(
    new_database: Callable[[str], str],
) -> None:
    async with open_database(new_database("postgres")) as engine:
        writer, runs = GroupWriter(engine, audit=None), 0

        async def write(writing: Writing) -> None:
            nonlocal runs
            runs += 1
            await KEPT.run(writing.connection, {"key": "before", "value": 1, "updated_at": START})
            if runs < 4:
                await writing.execute(text("DEALLOCATE ALL"))
            await KEPT.run(writing.connection, {"key": "after", "value": 1, "updated_at": START})

        await writer.run(write)

        assert runs == 4
        assert await stored(engine) == {"before", "after"}


async def test_who_waits_while_the_database_is_away_shares_the_one_try(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries, broken = 0, OperationalError("connect", None, Exception("no route to host"))

    async def away(_connection: AsyncConnection) -> AsyncConnection:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0.05)
        raise broken

    writer = GroupWriter(engine, audit=None)
    with monkeypatch.context() as patch:
        patch.setattr(AsyncConnection, "start", away)
        jobs = [writer.run(job(f"key {n}")) for n in range(40)]
        failed = await asyncio.gather(*jobs, return_exceptions=True)

    assert failed == [broken] * 40
    assert tries <= 2
    await writer.run(job("later"))
    assert await stored(engine) == {"later"}


async def test_who_is_to_be_written_alone_does_not_wait_for_each_try_to_connect(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away while a transaction is under way."""
    tries, start = 0, AsyncConnection.start

    async def away(connection: AsyncConnection, is_ctxmanager: bool = False) -> AsyncConnection:
        nonlocal tries
        tries += 1
        if tries > 1:
            raise OperationalError("connect", None, Exception("no route to host"))
        return await start(connection, is_ctxmanager)

    writer = GroupWriter(engine, audit=None)
    with monkeypatch.context() as patch:
        patch.setattr(AsyncConnection, "start", away)
        jobs = [writer.run(job(f"key {n}", fails=n == 3)) for n in range(20)]
        failed = await asyncio.gather(*jobs, return_exceptions=True)

    assert [type(one) for one in failed] == [OperationalError] * 20
    assert tries == 2
    assert await stored(engine) == set()


async def test_who_waits_while_another_process_holds_the_file_waits_once(tmp_path: Path) -> None:
    file = tmp_path / "store.db"
    async with open_database(f"sqlite:///{file}") as engine:
        writer = GroupWriter(engine, audit=None)
        engine.get_execution_options()[READER].timeout = 0.2
        began = time.monotonic()
        with closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            jobs = [writer.run(job(f"key {n}")) for n in range(20)]
            failed = await asyncio.gather(*jobs, return_exceptions=True)
        waited = time.monotonic() - began

        assert [type(one) for one in failed] == [OperationalError] * 20
        assert waited < 1
        await writer.run(job("later"))
        assert await stored(engine) == {"later"}


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
