"""Several small transactions as one: what many wait for is committed together, and each is told apart.

A commit waits for the disk. Whoever writes while another commit is under way is gathered up, and all of them
are written in the next transaction. When one of them fails the transaction is undone and each is written
alone, so that its failure is nobody else's. The audit trail's head is locked last and once for all of them.

What comes in goes first: its senders wait for an answer. Only a few other jobs ride along with it, so that it
never waits for many and they never wait for ever.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy import CursorResult, Executable
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from graph.errors import StoreDoubt
from server.audit.chain import AuditEntry
from server.audit.trail import AuditTrail
from server.db.driver import Forgotten, driver_of

T = TypeVar("T")
Item = TypeVar("Item")
MOST = 64  # jobs in one transaction
MOST_ITEMS = 256  # items of those that are written together
FEW = 4  # other jobs that ride along with them
TRIES = 3  # of a transaction whose statements the database has forgotten


@dataclass
class Writing:
    """What a job writes with: the connection, and the audit entries that go in at the end."""

    connection: AsyncConnection
    entries: list[AuditEntry] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)  #: SQLAlchemy's, among jobs side by side

    async def execute(self, statement: Executable) -> CursorResult[Any]:
        """Execute a statement that is not `Prepared`, in a job that may have others beside it."""
        async with self.turn:
            return await self.connection.execute(statement)


Job = Callable[[Writing], Awaitable[T]]
Together = Callable[[Writing, Sequence[Item]], Awaitable[Sequence[T]]]


@dataclass
class _Waiting(Generic[T]):
    job: Job[T] | None
    done: asyncio.Future[T]
    together: Together[Any, T] | None = None
    item: Any = None
    beside: bool = False
    result: T | None = None
    failed: Exception | None = None

    def tell(self) -> None:
        """It is committed, or it failed for good."""
        if self.done.done():
            return  # the caller was cancelled
        if self.failed is not None:
            self.done.set_exception(self.failed)
        else:
            self.done.set_result(self.result)  # type: ignore[arg-type]


class GroupWriter:
    """Runs jobs in shared transactions. A job's result comes back after the commit."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditTrail | None) -> None:
        self._engine = engine
        self._audit = audit
        self._queue: list[_Waiting[Any]] = []
        self._items: list[_Waiting[Any]] = []
        self._draining: asyncio.Task[None] | None = None

    async def run(self, job: Job[T], *, beside: bool = False) -> T:
        """Run the job; committed on return. It may run more than once, so it must change nothing but rows.

        Raises `StoreDoubt` when it may be committed or not: it is not run again.

        `beside`: it touches no row that another such job touches, so that they may go on at the same time
        and their statements travel together. What the others do happens before or after them.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        waiting = _Waiting(job, done, beside=beside)
        self._queue.append(waiting)
        self._drain_soon()
        return await waiting.done

    async def run_together(self, together: Together[Item, T], item: Item) -> T:
        """Write the item with all others that come meanwhile; committed on return.

        `together` gets the items of one transaction and gives a result for each. It is handed each alone when
        they cannot be written as one. It writes no audit entries.
        """
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._items.append(_Waiting(None, done, together, item))
        self._drain_soon()
        return await done

    def _drain_soon(self) -> None:
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain(), name="group-writer")

    def _next_batch(self) -> list[_Waiting[Any]]:
        items, self._items = self._items[:MOST_ITEMS], self._items[MOST_ITEMS:]
        most = FEW if items else MOST
        jobs, self._queue = self._queue[:most], self._queue[most:]
        return items + jobs

    async def _drain(self) -> None:
        while self._items or self._queue:  # what came while the connection was given back, too
            await self._drain_at_once()

    async def _drain_at_once(self) -> None:
        connection: AsyncConnection | None = None  # kept while there is something to write
        try:
            while batch := self._next_batch():
                try:
                    if connection is None:
                        connection = await self._engine.connect()
                    await self._write(connection, batch)
                except StoreDoubt as exc:
                    await _close(connection)
                    connection = None
                    for one in batch:
                        one.failed = StoreDoubt(str(exc))
                except Exception as exc:  # noqa: BLE001  of one of them: which one shows when each is alone
                    away = connection is None or _is_held(exc)
                    await _close(connection)
                    connection = None
                    await self._write_each(batch, away=exc if away else None)
                except BaseException:
                    for one in batch:
                        one.done.cancel()
                    raise
                for one in batch:
                    one.tell()
                if connection is not None:
                    connection = await _ready(connection)
        finally:
            await _close(connection)

    async def _write(self, connection: AsyncConnection, batch: Sequence[_Waiting[Any]]) -> None:
        async with driver_of(connection).transaction():
            entries = await _write_items(Writing(connection), batch)
            entries += await _run_jobs(connection, [one for one in batch if one.job is not None])
            if entries and self._audit is not None:
                await self._audit.append_all(connection, entries)

    async def _write_each(self, batch: Sequence[_Waiting[Any]], *, away: Exception | None) -> None:
        """Each alone. `away`: why the database cannot be had; it is not waited for by one after the other."""
        for one in batch:
            one.failed = away
            if away is None:
                away = await self._write_alone(one)

    async def _write_alone(self, one: _Waiting[Any]) -> Exception | None:
        """Write it, or note why not; the reason again when it is everybody's."""
        for _ in range(TRIES):
            connection: AsyncConnection | None = None
            try:
                connection = await self._engine.connect()
                await self._write(connection, [one])
            except Forgotten as exc:
                one.failed = exc
                continue
            except Exception as exc:  # noqa: BLE001  this job's alone; its caller gets it
                one.failed = exc
                return exc if connection is None or _is_held(exc) else None
            else:
                one.failed = None
                return None
            finally:
                await _close(connection)
        return None


