"""The answers that are kept under idempotency keys."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from server.db.database import store_errors
from server.db.tables_access import KeptAnswerRow
from server.store import insert_once

KEPT = timedelta(hours=24)
AT_WORK = timedelta(minutes=2)  # no write takes longer; after that its process is known to be gone
TIDY_EVERY = timedelta(minutes=10)


class Kept(NamedTuple):
    """A kept answer."""

    request: str
    status: int | None
    headers: dict[str, str]
    body: bytes


class KeptAnswers:
    """The answers in the database."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock
        self._tidied_at: datetime | None = None

    async def begin(self, key: str, request: str) -> Kept | None:
        """Claim the key: None when this request is the first, else what the first one left."""
        now = self._clock()
        await self._tidy(now)
        row = {"key": key, "request": request, "begun_at": now}
        with store_errors("claiming an idempotency key"):
            async with self._engine.begin() as connection:
                if (await connection.execute(insert_once(self._engine, KeptAnswerRow, row))).rowcount == 1:
                    return None
                # Whoever claimed it and went away without an answer does not hold it for ever.
                stale = update(KeptAnswerRow).where(
                    col(KeptAnswerRow.key) == key,
                    col(KeptAnswerRow.request) == request,
                    col(KeptAnswerRow.status).is_(None),
                    col(KeptAnswerRow.begun_at) <= now - AT_WORK,
                )
                if (await connection.execute(stale.values(begun_at=now))).rowcount == 1:
                    return None
            async with AsyncSession(self._engine) as session:
                query = select(KeptAnswerRow).where(col(KeptAnswerRow.key) == key)
                found = (await session.execute(query)).scalars().first()
        return _kept(found) if found is not None else Kept(request, None, {}, b"")

    async def keep(self, key: str, kept: Kept) -> None:
        """Keep the answer of the one who claimed the key."""
        values = {"status": kept.status, "headers": kept.headers, "body": kept.body}
        with store_errors("keeping an answer"):
            async with self._engine.begin() as connection:
                mine = update(KeptAnswerRow).where(col(KeptAnswerRow.key) == key)
                await connection.execute(mine.values(**values))

    async def forget(self, key: str) -> None:
        """Give the key back: nothing was done under it."""
        with store_errors("giving an idempotency key back"):
            async with self._engine.begin() as connection:
                await connection.execute(delete(KeptAnswerRow).where(col(KeptAnswerRow.key) == key))

    async def _tidy(self, now: datetime) -> None:
        if self._tidied_at is not None and now - self._tidied_at < TIDY_EVERY:
            return
        self._tidied_at = now
        with store_errors("forgetting old answers"):
            async with self._engine.begin() as connection:
                old = delete(KeptAnswerRow).where(col(KeptAnswerRow.begun_at) <= now - KEPT)
                await connection.execute(old)


def _kept(row: KeptAnswerRow) -> Kept:
    headers = row.headers if isinstance(row.headers, dict) else {}
    return Kept(
        row.request, row.status, {name: str(value) for name, value in headers.items()}, row.body or b""
    )
