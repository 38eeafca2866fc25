"""Statements of several callers on one Postgres connection, sent together: each batch is one round trip.

SQLAlchemy and the usual cursor cost several times what Postgres does with a short statement, and each of them
waits for the other end. Here it is prepared once for a connection, and whatever is asked while a batch is
under way goes into the next one (libpq's pipeline). Not imported on SQLite, which does without psycopg.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import fetch_many, send
from psycopg.pq.abc import PGresult
from sqlalchemy.exc import DBAPIError, StatementError

from graph.errors import StoreDoubt
from server.db.driver import Forgotten

Row = Sequence[Any]
GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
IDLE = pq.TransactionStatus.IDLE
RAW = (bytes, psycopg.Binary)
LAST_WORDS = ("FATAL", "PANIC")  # severities after which Postgres hangs up
MOST_PREPARED = 200  # statements a connection ever prepares; what comes after them goes as it is
# What Postgres says of a statement that it was told to forget, or whose columns are others by now.
OUTDATED = (psycopg.errors.InvalidSqlStatementName, psycopg.errors.FeatureNotSupported)

Dumped = tuple[Sequence[Buffer | None], Sequence[pq.Format] | None]


@dataclass(eq=False)
class _Asked:
    """One statement, once for each row of parameters."""

    sql: str
    rows: Sequence[Dumped]
    often: bool  #: worth preparing
    answered: asyncio.Future[list[PGresult]]

    def fail(self, exc: BaseException) -> None:
        """Tell whoever asked, unless they have their answer or went away."""
        if not self.answered.done():
            self.answered.set_exception(exc)


class Line:
    """One connection. What is asked of it is answered in order."""

    beside = True

    def __init__(self, raw: AsyncConnection[Any], *, apart: bool = False) -> None:
        """`apart`: every statement is a transaction of its own, whose failure is nobody else's."""
        self.raw = raw
        self._apart = apart
        self._types = Transformer(raw)
        self._names: dict[str, bytes] = {}  # of the statements this connection has prepared
        # Nobody else's, even where a pooler gives the server's connection to several of us.
        self._new_names = map(f"line_{uuid4().hex}_%d".__mod__, count())
        self._prepared = 0
        self._asked: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self.raw.closed

    async def close(self) -> None:
        """Hang up."""
        await self.raw.close()

    async def read(self, sql: str, parameters: Row) -> list[Any]:
        """The rows of a query."""
        (result,) = await self._ask(sql, [parameters])
        try:
            self._types.set_pgresult(result)
            return self._types.load_rows(0, result.ntuples, tuple)
        except psycopg.Error as exc:
            raise self._wrapped(sql, exc) from exc

    async def change(self, sql: str, parameters: Row) -> int:
        """Execute it; how many rows it changed."""
        (result,) = await self._ask(sql, [parameters])
        return int(result.command_tuples or 0)

    async def change_all(self, sql: str, rows: Sequence[Row]) -> None:
        """Execute it once for each row of parameters."""
        await self._ask(sql, rows)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Committed when the block ends, rolled back when it fails. It begins with its first statement."""
        try:
            yield
            await self._end("COMMIT")
        except BaseException:
            await self._undo()
            raise

    async def _undo(self) -> None:
        try:
            await self._end("ROLLBACK")
        except DBAPIError:
            if not self.closed:  # else Postgres undoes it by itself
                raise

    async def _end(self, how: str) -> None:
        if self.raw.pgconn.transaction_status == IDLE:
            return
        was_open = not self.closed
        try:
            (result,) = await self._ask(how, [()], often=False)
        except DBAPIError as exc:
            if how == "COMMIT" and was_open and self.closed:
                raise StoreDoubt("the database hung up before it said whether it committed") from exc
            raise
        async with self.raw.lock:
            pass  # what came behind the answer is read, too: from here on `closed` says how it stands
        if result.command_status != how.encode():
            # Postgres rolls back where something had failed, and calls that no error.
            failed = psycopg.errors.InFailedSqlTransaction("something had failed in this transaction")
            raise DBAPIError.instance(how, None, failed, psycopg.Error)

    async def _ask(self, sql: str, rows: Sequence[Row], *, often: bool = True) -> list[PGresult]:
        loop = asyncio.get_running_loop()
        try:
            dumped = [self._dumped(row) for row in rows]
        except psycopg.Error as exc:
            raise self._wrapped(sql, exc) from exc
        asked = _Asked(sql, dumped, often, loop.create_future())
        self._asked.append(asked)
        if self._sending is None or self._sending.done():
            self._sending = loop.create_task(self._send_all(), name="postgres-line")
        return await asked.answered

    def _dumped(self, row: Row) -> Dumped:
        # As text: Postgres knows each parameter's type from the statement.
        formats = [PyFormat.BINARY if isinstance(value, RAW) else PyFormat.TEXT for value in row]
        return self._types.dump_sequence(row, formats), self._types.formats

    async def _send_all(self) -> None:
        batch: list[_Asked] = []
        try:
            while self._asked:
                batch, self._asked = self._asked, []
                try:
                    async with self.raw.lock:
                        # Who went away meanwhile has ended the transaction too.
                        batch = [one for one in batch if not one.answered.done()]
                        if batch:
                            await self.raw.wait(self._exchange(batch))
                except psycopg.Error as exc:
                    self._hang_up_within()
                    for one in batch:
                        one.fail(self._wrapped(one.sql, exc))
        except BaseException as exc:
            self._hang_up_within()
            for one in (*batch, *self._asked):
                one.fail(exc)
            self._asked = []
            raise

    def _hang_up_within(self) -> None:
        """In the middle of a batch nobody could say any more which answer is whose."""
        if self.raw.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            self.raw.pgconn.finish()

    def _wrapped(self, sql: str, exc: psycopg.Error) -> StatementError:
        """As SQLAlchemy would raise it, so that whoever asked need not know what is in between."""
        return DBAPIError.instance(
            sql, None, exc, psycopg.Error, hide_parameters=True, connection_invalidated=self.closed
        )

    def _exchange(self, batch: Sequence[_Asked]) -> PQGen[None]:
        """Send all, then take the answers in their order."""
        connection = self.raw.pgconn
        begins = not self.raw.autocommit and connection.transaction_status == IDLE
        connection.enter_pipeline_mode()
        if begins:
            connection.send_query_params(b"BEGIN", None)
        fresh: list[_Asked] = []
        for one in batch:
            sql, name = one.sql.encode(), self._names.get(one.sql)
            if name is None and one.often and self._prepared + len(fresh) < MOST_PREPARED:
                name = self._names[one.sql] = next(self._new_names).encode()
                connection.send_prepare(name, sql)
                fresh.append(one)
            for values, formats in one.rows:
                if name is None:
                    connection.send_query_params(sql, values, param_formats=formats)
                else:
                    connection.send_query_prepared(name, values, formats)
            if self._apart:
                connection.pipeline_sync()
        if not self._apart:
            connection.pipeline_sync()
        yield from send(connection)
        if begins:
            for begun in (yield from fetch_many(connection)):
                if begun.status not in GOOD:  # nobody asked for it: else all would hear of some statement
                    raise error_from_result(begun)
        for one in batch:
            yield from self._take(one, prepared=one in fresh)
            if self._apart:
                yield from fetch_many(connection)
        if not self._apart:
            yield from fetch_many(connection)
        connection.exit_pipeline_mode()

    def _take(self, one: _Asked, *, prepared: bool) -> PQGen[None]:
        results: list[PGresult] = []
        for _ in range(prepared + len(one.rows)):
            results += yield from fetch_many(self.raw.pgconn)
        if prepared:
            if results[0].status in GOOD:
                self._prepared += 1
            else:
                self._names.pop(one.sql, None)  # all names are gone when one before it was forgotten
        failed = next((result for result in results if result.status not in GOOD), None)
        if failed is None:
            if not one.answered.done():
                one.answered.set_result(results[prepared:])
            return
        if failed.status == pq.ExecStatus.PIPELINE_ABORTED:
            exc: psycopg.Error = psycopg.errors.PipelineAborted("another statement failed before it")
        else:
            exc = error_from_result(failed)
            if exc.diag.severity_nonlocalized in LAST_WORDS:
                raise exc
        if isinstance(exc, OUTDATED) and not prepared:
            self._names.clear()
            one.fail(Forgotten(f"a prepared statement is no longer good ({exc})"))
        else:
            one.fail(self._wrapped(one.sql, exc))


class Reader:
    """Short reads of many drives, on a connection of their own; each sees what is committed."""

    def __init__(self, connect: Callable[[], Awaitable[AsyncConnection[Any]]]) -> None:
        """`connect` opens a connection on which every statement is a transaction of its own."""
        self._connect = connect
        self._line: Line | None = None
        self._opening: asyncio.Task[Line] | None = None

    async def look(self, sql: str, parameters: Row) -> list[Any]:
        """The rows of a query."""
        line = await self._open()
        try:
            return await line.read(sql, parameters)
        except Forgotten:
            pass
        except DBAPIError:
            if not line.closed:
                raise
        # Hung up since it was used last: the server was restarted, perhaps.
        return await (await self._open()).read(sql, parameters)

    async def _open(self) -> Line:
        if self._line is not None and not self._line.closed:
            return self._line
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._new_line(), name="postgres-reader")
        # All that wait share one try: the next would be as long in vain.
        return await asyncio.shield(self._opening)

    async def _new_line(self) -> Line:
        try:
            raw = await self._connect()
        except psycopg.Error as exc:
            raise DBAPIError.instance(None, None, exc, psycopg.Error) from exc
        self._line = Line(raw, apart=True)
        return self._line

    async def close(self) -> None:
        """Hang up."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        if self._line is not None:
            await self._line.close()
