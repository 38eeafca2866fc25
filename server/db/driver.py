"""The database's own driver beneath SQLAlchemy's connection: the same few verbs on SQLite and on Postgres."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from graph.errors import StoreUnavailable
from server.db.sqlite_connection import Connection

READER = "airmedic_reader"  # the engine's option that holds what `Prepared.look` reads with
LINE = "airmedic_line"  # where a pooled connection keeps its `Line`


class Forgotten(StoreUnavailable):
    """The database knows a prepared statement no more. The same transaction will do, once it is undone."""


class Reads(Protocol):
    """Short reads, each a transaction of its own."""

    async def look(self, statement: str, parameters: Any) -> list[Any]:
        """A few rows by a key; what is committed at this moment."""


class Driver(Protocol):
    """Statements with their parameters filled in, in the spelling of the database."""

    beside: bool  #: whether several callers may ask at the same time

    @property
    def closed(self) -> bool:
        """Whether nothing can be asked any more."""

    def transaction(self) -> AbstractAsyncContextManager[None]:
        """Committed when the block ends, rolled back when it fails. Raises `StoreDoubt` when nobody knows."""

    async def read(self, statement: str, parameters: Any) -> list[Any]:
        """The rows of a query."""

    async def change(self, statement: str, parameters: Any) -> int:
        """Execute a write; how many rows it changed."""

    async def change_all(self, statement: str, rows: Sequence[Any]) -> None:
        """Execute a write once for each row of parameters."""


def driver_of(connection: AsyncConnection) -> Driver:
    """What is beneath this connection; it takes part in the connection's transaction."""
    assert connection.sync_connection is not None, "the connection has been opened"
    pooled = connection.sync_connection.connection
    raw = pooled.driver_connection
    if isinstance(raw, Connection):
        return raw
    # Eight megabytes that a SQLite installation does without.
    from psycopg import AsyncConnection as Psycopg

    from server.db.postgres_line import Line

    assert isinstance(raw, Psycopg), "a database is opened by `open_database`"
    known = pooled.info.get(LINE)
    if not isinstance(known, Line) or known.raw is not raw:
        known = pooled.info[LINE] = Line(raw)
    return known
