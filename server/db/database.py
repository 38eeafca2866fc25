"""Opens the database that `AIRMEDIC_DATABASE_URL` names and brings its schema up to date."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, event, inspect, make_url, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from graph.errors import SettingsInvalid, StoreUnavailable
from server.db.driver import READER
from server.db.packed import AS_TEXT, text_of
from server.db.sqlite_connection import SqliteFile

if TYPE_CHECKING:
    from server.db.postgres_line import Reader

SQLITE_POOL = 40  # connections to a SQLite file kept open
POOL = 10  # connections to Postgres kept open, and as many more in a rush
IDLE_IN_TRANSACTION = 4000  # milliseconds
CONNECT = 10  # seconds to connect to Postgres, unless the URL says otherwise
UPGRADE_LOCK = 0x41697264  # any number, the same in every process
# Of 4 kB, before they are carried into the database file: pages that are written often are carried once.
WAL_PAGES = 4000
BUSY_TIMEOUT = 30.0  # seconds a SQLite writer waits for another
MIGRATIONS = Path(__file__).parents[1] / "migrations"
VERSION_TABLE = "airmedic_schema"  # as in migrations/env.py


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
    pragmas = (
        "journal_mode = WAL",
        "synchronous = FULL",
        f"wal_autocheckpoint = {WAL_PAGES}",
        "foreign_keys = ON",
    )
    for pragma in pragmas:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
    connection.create_function(AS_TEXT, 1, text_of, deterministic=True)


class store_errors:
    """The one place where the database's errors become ours: `with store_errors("what is being done")`."""

    __slots__ = ("_doing",)

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        """Nothing yet."""

    def __exit__(self, _kind: object, raised: BaseException | None, _trace: object) -> None:
        """Raises `StoreUnavailable` or `SettingsInvalid` for what the database raised."""
        if isinstance(raised, OperationalError):
            raise StoreUnavailable(f"{self._doing}: the database did not answer ({raised.orig})") from raised
        if isinstance(raised, sqlite3.OperationalError):
            raise StoreUnavailable(f"{self._doing}: the database did not answer ({raised})") from raised
        if not isinstance(raised, DBAPIError):
            return
        if raised.connection_invalidated:
            raise StoreUnavailable(f"{self._doing}: the database hung up") from raised
        if isinstance(raised.orig, sqlite3.DatabaseError) and "not a database" in str(raised.orig):
            raise SettingsInvalid("AIRMEDIC_DATABASE_URL names a file that is no SQLite database") from raised


def compact(value: object) -> str:
    """JSON as it is stored."""
    return json.dumps(value, separators=(",", ":"))


def is_newest(connection: Connection) -> bool:
    """Whether every migration has been applied already, by the names of their files."""
    return _version(connection) == newest_version()


def newest_version() -> str:
    """The version this program's schema has."""
    return max(file.name for file in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    applied = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalars().all()
    return str(applied[0]) if len(applied) == 1 else None


def is_there(url: str) -> bool:
    """Whether the file of a SQLite URL exists."""
    return Path(url.partition("///")[2]).exists()


async def schema_version(database_url: str) -> str | None:
    """The schema's version in this database; None when there is none. Changes nothing."""
    url = engine_url(database_url)
    if url.startswith("sqlite") and not is_there(url):
        return None
    engine = create_async_engine(url)
    try:
        with store_errors("opening the database (AIRMEDIC_DATABASE_URL)"):
            async with engine.connect() as connection:
                return await connection.run_sync(_version)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection) -> None:
    if is_newest(connection):
        return
    # Ten megabytes, and most starts have nothing to migrate.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    if connection.dialect.name == "postgresql":
        # Several processes may start together: one brings the schema up to date, the others wait for it.
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": UPGRADE_LOCK})
    command.upgrade(config, "head")


@asynccontextmanager
async def open_database(database_url: str) -> AsyncIterator[AsyncEngine]:
    """The engine, its schema migrated to the newest version; disposed at the end."""
    url = engine_url(database_url)
    engine, reader = _open_sqlite(url) if url.startswith("sqlite") else _open_postgres(url)
    try:
        with store_errors("opening the database (AIRMEDIC_DATABASE_URL)"):
            async with engine.begin() as connection:
                await connection.run_sync(_upgrade)
        yield engine
    finally:
        await engine.dispose()
        await reader.close()


def _open_sqlite(url: str) -> tuple[AsyncEngine, SqliteFile]:
    file = SqliteFile(timeout=BUSY_TIMEOUT)
    # More connections than incidents driven at once: none waits while it holds the turn to write.
    # Opening one costs more than most of what is asked of it. The last one used is used next.
    engine = create_async_engine(
        url,
        connect_args={"async_creator_fn": file.connect},
        pool_size=SQLITE_POOL,
        pool_use_lifo=True,
        execution_options={READER: file},
        json_serializer=compact,
    )
    event.listen(engine.sync_engine, "connect", _tune_sqlite)
    return engine, file


def _open_postgres(url: str) -> tuple[AsyncEngine, Reader]:
    # Eight megabytes that a SQLite installation does without.
    from psycopg import AsyncConnection

    from server.db.postgres_line import Reader

    query = make_url(url).query
    given = query.get("options", ())
    # A process that is stopped in the middle of a transaction must not hold its locks for ever.
    options = [f"-c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION}"]
    ours = {
        "options": " ".join(options + ([given] if isinstance(given, str) else list(given))),
        "connect_timeout": query.get("connect_timeout", CONNECT),
        # psycopg prepares nothing by itself: on a rollback it would forget ours along with its own.
        "prepare_threshold": None,
    }
    engine = create_async_engine(
        url,
        connect_args=ours,
        pool_pre_ping=True,
        json_serializer=compact,
        pool_size=POOL,
        max_overflow=POOL,
        pool_use_lifo=True,  # the last one used has its statements prepared
    )
    _, arguments = engine.dialect.create_connect_args(engine.url)
    reader = Reader(partial(AsyncConnection.connect, **{**arguments, **ours}, autocommit=True))
    engine.update_execution_options(**{READER: reader})
    return engine, reader
