"""Failures that come in, many at once: what is new is stored, and each sender learns whether theirs was.

What they say is redacted here, all of it at once, before any of it is written.

One statement for each table on Postgres. On SQLite a statement for each row, which there costs a few
microseconds as long as nothing stands between it and the driver.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import String
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlmodel import SQLModel

from server.db.driver import driver_of
from server.db.group_writer import Writing
from server.db.prepared import Fill, Prepared, insert_once_in
from server.db.sqlite_connection import Connection
from server.db.tables import DeliveryRow, OccurrenceRow, table_of
from tools.redaction import redact_all

LONGEST = 2000  # characters that are kept of an error

IDENTITY = ("airflow", "dag_id", "run_id", "task_id", "map_index", "try_number", "kind")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Arrival:
    """What one delivery, or one poll, brings."""

    #: Of the table `occurrence`, the same columns in all; times and error come when written.
    rows: Sequence[dict[str, Any]]
    error: str = ""  #: as it came, secrets and all
    delivery: str | None = None


DELIVERED = Prepared(lambda dialect, _names: insert_once_in(dialect, DeliveryRow))
OCCURRED = Prepared(lambda dialect, _names: insert_once_in(dialect, OccurrenceRow))


async def write_arrivals(writing: Writing, arrivals: Sequence[Arrival], *, now: datetime) -> list[int]:
    """How many of each arrival's failures were new. A delivery that is known brings nothing."""
    clean = _without_secrets(one.error for one in arrivals)
    for one in arrivals:
        for row in one.rows:
            row["received_at"] = row["check_at"] = now
            row["error"] = clean[one.error]
    connection = writing.connection
    if connection.dialect.name != "sqlite":
        return await _to_postgres(connection, arrivals, now)
    first = next((one.rows[0] for one in arrivals if one.rows), None)
    if first is None:
        return [0] * len(arrivals)
    deliver = DELIVERED.compiled(connection, _delivery(None, now))
    occur = OCCURRED.compiled(connection, first)
    driver = driver_of(connection)
    assert isinstance(driver, Connection), "SQLite"
    return await driver.write(lambda database: _to_sqlite(database, arrivals, now, deliver, occur))


def _without_secrets(errors: Iterable[str]) -> dict[str, str]:
    """What is kept of each; cut only then, for half a secret is not known as one."""
    given = list(dict.fromkeys(errors))
    texts = redact_all([error.replace("\0", "") for error in given])
    return {error: text[:LONGEST] for error, text in zip(given, texts, strict=True)}


def _to_sqlite(
    database: sqlite3.Connection,
    arrivals: Sequence[Arrival],
    now: datetime,
    deliver: tuple[str, Fill],
    occur: tuple[str, Fill],
) -> list[int]:
    cursor, new = database.cursor(), []
    for one in arrivals:
        if one.delivery is not None:
            delivery = deliver[1](_delivery(one.delivery, now))
            if not cursor.execute(deliver[0], delivery).rowcount:
                new.append(0)
                continue
        new.append(sum(cursor.execute(occur[0], occur[1](row)).rowcount for row in one.rows))
    cursor.close()
    return new


def _delivery(webhook_id: str | None, now: datetime) -> Row:
    return {"webhook_id": webhook_id, "received_at": now}


async def _to_postgres(connection: AsyncConnection, arrivals: Sequence[Arrival], now: datetime) -> list[int]:
    # The first of each name only: the same delivery may be here twice, with two contents.
    deliveries = {one.delivery: one for one in reversed(arrivals) if one.delivery is not None}
    known: set[str] = set()
    if deliveries:
        stored = await _insert(connection, DeliveryRow, [_delivery(one, now) for one in deliveries])
        known = set(deliveries) - {row[0] for row in stored}
    taken = [
        one
        for one in arrivals
        if one.delivery is None or (deliveries[one.delivery] is one and one.delivery not in known)
    ]
    first = {_identity(row): (one, row) for one in reversed(taken) for row in reversed(one.rows)}
    new = dict.fromkeys(map(id, arrivals), 0)
    if first:
        rows = [row for _, row in reversed(first.values())]
        for found in await _insert(connection, OccurrenceRow, rows):
            new[id(first[tuple(found)][0])] += 1
    return [new[id(one)] for one in arrivals]


def _identity(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in IDENTITY)


async def _insert(
    connection: AsyncConnection, kind: type[SQLModel], rows: Sequence[Row]
) -> Sequence[Sequence[Any]]:
    """Insert those that are not there yet, as arrays in one statement; the keys of those that were not."""
    table = table_of(kind)
    keys = IDENTITY if kind is OccurrenceRow else ("webhook_id",)
    columns = [table.c[name] for name in rows[0]]
    # Texts without their length: a cast would cut them, an insertion refuses what is too long.
    types = [
        "TEXT" if isinstance(column.type, String) else column.type.compile(connection.dialect)
        for column in columns
    ]
    arrays = ", ".join(f"${n}::{one}[]" for n, one in enumerate(types, 1))
    names = ", ".join(column.name for column in columns)
    statement = (
        f"INSERT INTO {table.name} ({names}) SELECT * FROM unnest({arrays}) "
        f"ON CONFLICT DO NOTHING RETURNING {', '.join(keys)}"
    )
    values = tuple([row[column.name] for row in rows] for column in columns)
    return await driver_of(connection).read(statement, values)