async def _ready(connection: AsyncConnection) -> AsyncConnection | None:
    """The connection as the next transaction wants it; None when it broke right behind the commit."""
    if driver_of(connection).closed:
        await _close(connection)
        return None
    if connection.in_transaction():
        # A job spoke through SQLAlchemy, which takes for open what the driver has committed.
        await connection.rollback()
    return connection


def _is_held(exc: Exception) -> bool:
    """Whether another process has held the SQLite file for as long as we wait for it."""
    raised = exc.orig if isinstance(exc, OperationalError) else exc
    if not isinstance(raised, sqlite3.OperationalError):
        return False
    return raised.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY


async def _close(connection: AsyncConnection | None) -> None:
    if connection is None:
        return
    if not connection.invalidated and driver_of(connection).closed:
        await connection.invalidate()  # nothing is left that could be rolled back
    await connection.close()


async def _run_jobs(connection: AsyncConnection, jobs: Sequence[_Waiting[Any]]) -> list[AuditEntry]:
    turn, beside = asyncio.Lock(), driver_of(connection).beside
    writings = [Writing(connection, turn=turn) for _ in jobs]

    async def run(one: _Waiting[Any], writing: Writing) -> None:
        assert one.job is not None
        one.result = await one.job(writing)

    work = list(zip(jobs, writings, strict=True))
    together = [run(*pair) for pair in work if beside and pair[0].beside]
    for failed in await asyncio.gather(*together, return_exceptions=True):
        if failed is not None:
            raise failed
    for pair in work:
        if not (beside and pair[0].beside):
            await run(*pair)
    return [entry for writing in writings for entry in writing.entries]


async def _write_items(writing: Writing, batch: Sequence[_Waiting[Any]]) -> list[AuditEntry]:
    kinds: dict[Together[Any, Any], list[_Waiting[Any]]] = {}
    for one in batch:
        if one.together is not None:
            kinds.setdefault(one.together, []).append(one)
    for together, items in kinds.items():
        found = await together(writing, [one.item for one in items])
        for one, result in zip(items, found, strict=True):
            one.result = result
    return writing.entries
