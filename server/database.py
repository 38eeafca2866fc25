"""Opens the database that `AIRMEDIC_DATABASE_URL` names and brings its schema up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from graph.errors import SettingsInvalid, StoreUnavailable
from server.sqlite_connection import SqliteFile

POOL = 10  # connections to Postgres kept open, and as many more in a rush
BUSY_TIMEOUT = 30.0  # seconds a SQLite writer waits for another
MIGRATIONS = Path(__file__).parent / "migrations"


def engine_url(database_url: str) -> str:
    """SQLAlchemy's spelling of the URL, with the async driver."""
    if database_url.startswith("sqlite:///"):
        return database_url.replace("sqlite:///", "sqlite+aiosqlite:///", 1)
    for scheme in ("postgresql://", "postgres://"):
        if database_url.startswith(scheme):
            return "postgresql+psycopg://" + database_url.removeprefix(scheme)
    raise SettingsInvalid(
        "AIRMEDIC_DATABASE_URL must start with 'sqlite:///' or 'postgresql://', for example "
        "'sqlite:///airmedic.db'"
    )


def _tune_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    cursor = connection.cursor()
    # WAL lets readers go on while one writes; FULL survives a power loss.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


@contextmanager
def store_errors(doing: str) -> Iterator[None]:
    """The one place where the database's errors become ours."""
    try:
        yield
    except OperationalError as exc:
        raise StoreUnavailable(f"{doing}: the database did not answer ({exc.orig})") from exc
    except DBAPIError as exc:
        if exc.connection_invalidated:
            raise StoreUnavailable(f"{doing}: the database hung up") from exc
        if isinstance(exc.orig, sqlite3.DatabaseError) and "not a database" in str(exc.orig):
            raise SettingsInvalid("AIRMEDIC_DATABASE_URL names a file that is no SQLite database") from exc
        raise


def _upgrade(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@asynccontextmanager
async def open_database(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The engine, its schema migrated to the newest version; disposed at the end."""
    url = engine_url(database_url)
    if url.startswith("sqlite"):
        file = SqliteFile(timeout=BUSY_TIMEOUT)
        # More connections than incidents driven at once: none waits while it holds the turn to write.
        engine = create_async_engine(url, connect_args={"async_creator_fn": file.connect}, pool_size=20)
        event.listen(engine.sync_engine, "connect", _tune_sqlite)
    else:
        file = None
        engine = create_async_engine(url, pool_pre_ping=True, pool_size=POOL, max_overflow=POOL)
    try:
        with store_errors("opening the database"):
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade)
        yield engine
    finally:
        await engine.dispose()
        if file is not None:
            file.close()
