"""A SQLite connection for SQLAlchemy's async engine that leaves the event loop only where something waits.

The usual driver hands every call to a thread and back, which costs more than most statements here. In this
one a write transaction takes its turn among the connections of this process, begins IMMEDIATE, runs its
statements in place (each takes microseconds: the pages are in memory), and commits in a thread, where the
disk is waited for. A read in a transaction of its own goes to a thread once, rows and all, because nobody
knows how long it takes. `SqliteFile.look` is for reads by key that are known to be short, on a connection
that does nothing else.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Self, TypeVar

T = TypeVar("T")

WRITES = ("INSERT", "UPDATE", "DELETE", "REPLACE", "SAVEPOI")
PAUSE = 0.005  # seconds between two tries to begin while another process writes


class SqliteFile:
    """One database file in this process: whose turn it is to write, and threads that wait for the disk."""

    def __init__(self, *, timeout: float) -> None:
        self.timeout = timeout
        self.turn = asyncio.Lock()
        self.threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="sqlite")
        self._open: Callable[[], sqlite3.Connection] | None = None
        self._reader: sqlite3.Connection | None = None

    async def close(self) -> None:
        """Let the threads end."""
        self.threads.shutdown(wait=False)
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    async def connect(self, *args: Any, **kwargs: Any) -> Connection:
        """A connection as SQLAlchemy's dialect for `aiosqlite` wants one."""
        kwargs |= {"check_same_thread": False, "isolation_level": None, "timeout": self.timeout}
        self._open = partial(sqlite3.connect, *args, **kwargs)
        return Connection(await self.in_thread(self._open), self)

    async def look(self, statement: str, parameters: Any) -> list[Any]:
        """A few rows by a key, in place; what is committed at this moment."""
        if self._reader is None:
            assert self._open is not None, "the database has not been opened"
            self._reader = self._open()
            self._reader.execute("PRAGMA query_only = ON")
        return self._reader.execute(statement, parameters).fetchall()

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Run it in a thread. When the caller is cancelled, what was begun is waited for first."""
        future = asyncio.get_running_loop().run_in_executor(self.threads, call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait([future])
            raise


class Connection:
    """Speaks like `aiosqlite.Connection`, as far as SQLAlchemy asks."""

    beside = False  # its statements are done in place, one at a time

    def __init__(self, raw: sqlite3.Connection, file: SqliteFile) -> None:
        self._conn = raw
        self._file = file
        self._writing = False

    @property
    def _connection(self) -> sqlite3.Connection:
        return self._conn

    @property
    def closed(self) -> bool:
        """Always False: a file does not hang up."""
        return False

    @property
    def isolation_level(self) -> str | None:
        """Always None: transactions are begun here."""
        return self._conn.isolation_level

    def cursor(self) -> Cursor:
        """A new cursor."""
        return Cursor(self._conn.cursor(), self)

    async def create_function(self, *args: Any, **kwargs: Any) -> None:
        """Name a Python function in SQL."""
        self._conn.create_function(*args, **kwargs)

    async def run(self, statement: str, call: Callable[[], T]) -> T:
        """Run one statement's call where it belongs."""
        if self._writing:
            return call()
        head = statement.lstrip()[:7].upper()
        if head.startswith(WRITES):
            await self._begin()
            return call()
        return await self._file.in_thread(call)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Committed when the block ends, rolled back when it fails."""
        try:
            yield
            await self.commit()
        except BaseException:
            await self.rollback()
            raise

    async def read(self, statement: str, parameters: Any) -> list[Any]:
        """The rows of a query."""
        return await self.run(statement, lambda: self._conn.execute(statement, parameters).fetchall())

    async def change(self, statement: str, parameters: Any) -> int:
        """Execute a write; how many rows it changed."""
        return await self.write(lambda raw: raw.execute(statement, parameters).rowcount)

    async def change_all(self, statement: str, rows: Sequence[Any]) -> None:
        """Execute a write once for each row of parameters."""
        await self.write(lambda raw: raw.executemany(statement, rows))

    async def write(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Run several short writes in one go, within the transaction; begins it when none is open."""
        if not self._writing:
            await self._begin()
        return call(self._conn)

    async def _begin(self) -> None:
        await self._file.turn.acquire()
        try:
            self._conn.execute("PRAGMA busy_timeout = 0")
            give_up = time.monotonic() + self._file.timeout
            while not self._conn.in_transaction:
                try:
                    self._conn.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as exc:
                    if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                        raise
                    await asyncio.sleep(PAUSE)
            self._writing = True
        finally:
            self._conn.execute(f"PRAGMA busy_timeout = {int(self._file.timeout * 1000)}")
            if not self._writing:
                self._file.turn.release()

    async def commit(self) -> None:
        """Commit; the disk is waited for in a thread."""
        await self._end(self._conn.commit)

    async def rollback(self) -> None:
        """Roll back."""
        await self._end(self._conn.rollback)

    async def _end(self, call: Callable[[], None]) -> None:
        try:
            if self._is_open():
                await self._file.in_thread(call)
        finally:
            if not self._is_open():
                self._done()

    def _is_open(self) -> bool:
        return self._conn.in_transaction

    def _done(self) -> None:
        if self._writing:
            self._writing = False
            self._file.turn.release()

    async def close(self) -> None:
        """Close; what was not committed is gone."""
        self.stop()

    def stop(self) -> None:
        """The same, at once."""
        self._conn.close()
        self._done()


class Cursor:
    """Speaks like `aiosqlite.Cursor`."""

    def __init__(self, raw: sqlite3.Cursor, connection: Connection) -> None:
        self._raw = raw
        self._connection = connection
        self._rows: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Any = ()) -> Self:
        """Run a statement and fetch its rows in one go."""

        def call() -> None:
            self._raw.execute(statement, parameters)
            self._rows = self._raw.fetchall() if self._raw.description else []

        await self._connection.run(statement, call)
        return self

    async def executemany(self, statement: str, parameters: Any) -> Self:
        """Run a statement once for each set of parameters."""
        await self._connection.run(statement, lambda: self._raw.executemany(statement, parameters))
        return self

    async def fetchall(self) -> list[Any]:
        """What the last statement gave."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Let go of it."""
        self._raw.close()

    @property
    def description(self) -> Any:
        """The columns of the last result."""
        return self._raw.description

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""
        return self._raw.rowcount

    @property
    def lastrowid(self) -> int | None:
        """The id of the last row inserted."""
        return self._raw.lastrowid

    @property
    def arraysize(self) -> int:
        """How many rows `fetchmany` gives."""
        return self._raw.arraysize

    @arraysize.setter
    def arraysize(self, value: int) -> None:
        self._raw.arraysize = value
