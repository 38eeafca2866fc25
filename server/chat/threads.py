"""Which threads a person has. What was said in them is in the checkpoints."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import DomainType
from server.db.database import store_errors
from server.db.tables_chat import ThreadRow
from server.store import insert_once

MOST = 100  # threads of one person; older ones are forgotten


class ThreadLine(DomainType):
    """One thread in a list."""

    thread: str
    title: str
    updated_at: datetime


class Threads:
    """The list of threads in the store."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    async def touch(self, owner: str, thread: str, *, title: str) -> list[str]:
        """Note that something was said; threads beyond the cap come back, to be forgotten."""
        now = self._clock()
        row = {"owner": owner, "thread": thread, "title": title[:200], "updated_at": now}
        mine = (col(ThreadRow.owner) == owner, col(ThreadRow.thread) == thread)
        with store_errors("noting a thread"):
            async with self._engine.begin() as connection:
                await connection.execute(insert_once(self._engine, ThreadRow, row))
                await connection.execute(update(ThreadRow).where(*mine).values(updated_at=now))
                old = select(col(ThreadRow.thread)).where(col(ThreadRow.owner) == owner)
                newest = old.order_by(col(ThreadRow.updated_at).desc(), col(ThreadRow.id).desc())
                found = await connection.execute(newest.offset(MOST))
                return [str(one) for one in found.scalars()]

    async def listed(self, owner: str) -> list[ThreadLine]:
        """A person's threads, newest first."""
        columns = (col(ThreadRow.thread), col(ThreadRow.title), col(ThreadRow.updated_at))
        query = select(*columns).where(col(ThreadRow.owner) == owner)
        with store_errors("listing threads"):
            async with self._engine.connect() as connection:
                newest = query.order_by(col(ThreadRow.updated_at).desc()).limit(MOST)
                rows = (await connection.execute(newest)).all()
        return [ThreadLine(thread=thread, title=title, updated_at=at) for thread, title, at in rows]

    async def forget(self, owner: str, thread: str) -> bool:
        """Drop it from the list; whether it was there."""
        gone = delete(ThreadRow).where(col(ThreadRow.owner) == owner, col(ThreadRow.thread) == thread)
        with store_errors("forgetting a thread"):
            async with self._engine.begin() as connection:
                return bool((await connection.execute(gone)).rowcount)
