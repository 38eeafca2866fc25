"""Statements that travel together on one Postgres connection: each caller gets its own answer or failure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from sqlalchemy import text
from sqlalchemy.exc import (
    DataError,
    DBAPIError,
    IntegrityError,
    InternalError,
    OperationalError,
    ProgrammingError,
)

from graph.errors import StoreDoubt
from server.db.database import open_database
from server.db.driver import READER, Forgotten, driver_of
from server.db.postgres_line import Line, Reader
from tests.unit.postgres_proxy import Proxy

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
    reader = reader_of(url)
    yield reader
    await reader.close()


def reader_of(url: str) -> Reader:
    return Reader(partial(AsyncConnection.connect, url, autocommit=True))


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
    asked += [reader.look("SELECT $1::text", ("\ud800",)), reader.look("SELECT 'infinity'::date", ())]

    three, zero, two, wrong, binary, half, never = await asyncio.gather(*asked, return_exceptions=True)

    assert (three, two) == ([(2,)], [(3,)])
    assert isinstance(zero, DataError)
    assert isinstance(wrong, ProgrammingError)
    assert isinstance(binary, DataError)
    assert isinstance(half, UnicodeEncodeError)
    assert isinstance(never, DataError)


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

    with pytest.raises(Forgotten, match="does not exist"):
        await keep(line, 2)

    await keep(line, 3)
    assert await kept(url) == [1, 3]


async def test_a_read_that_postgres_was_told_to_forget_is_asked_again(reader: Reader) -> None:
    assert await reader.look("SELECT $1::int", (1,)) == [(1,)]
    await reader.look("DEALLOCATE ALL", ())

    assert await reader.look("SELECT $1::int", (2,)) == [(2,)]


async def test_what_is_asked_beside_a_forgotten_read_is_told_its_own_failure(reader: Reader) -> None:
    assert await reader.look("SELECT $1::int", (1,)) == [(1,)]
    await reader.look("DEALLOCATE ALL", ())

    asked = [
        reader.look("SELECT $1::int", (2,)),
        reader.look("SELECT wrong", ()),
        reader.look("SELECT 3", ()),
    ]
    two, wrong, three = await asyncio.gather(*asked, return_exceptions=True)

    assert (two, three) == ([(2,)], [(3,)])
    assert isinstance(wrong, ProgrammingError)


async def test_what_is_asked_beside_a_forgotten_statement_fails_with_its_transaction(
    raw: AsyncConnection[Any], url: str
) -> None:
    line = Line(raw)
    await keep(line, 1)
    await raw.execute("DEALLOCATE ALL")
    await raw.commit()

    async with line.transaction():
        asked = [line.change(KEEP, (2,)), line.read("SELECT 3", ())]
        forgotten, beside = await asyncio.gather(*asked, return_exceptions=True)
        await line.read("ROLLBACK", ())

    assert isinstance(forgotten, Forgotten)
    assert isinstance(beside, OperationalError)
    await keep(line, 4)
    assert await kept(url) == [1, 4]


async def test_a_read_whose_columns_have_changed_is_asked_again(reader: Reader) -> None:
    await reader.look("CREATE TABLE grown (number int)", ())
    await reader.look("INSERT INTO grown VALUES (1)", ())
    assert await reader.look("SELECT * FROM grown", ()) == [(1,)]
    await reader.look("ALTER TABLE grown ADD more int", ())

    assert await reader.look("SELECT * FROM grown", ()) == [(1, None)]


async def test_only_so_many_statements_are_prepared(
    raw: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.db.postgres_line.MOST_PREPARED", 3)
    line = Line(raw)
    async with line.transaction():
        for wrong in range(5):  # what fails when it is executed stays prepared, and is not prepared again
            await line.read("SAVEPOINT here", ())
            with suppress(DataError):
                await line.read("SELECT 1 / $1::int", (0,))
            await line.read(f"ROLLBACK TO SAVEPOINT here /* {wrong} */", ())
        asked = [line.read(f"SELECT $1::int + {n}", (n,)) for n in range(20)]
        assert await asyncio.gather(*asked) == [[(2 * n,)] for n in range(20)]
        ((held,),) = await line.read("SELECT count(*) FROM pg_prepared_statements", ())
    assert held == 3


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


async def test_a_transaction_that_is_hung_up_on_before_it_begins_is_told_so(
    raw: AsyncConnection[Any], url: str
) -> None:
    line = Line(raw)
    await keep(line, 1)
    await hang_up_others(url)

    with pytest.raises(DBAPIError, match="terminating connection") as raised:
        await keep(line, 2)

    assert raised.value.connection_invalidated
    assert await kept(url) == [1]


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
        await reader_of(url.replace("/airmedic_", "/no_such_")).look("SELECT 1", ())


async def test_who_waits_for_a_connection_shares_the_one_try() -> None:
    tries = 0

    async def refused() -> AsyncConnection[Any]:
        nonlocal tries
        tries += 1
        await asyncio.sleep(0.05)
        raise psycopg.OperationalError("refused")

    reader = Reader(refused)
    failed = await asyncio.gather(*(reader.look("SELECT 1", ()) for _ in range(9)), return_exceptions=True)

    assert tries == 1
    assert all(isinstance(one, OperationalError) for one in failed)


async def test_reads_go_on_when_the_server_is_back(url: str) -> None:
    async with Proxy.of(url) as proxy:
        reader = reader_of(proxy.url)
        assert await reader.look("SELECT 1", ()) == [(1,)]
        await proxy.stop()
        with pytest.raises(OperationalError):
            await reader.look("SELECT 1", ())
        await proxy.start()

        assert await reader.look("SELECT 1", ()) == [(1,)]
        await reader.close()


async def test_an_answer_to_a_commit_that_is_lost_leaves_a_doubt(raw: AsyncConnection[Any], url: str) -> None:
    async with Proxy.of(url) as proxy, await AsyncConnection.connect(proxy.url) as connection:
        line = Line(connection)
        await keep(line, 1)
        proxy.cut_after = b"COMMIT"

        with pytest.raises(StoreDoubt):
            await keep(line, 2)

    assert await kept(url) == [1, 2]
    assert not raw.closed


async def test_a_connection_that_breaks_in_the_middle_writes_nothing(
    raw: AsyncConnection[Any], url: str
) -> None:
    async with Proxy.of(url) as proxy, await AsyncConnection.connect(proxy.url) as connection:
        line = Line(connection)
        await keep(line, 1)
        proxy.cut_after = b"the last of them"

        async def several() -> None:
            async with line.transaction():
                last = line.change("/* the last of them */ " + KEEP, (4,))
                await asyncio.gather(*(line.change(KEEP, (n,)) for n in (2, 3)), last)

        with pytest.raises(OperationalError) as raised:
            await several()

        assert raised.value.connection_invalidated
    assert await kept(url) == [1]
    assert not raw.closed


async def test_a_commit_that_postgres_refuses_is_no_doubt(raw: AsyncConnection[Any], url: str) -> None:
    await raw.execute("ALTER TABLE kept ADD parent bigint REFERENCES kept INITIALLY DEFERRED")
    await raw.commit()
    line = Line(raw)

    with pytest.raises(IntegrityError):
        async with line.transaction():
            await line.change("INSERT INTO kept VALUES ($1, NULL, 7)", (1,))

    await keep_parented(line)
    assert await kept(url) == [2]


async def keep_parented(line: Line) -> None:
    async with line.transaction():
        await line.change("INSERT INTO kept VALUES ($1, NULL, 2)", (2,))


async def test_two_that_wait_for_each_other_are_told_apart(raw: AsyncConnection[Any], url: str) -> None:
    line = Line(raw)
    await keep(line, 1, 2)
    taken = asyncio.Barrier(2)
    touch = "UPDATE kept SET body = 'x' WHERE number = $1"

    async def both(line: Line, first: int, second: int) -> None:
        async with line.transaction():
            await line.change(touch, (first,))
            await taken.wait()
            await line.change(touch, (second,))

    async with await AsyncConnection.connect(url) as other:
        ends = await asyncio.gather(both(line, 1, 2), both(Line(other), 2, 1), return_exceptions=True)

    (failed,) = [end for end in ends if end is not None]
    assert isinstance(failed, OperationalError)
    assert isinstance(failed.orig, psycopg.errors.DeadlockDetected)
    assert not failed.connection_invalidated


async def test_a_conflict_of_serializable_transactions_is_told_as_sqlalchemy_does(
    raw: AsyncConnection[Any], url: str
) -> None:
    line = Line(raw)
    await keep(line, 1)

    async def meet() -> None:
        async with await AsyncConnection.connect(url, autocommit=True) as other, line.transaction():
            await line.read("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ", ())
            await line.read("SELECT * FROM kept", ())
            await other.execute("UPDATE kept SET body = 'theirs'")
            await line.change("UPDATE kept SET body = $1", (b"ours",))

    with pytest.raises(OperationalError) as raised:
        await meet()

    assert isinstance(raised.value.orig, psycopg.errors.SerializationFailure)


async def test_every_connection_is_opened_as_the_url_says(url: str) -> None:
    names = ("statement_timeout", "application_name", "idle_in_transaction_session_timeout")
    given = "options=-c%20statement_timeout%3D150&application_name=medic"
    async with open_database(f"{url}&{given}") as engine, engine.connect() as connection:
        for ask in (engine.get_execution_options()[READER].look, driver_of(connection).read):
            assert [await ask(f"SHOW {name}", ()) for name in names] == [
                [("150ms",)],
                [("medic",)],
                [("4s",)],
            ]
            with pytest.raises(OperationalError, match="statement timeout"):
                await ask("SELECT pg_sleep(5)", ())


async def test_a_host_that_does_not_answer_gives_way_to_the_next(url: str) -> None:
    there = psycopg.conninfo.conninfo_to_dict(url)
    hosts = f"/nowhere,{there['host']}"
    async with open_database(f"postgresql://postgres@/{there['dbname']}?host={hosts}") as engine:
        reader = engine.get_execution_options()[READER]
        assert await reader.look("SELECT 1", ()) == [(1,)]


async def test_long_values_travel_both_ways(reader: Reader) -> None:
    long = "é" * 8_000_000
    asked = [reader.look("SELECT $1::text", (long,)) for _ in range(3)]
    assert await asyncio.gather(*asked) == [[(long,)]] * 3


async def test_who_is_cancelled_leaves_nothing_to_the_next(url: str) -> None:
    async with open_database(url) as engine:

        async def write(asked: list[str]) -> None:
            async with engine.connect() as connection, driver_of(connection).transaction():
                line = driver_of(connection)
                await line.read("CREATE TABLE left_over AS SELECT $1::int", (1,))
                await asyncio.gather(*(line.read(one, ()) for one in asked))

        for pause in (0.0, 0.02, 0.1):
            writing = asyncio.create_task(write(["SELECT pg_sleep(0.2)", "SELECT 'in vain'"]))
            await asyncio.sleep(pause)
            writing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await writing

            async with engine.connect() as connection:
                line = driver_of(connection)
                assert await line.read("SELECT $1::int", (7,)) == [(7,)]
                assert await line.read("SELECT to_regclass('left_over')::text", ()) == [(None,)]


async def test_what_was_not_sent_yet_goes_away_with_who_asked(raw: AsyncConnection[Any], url: str) -> None:
    line = Line(raw)
    slow = asyncio.create_task(line.read("SELECT pg_sleep(0.2)", ()))
    await asyncio.sleep(0.05)
    waits = asyncio.create_task(line.change(KEEP, (1,)))
    await asyncio.sleep(0.01)
    waits.cancel()
    await slow
    await raw.commit()

    assert await line.read("SELECT 1", ()) == [(1,)]
    await raw.commit()
    assert await kept(url) == []


async def test_a_defect_within_is_told_to_everybody(
    raw: AsyncConnection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is taken for one that was cancelled."""
    line = Line(raw)

    async def defect(*_args: Any) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(raw, "wait", defect)
        asked = [line.read("SELECT 1", ()) for _ in range(2)]
        failed = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(one) for one in failed] == [ZeroDivisionError] * 2
