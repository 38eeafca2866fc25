"""Carries a SQLite store over to an empty Postgres one: every row of every table, in one transaction."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy import Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel

import server.db.tables_access
import server.db.tables_api
import server.db.tables_chat
import server.db.tables_people
import server.db.tables_watch
import server.db.tables_work  # noqa: F401  the imports fill SQLModel.metadata
from graph.errors import SettingsInvalid
from server.db.database import open_database

PAGE = 500  # rows at a time
# Made by the migrations in every database.
SEEDED = frozenset({"audit_head"})
# Of the processes that ran on the old one.
LEFT = frozenset({"worker", "duty"})


def tables() -> list[Table]:
    """Every table of ours, in an order in which rows may refer to what is there already."""
    return [table for table in SQLModel.metadata.sorted_tables if table.name not in LEFT]


async def carry_over(source: str, target: str) -> dict[str, int]:
    """Copy everything; how many rows of each table. Raises `SettingsInvalid` when it cannot be done."""
    if not source.startswith("sqlite:///") or not target.startswith(("postgresql://", "postgres://")):
        raise SettingsInvalid("it goes from a sqlite:/// store to a postgresql:// one, not otherwise")
    counts: dict[str, int] = {}
    async with (
        open_database(source) as old,
        open_database(target) as new,
        old.connect() as reading,
        new.begin() as writing,
    ):
        await _refuse_used(writing)
        for table in tables():
            counts[table.name] = 0
            async for page in _pages(reading, table):
                await writing.execute(insert(table), page)
                counts[table.name] += len(page)
            await _count_on(writing, table)
    return {name: count for name, count in counts.items() if count}


async def _refuse_used(connection: AsyncConnection) -> None:
    for table in tables():
        if table.name in SEEDED:
            await connection.execute(table.delete())
        elif (await connection.execute(select(func.count()).select_from(table))).scalar_one():
            raise SettingsInvalid(
                f"the Postgres database is in use: {table.name!r} has rows; give it an empty one"
            )


async def _pages(connection: AsyncConnection, table: Table) -> AsyncIterator[list[dict[str, Any]]]:
    key = list(table.primary_key)
    done = 0
    while True:
        query = select(table).order_by(*key).limit(PAGE).offset(done)
        rows = [dict(row) for row in (await connection.execute(query)).mappings()]
        if rows:
            yield [_freed(table, row) for row in rows]
        if len(rows) < PAGE:
            return
        done += len(rows)


def _freed(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    """The lease of a process on the old store means nothing on the new one."""
    return row | {"lease_owner": None, "lease_until": None} if table.name == "incident" else row


async def _count_on(connection: AsyncConnection, table: Table) -> None:
    """New rows get numbers behind those that were carried over."""
    column = table.autoincrement_column
    if column is None or table.name in SEEDED:
        return
    sequence = (
        await connection.execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"),
            {"table": f'"{table.name}"', "column": column.name},
        )
    ).scalar_one_or_none()
    newest = (await connection.execute(select(func.max(column)))).scalar_one_or_none()
    if sequence is not None and newest is not None:
        await connection.execute(text("SELECT setval(:name, :value)"), {"name": sequence, "value": newest})
