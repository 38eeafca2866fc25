"""Statements of several callers on one Postgres connection, sent together: each batch is one round trip.

SQLAlchemy and the usual cursor cost several times what Postgres does with a short statement, and each of them
waits for the other end. Here it is prepared once for a connection, and whatever is asked while a batch is
under way goes into the next one (libpq's pipeline). Not imported on SQLite, which does without psycopg.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import psycopg
from psycopg import AsyncConnection, pq
from psycopg.abc import Buffer, PQGen
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.generators import fetch_many, send
from psycopg.pq.abc import PGresult
from sqlalchemy.exc import DBAPIError, StatementError

Row = Sequence[Any]
GOOD = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)
IDLE = pq.TransactionStatus.IDLE
RAW = (bytes, psycopg.Binary)
LAST_WORDS = ("FATAL", "PANIC")  # severities after which Postgres hangs up

Dumped = tuple[Sequence[Buffer | None], Sequence[pq.Format] | None]


@dataclass(eq=False)
class _Asked:
    """One statement, once for each row of parameters."""

    sql: str
    rows: Sequence[Dumped]
    answered: asyncio.Future[list[PGresult]]

    def fail(self, exc: Exception) -> None:
        """Tell whoever asked, unless they have their answer or went away."""
        if not self.answered.done():
            self.answered.set_exception(exc)


class Line:
    """One connection. What is asked of it is answered in order."""

    beside = True

    def __init__(self, raw: AsyncConnection[Any], *, apart: bool = False) -> None:
        """`apart`: every statement is a transaction of its own, whose failure is nobody else's."""
        self._raw = raw
        self._apart = apart
        self._types = Transformer(raw)
        self._names: dict[str, bytes] = {}  # of the statements this connection has prepared
        self._numbers = count()
        self._asked: list[_Asked] = []
        self._sending: asyncio.Task[None] | None = None

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""
        return self._raw.closed

    async def close(self) -> None:
        """Hang up."""
        await self._raw.close()

    async def read(self, sql: str, parameters: Row) -> list[Any]:
        """The rows of a query."""
        (result,) = await self._ask(sql, [parameters])
        self._types.set_pgresult(result)
        return self._types.load_rows(0, result.ntuples, tuple)

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
            if not self.closed:
                await self._end("ROLLBACK")
            raise

    async def _end(self, how: str) -> None:
        if self._raw.pgconn.transaction_status == IDLE:
            return
        (result,) = await self._ask(how, [()])
        if result.command_status != how.encode():
            # Postgres rolls back where something had failed, and calls that no error.
            failed = psycopg.errors.InFailedSqlTransaction("something had failed in this transaction")
            raise DBAPIError.instance(how, None, failed, psycopg.Error)

    async def _ask(self, sql: str, rows: Sequence[Row]) -> list[PGresult]:
        loop = asyncio.get_running_loop()
        asked = _Asked(sql, [self._dumped(row) for row in rows], loop.create_future())
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
                    async with self._raw.lock:
                        await self._raw.wait(self._exchange(batch))
                except psycopg.Error as exc:
                    self._hang_up_within()
                    for one in batch:
                        one.fail(self._wrapped(one, exc))
        except BaseException:
            self._hang_up_within()
            for one in (*batch, *self._asked):
                one.answered.cancel()
            self._asked = []
            raise

    def _hang_up_within(self) -> None:
        """In the middle of a batch nobody could say any more which answer is whose."""
        if self._raw.pgconn.pipeline_status != pq.PipelineStatus.OFF:
            self._raw.pgconn.finish()

    def _wrapped(self, one: _Asked, exc: psycopg.Error) -> StatementError:
        """As SQLAlchemy would raise it, so that whoever asked need not know what is in between."""
        gone = self._raw.closed
        return DBAPIError.instance(
            one.sql, None, exc, psycopg.Error, hide_parameters=True, connection_invalidated=gone
        )

    def _exchange(self, batch: Sequence[_Asked]) -> PQGen[None]:
        """Send all, then take the answers in their order."""
        connection = self._raw.pgconn
        begins = not self._raw.autocommit and connection.transaction_status == IDLE
        connection.enter_pipeline_mode()
        if begins:
            connection.send_query_params(b"BEGIN", None)
        fresh = []
        for one in batch:
            if (name := self._names.get(one.sql)) is None:
                name = self._names[one.sql] = b"line_%d" % next(self._numbers)
                connection.send_prepare(name, one.sql.encode())
                fresh.append(one)
            for values, formats in one.rows:
                connection.send_query_prepared(name, values, formats)
            if self._apart:
                connection.pipeline_sync()
        if not self._apart:
            connection.pipeline_sync()
        yield from send(connection)
        if begins:
            yield from fetch_many(connection)
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
            results += yield from fetch_many(self._raw.pgconn)
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
        if isinstance(exc, psycopg.errors.InvalidSqlStatementName):
            self._names.clear()  # somebody told Postgres to forget them all
        elif prepared or failed.status != pq.ExecStatus.PIPELINE_ABORTED:
            self._names.pop(one.sql, None)  # the tables may have changed under it: prepare it anew
        one.fail(self._wrapped(one, exc))


class Reader:
    """Short reads of many drives, on a connection of their own; each sees what is committed."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._line: Line | None = None
        self._opening = asyncio.Lock()

    async def look(self, sql: str, parameters: Row) -> list[Any]:
        """The rows of a query."""
        line = await self._open()
        try:
            return await line.read(sql, parameters)
        except DBAPIError:
            if not line.closed:
                raise
        # Hung up since it was used last: the server was restarted, perhaps.
        return await (await self._open()).read(sql, parameters)

    async def _open(self) -> Line:
        async with self._opening:
            if self._line is None or self._line.closed:
                try:
                    raw = await AsyncConnection.connect(self._url, autocommit=True)
                except psycopg.Error as exc:
                    raise DBAPIError.instance(None, None, exc, psycopg.Error) from exc
                self._line = Line(raw, apart=True)
            return self._line

    async def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            await self._line.close()
