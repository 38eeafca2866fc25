"""Several small transactions as one: what many wait for is committed together, and each is told apart.

A commit waits for the disk. Whoever writes while another commit is under way is gathered up, and all of them
are written in the next transaction. When one of them fails the transaction is undone and each is written
alone, so that its failure is nobody else's. The audit trail's head is locked last and once for all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from server.audit.chain import AuditEntry
from server.audit.trail import AuditTrail

T = TypeVar("T")
MOST = 64  # jobs in one transaction


@dataclass
class Writing:
    """What a job writes with: the connection, and the audit entries that go in at the end."""

    connection: AsyncConnection
    entries: list[AuditEntry] = field(default_factory=list)


Job = Callable[[Writing], Awaitable[T]]


@dataclass
class _Waiting(Generic[T]):
    job: Job[T]
    done: asyncio.Future[T]
    result: T | None = None
    failed: Exception | None = None


class GroupWriter:
    """Runs jobs in shared transactions. A job's result comes back after the commit."""

    def __init__(self, engine: AsyncEngine, *, audit: AuditTrail | None) -> None:
        self._engine = engine
        self._audit = audit
        self._queue: list[_Waiting[Any]] = []
        self._draining: asyncio.Task[None] | None = None

    async def run(self, job: Job[T]) -> T:
        """Run the job; committed on return. It may run more than once, so it must change nothing but rows."""
        waiting: _Waiting[T] = _Waiting(job, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        if self._draining is None or self._draining.done():
            self._draining = asyncio.create_task(self._drain(), name="group-writer")
        return await waiting.done

    async def _drain(self) -> None:
        while self._queue:
            batch, self._queue = self._queue[:MOST], self._queue[MOST:]
            try:
                await self._write(batch)
            except Exception:  # noqa: BLE001  one of them failed: which one shows when each is alone
                for one in batch:
                    await self._write_alone(one)
            except BaseException:
                for one in batch:
                    one.done.cancel()
                raise
            for one in batch:
                if one.done.done():
                    continue  # the caller was cancelled
                if one.failed is not None:
                    one.done.set_exception(one.failed)
                else:
                    one.done.set_result(one.result)

    async def _write(self, batch: Sequence[_Waiting[Any]]) -> None:
        async with self._engine.begin() as connection:
            entries: list[AuditEntry] = []
            for one in batch:
                writing = Writing(connection)
                one.result = await one.job(writing)
                entries += writing.entries
            if entries and self._audit is not None:
                await self._audit.append_all(connection, entries)

    async def _write_alone(self, one: _Waiting[Any]) -> None:
        try:
            await self._write([one])
        except Exception as exc:  # noqa: BLE001  this job's alone; its caller gets it
            one.failed = exc
