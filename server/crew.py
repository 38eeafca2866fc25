"""The processes that share one store on Postgres: who is there, who has which duty, and who must be woken.

Every process shows itself once a beat. Who has not been seen for a few beats is dead: its incidents are given
back at once and its duties are free. Should it live after all (it was stopped, and goes on), then whoever
drives its incidents has raised their epochs, and nothing it writes is taken.

Waking is Postgres' own: triggers NOTIFY in the transaction that makes something due (migration 0006), so a
wake-up exists exactly when its cause does. It may be lost with a connection: everybody looks twice a second.
A SQLite store has one process, and nothing here to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import structlog
from sqlalchemy import delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.errors import AirmedicError
from server.background import beside, forever
from server.db.database import store_errors
from server.db.tables import IncidentRow
from server.db.tables_work import DutyRow, WorkerRow
from server.observe.heartbeats import Heartbeats
from server.store_reads import MOVING

log = structlog.get_logger("crew")

BEAT = 0.75  # seconds between two signs of life
SILENT = timedelta(seconds=3)  # without one, after which a process is dead
LOOK_FOR_UNKNOWN = 4  # beats between two looks at who holds the leases
CHANNEL = "airmedic"
PAUSE = 1.0  # seconds before listening is tried again

TAKE = text(
    """
    INSERT INTO duty (name, owner, until) VALUES (:name, :owner, now() + :silent)
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, until = excluded.until
    WHERE duty.until < now() OR duty.owner = excluded.owner
    RETURNING owner
    """
)
SHOW = text(
    """
    INSERT INTO worker (owner, seen_at) VALUES (:owner, now())
    ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at
    """
)


class Crew:
    """This process among those that share the store. Times are the database's: clocks may differ."""

    def __init__(self, engine: AsyncEngine, *, owner: str, is_dead: Callable[[str], bool]) -> None:
        """`is_dead`: whether an owner is known to be gone, being a process of this machine."""
        self._engine = engine
        self._owner = owner
        self._is_dead = is_dead
        self._beats = 0
        self.shared = engine.dialect.name == "postgresql"

    async def on_duty(self, name: str) -> bool:
        """Whether this job is ours to do, now and until the next beat fails."""
        if not self.shared:
            return True
        given = {"name": name, "owner": self._owner, "silent": SILENT}
        with store_errors("taking a duty"):
            async with self._engine.begin() as connection:
                return (await connection.execute(TAKE, given)).first() is not None

    async def beat(self) -> int:
        """Show ourselves, keep our duties, and bury the dead; how many incidents they left behind."""
        kept = update(DutyRow).where(col(DutyRow.owner) == self._owner)
        with store_errors("showing a sign of life"):
            async with self._engine.begin() as connection:
                await connection.execute(SHOW, {"owner": self._owner})
                await connection.execute(kept.values(until=func.now() + SILENT))
        return await self._bury()

    async def _bury(self) -> int:
        silent = col(WorkerRow.seen_at) < func.now() - SILENT
        with store_errors("looking for dead workers"):
            async with self._engine.connect() as connection:
                others = (await connection.execute(select(col(WorkerRow.owner), silent))).all()
        dead = [owner for owner, is_silent in others if is_silent or self._gone(owner)]
        dead += await self._unknown({owner for owner, _ in others})
        if not dead:
            return 0
        # Those claimed and not yet asleep again are due by their wake_at, which is past.
        freed = update(IncidentRow).where(col(IncidentRow.lease_owner).in_(dead))
        with store_errors("burying dead workers"):
            async with self._engine.begin() as connection:
                await connection.execute(delete(WorkerRow).where(col(WorkerRow.owner).in_(dead)))
                await connection.execute(delete(DutyRow).where(col(DutyRow.owner).in_(dead)))
                left = await connection.execute(freed.values(lease_owner=None, lease_until=None))
        log.warning("workers_dead", owners=dead, incidents=left.rowcount)
        return left.rowcount

    async def _unknown(self, known: set[str]) -> list[str]:
        """Who drives incidents and has not shown itself: buried, revived, and dead before its next beat."""
        self._beats += 1
        if self._beats % LOOK_FOR_UNKNOWN:
            return []
        open_ones = col(IncidentRow.status).in_(MOVING)
        held = select(col(IncidentRow.lease_owner)).where(
            open_ones, col(IncidentRow.lease_owner).is_not(None)
        )
        with store_errors("looking for unknown workers"):
            async with self._engine.connect() as connection:
                owners = (await connection.execute(held.distinct())).scalars().all()
        return [str(owner) for owner in owners if owner != self._owner and owner not in known]

    def _gone(self, owner: str) -> bool:
        return owner != self._owner and self._is_dead(owner)

    async def leave(self) -> None:
        """Go in an orderly way: nobody has to find out."""
        ours = update(IncidentRow).where(col(IncidentRow.lease_owner) == self._owner)
        with suppress(AirmedicError), store_errors("leaving"):
            async with self._engine.begin() as connection:
                await connection.execute(ours.values(lease_owner=None, lease_until=None))
                await connection.execute(delete(WorkerRow).where(col(WorkerRow.owner) == self._owner))
                await connection.execute(delete(DutyRow).where(col(DutyRow.owner) == self._owner))


async def listen(database_url: str, *, ring: Callable[[], None]) -> None:
    """Ring whenever another process has made something due; for ever."""
    import psycopg  # eight megabytes that a SQLite installation does without

    while True:
        try:
            async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
                await connection.execute(f"LISTEN {CHANNEL}".encode())
                ring()  # for what came while nobody listened
                async for _ in connection.notifies():
                    ring()
        except psycopg.Error as exc:
            log.info("listening_broke_off", error=type(exc).__name__)
        await asyncio.sleep(PAUSE)


@asynccontextmanager
async def open_crew(
    crew: Crew, database_url: str, *, ring: Callable[[], None], beats: Heartbeats
) -> AsyncIterator[None]:
    """Be part of the crew until the block is left."""
    if not crew.shared:
        yield
        return
    await crew.beat()
    try:
        async with beside(
            crew=forever("crew", crew.beat, every=BEAT, beats=beats),
            listen=listen(database_url, ring=ring),
        ):
            yield
    finally:
        await crew.leave()
