"""A look at the database without changing it: can it be opened, written, and is its schema the newest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from graph.errors import StoreUnavailable
from server.db.database import MIGRATIONS, VERSION_TABLE, engine_url, store_errors

WRITE = "UPDATE setting SET updated_at = updated_at WHERE key = ''"


@dataclass(frozen=True)
class DatabaseState:
    """What was found. `schema` is None for a database without our tables."""

    exists: bool
    schema: str | None
    newest: str


def newest_schema() -> str:
    """The schema version this Airmedic works with."""
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config).get_current_head() or ""


def sqlite_file(database_url: str) -> Path | None:
    """The file of a SQLite URL; None for another database."""
    if not database_url.startswith("sqlite:///"):
        return None
    return Path(database_url.removeprefix("sqlite:///"))


async def look_at_database(database_url: str) -> DatabaseState:
    """Open it, read its schema version, try a write that changes nothing. Raises `StoreUnavailable`."""
    url = engine_url(database_url)
    file = sqlite_file(database_url)
    # SQLite makes the file that it is asked to open.
    if file is not None and not file.exists():
        return DatabaseState(exists=False, schema=None, newest=newest_schema())
    engine = create_async_engine(url)
    try:
        with store_errors("looking at the database"):
            async with engine.connect() as connection:
                schema = await connection.run_sync(_schema)
                if schema is not None:
                    await connection.execute(text(WRITE))
                    await connection.rollback()
    except DBAPIError as exc:
        raise StoreUnavailable(f"it is no database of ours ({exc.orig})") from exc
    finally:
        await engine.dispose()
    return DatabaseState(exists=True, schema=schema, newest=newest_schema())


def _schema(connection: Connection) -> str | None:
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    return context.get_current_revision()
