"""Statements that travel together on one Postgres connection: each caller gets its own answer or failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.exc import DataError, IntegrityError, InternalError, OperationalError, ProgrammingError

from server.db.database import open_database
from server.db.driver import driver_of
from server.db.postgres_line import Line, Reader

KEEP = "INSERT INTO kept VALUES ($1, NULL)"
TYPED = "SELECT $1::bigint, $2::text, $3::bytea, $4::timestamptz IS NULL"


@pytest.fixture
def url(new_database: Callable[[str], str]) -> str:
    return new_database("postgres")


@pytest.fixture
async def raw(url: str) -> AsyncIterator[AsyncConnection[Any]]:
    async with await AsyncConnection.connect(url) as connection:
        await connection.execute("CREATE TABLE kept (number bigint PRIMARY KEY, body bytea)")
        await connection.commit()
        yield connection


@pytest.fixture
async def reader(url: str) -> AsyncIterator[Reader]:
    reader = Reader(url)
    yield reader
    await reader.close()


async def nothing() -> None:
    """Between two statements."""


async def kept(url: str) -> list[int]:
    async with await AsyncConnection.connect(url) as other:
        return [
            row[0] for row in await (await other.execute("SELECT number FROM kept ORDER BY 1")).fetchall()
        ]


async def keep(line: Line, *numbers: int, between: Callable[[], Awaitable[object]] = nothing) -> None:
    """Keep them in one transaction, one statement each."""
    async with line.transaction():
        for number in numbers:
            await line.change(KEEP, (number,))
            await between()


async def hang_up_others(url: str) -> None:
    async with await AsyncConnection.connect(url, autocommit=True) as other:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        await other.execute(f"{query} AND pid <> pg_backend_pid()".encode())


async def test_values_come_back_as_they_went(reader: Reader) -> None:
    assert await reader.look(TYPED, (5, "a'b", b"\x00\xff", None)) == [(5, "a'b", b"\x00\xff", True)]
    assert await reader.look(TYPED, (2**40, "", b"", None)) == [(2**40, "", b"", True)]


async def test_what_is_asked_at_the_same_time_is_one_round_trip(
    raw: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, wait = [], raw.wait

    async def counted(*args: Any, **given: Any) -> Any:
        waits.append(args)
        return await wait(*args, **given)

    monkeypatch.setattr(raw, "wait", counted)
    line = Line(raw)

    async with line.transaction():
        asked = [line.change("INSERT INTO kept VALUES ($1, $2)", (n, b"x")) for n in range(50)]
        assert await asyncio.gather(*asked) == [1] * 50
        assert len(waits) == 1

    assert len(waits) == 2  # the commit


async def test_of_reads_side_by_side_only_the_wrong_one_fails(reader: Reader) -> None:
    asked = [reader.look(f"SELECT 6 / $1::int AS of_{n}", (n,)) for n in (3, 0, 2)]
    asked += [reader.look("SELECT wrong", ()), reader.look("SELECT $1::text", ("a\0b",))]

    three, zero, two, wrong, binary = await asyncio.gather(*asked, return_exceptions=True)

    assert (three, two) == ([(2,)], [(3,)])
    assert isinstance(zero, DataError)
    assert isinstance(wrong, ProgrammingError)
    assert isinstance(binary, psycopg.DataError)


async def test_a_statement_that_failed_is_prepared_anew(url: str, reader: Reader) -> None:
    with pytest.raises(ProgrammingError):
        await reader.look("SELECT number FROM later", ())
    async with await AsyncConnection.connect(url, autocommit=True) as other:
        await other.execute("CREATE TABLE later AS SELECT 1 AS number")

    assert await reader.look("SELECT number FROM later", ()) == [(1,)]


async def test_what_others_do_on_the_connection_leaves_its_statements_prepared(url: str) -> None:
    async with open_database(url) as engine, engine.connect() as connection:
        line = driver_of(connection)
        for _ in range(3):
            assert await line.read("SELECT $1::int", (1,)) == [(1,)]
            for _ in range(8):  # psycopg's own cursor would prepare it, and drop all after a rollback
                await connection.execute(text("SELECT 2"))
            await connection.rollback()


async def test_statements_that_postgres_was_told_to_forget_are_prepared_anew(
    raw: AsyncConnection[Any], url: str
) -> None:
    line = Line(raw)
    await keep(line, 1)
    await raw.execute("DEALLOCATE ALL")
    await raw.commit()

    with pytest.raises(ProgrammingError, match="does not exist"):
        await keep(line, 2)

    await keep(line, 3)
    assert await kept(url) == [1, 3]


async def test_a_transaction_is_whole_or_nothing(raw: AsyncConnection[Any], url: str) -> None:
    line = Line(raw)
    async with line.transaction():
        await line.change_all(KEEP, [(1,), (2,)])

    with pytest.raises(IntegrityError):
        await keep(line, 3, 1)

    assert await kept(url) == [1, 2]
    async with line.transaction():
        assert await line.read("DELETE FROM kept WHERE number = $1 RETURNING number", (2,)) == [(2,)]
    assert await kept(url) == [1]


async def test_a_failure_that_was_passed_over_is_no_commit(raw: AsyncConnection[Any], url: str) -> None:
    async def passed_over(line: Line) -> None:
        async with line.transaction():
            with suppress(IntegrityError):
                await line.change_all(KEEP, [(1,), (1,)])

    with pytest.raises(InternalError, match="had failed in this transaction"):
        await passed_over(Line(raw))

    assert await kept(url) == []


async def test_who_goes_away_leaves_the_others_their_answers(reader: Reader) -> None:
    await reader.look("SELECT 0", ())
    slow = asyncio.create_task(reader.look("SELECT pg_sleep(0.2)", ()))
    gone = asyncio.create_task(reader.look("SELECT $1::int", (1,)))
    stays = asyncio.create_task(reader.look("SELECT $1::int", (2,)))
    await asyncio.sleep(0.05)
    slow.cancel()
    gone.cancel()

    assert await stays == [(2,)]
    assert await reader.look("SELECT $1::int", (3,)) == [(3,)]


async def test_reads_go_on_when_the_other_end_has_hung_up(url: str, reader: Reader) -> None:
    await reader.look("SELECT $1::int", (1,))
    await hang_up_others(url)

    asked = [reader.look("SELECT $1::int", (n,)) for n in range(3)]
    assert await asyncio.gather(*asked) == [[(0,)], [(1,)], [(2,)]]


async def test_a_transaction_that_is_hung_up_on_fails_as_one_without_a_connection(
    raw: AsyncConnection[Any], url: str
) -> None:
    line = Line(raw)

    with pytest.raises(OperationalError) as raised:
        await keep(line, 1, 2, between=lambda: hang_up_others(url))

    assert raised.value.connection_invalidated
    assert line.closed
    assert await kept(url) == []


async def test_a_stopped_process_finds_its_transaction_ended(raw: AsyncConnection[Any], url: str) -> None:
    """What `idle_in_transaction_session_timeout` says last is no OperationalError by its class."""
    line = Line(raw)
    await raw.execute("SET idle_in_transaction_session_timeout = '50ms'")
    await raw.commit()

    with pytest.raises(InternalError) as raised:
        await keep(line, 1, 2, between=lambda: asyncio.sleep(0.3))

    assert raised.value.connection_invalidated
    assert await kept(url) == []


async def test_who_cannot_connect_is_told_as_of_any_database(url: str) -> None:
    with pytest.raises(OperationalError):
        await Reader(url.replace("/airmedic_", "/no_such_")).look("SELECT 1", ())
