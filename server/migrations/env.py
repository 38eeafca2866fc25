"""Alembic's entry: runs on the connection that `server.db.database` hands over."""

from __future__ import annotations

from alembic import context
from sqlmodel import SQLModel

import server.db.tables
import server.db.tables_access
import server.db.tables_api
import server.db.tables_chat
import server.db.tables_people
import server.db.tables_retention
import server.db.tables_watch
import server.db.tables_work  # noqa: F401  the imports fill SQLModel.metadata

OURS = set(SQLModel.metadata.tables)


def include_name(name: str | None, kind: str, _parents: object) -> bool:
    """Leave the checkpointer's tables alone."""
    return kind != "table" or name in OURS


def run() -> None:
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=SQLModel.metadata,
        include_name=include_name,
        version_table="airmedic_schema",
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
