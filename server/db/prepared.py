"""Statements that are written often: compiled once for a dialect, then only filled in.

SQLAlchemy builds and looks up a statement again each time it is executed, which costs several times what the
database does with it. Lists behind IN are not for these: their length is part of the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Executable, Insert, Select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import SQLModel

Build = Callable[[str, tuple[str, ...]], Executable]
Fill = Callable[[Mapping[str, Any]], Any]


def insert_once_in(dialect: str, table: type[SQLModel]) -> Insert:
    """INSERT that does nothing when the row is there already; the values come with each execution."""
    row: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    insertion: Insert = row.on_conflict_do_nothing()
    return insertion


class Prepared:
    """One kind of statement; its variants differ in the names of the columns they set."""

    def __init__(self, build: Build) -> None:
        """`build` makes it for a dialect's name and the names that are given."""
        self._build = build
        self._known: dict[tuple[str, tuple[str, ...]], _Compiled] = {}

    async def run(self, connection: AsyncConnection, values: Mapping[str, Any]) -> int:
        """Execute it with these values; how many rows it changed."""
        compiled = self._compiled(connection, values)
        result = await connection.exec_driver_sql(compiled.sql, compiled.fill(values))
        return max(result.rowcount, 0)

    async def run_many(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it once for each row; all have the same names."""
        compiled = self._compiled(connection, rows[0])
        await connection.exec_driver_sql(compiled.sql, [compiled.fill(row) for row in rows])

    async def fetch(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Execute it and give its rows, each value in its column's type."""
        compiled = self._compiled(connection, values)
        result = await connection.exec_driver_sql(compiled.sql, compiled.fill(values))
        return [compiled.read(row) for row in result.fetchall()]

    def compiled(self, connection: AsyncConnection, values: Mapping[str, Any]) -> tuple[str, Fill]:
        """The statement's text, and what makes its parameters of such values; for the driver itself."""
        found = self._compiled(connection, values)
        return found.sql, found.fill

    def _compiled(self, connection: AsyncConnection, values: Mapping[str, Any]) -> _Compiled:
        key = (connection.dialect.name, tuple(values))
        if (known := self._known.get(key)) is None:
            statement = cast(ClauseElement, self._build(*key))
            compiler = statement.compile(dialect=connection.dialect, column_keys=list(values))
            columns = statement.selected_columns if isinstance(statement, Select) else ()
            types = [column.type.dialect_impl(connection.dialect) for column in columns]
            readers = [one.result_processor(connection.dialect, None) for one in types]
            known = self._known[key] = _Compiled(cast(SQLCompiler, compiler), readers)
        return known


class _Compiled:
    def __init__(self, compiler: SQLCompiler, readers: Sequence[Callable[[Any], Any] | None]) -> None:
        self._readers = readers
        self.sql = str(compiler)
        self._constants = compiler.params
        names: Sequence[str] = compiler.positiontup or tuple(compiler.params)
        bound: Mapping[str, Any] = compiler._bind_processors
        self._places = [(name, _remembering(bound[name]) if name in bound else None) for name in names]
        self._positional = compiler.positiontup is not None

    def read(self, row: Sequence[Any]) -> tuple[Any, ...]:
        readers = self._readers
        return tuple(value if read is None else read(value) for value, read in zip(row, readers, strict=True))

    def fill(self, values: Mapping[str, Any]) -> Any:
        constants = self._constants
        filled = [
            (values[name] if name in values else constants[name])
            if process is None
            else process(values[name] if name in values else constants[name])
            for name, process in self._places
        ]
        if self._positional:
            return tuple(filled)
        return {name: value for (name, _), value in zip(self._places, filled, strict=True)}


def _remembering(process: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Rows that are written together share their moment: it is spelled once."""
    last: Any = None
    spelled: Any = None

    def spell(value: Any) -> Any:
        nonlocal last, spelled
        if not isinstance(value, datetime):
            return process(value)
        if value is not last:
            last, spelled = value, process(value)
        return spelled

    return spell
