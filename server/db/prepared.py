"""Statements that are written often: compiled once for a dialect, then only filled in.

SQLAlchemy builds and looks up a statement again each time it is executed, which costs several times what the
database does with it. Lists behind IN are not for these: their length is part of the statement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from sqlalchemy import Executable, Select
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

Build = Callable[[str, tuple[str, ...]], Executable]


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
        self._process: Mapping[str, Any] = compiler._bind_processors
        self._names: Sequence[str] = compiler.positiontup or tuple(compiler.params)
        self._positional = compiler.positiontup is not None

    def read(self, row: Sequence[Any]) -> tuple[Any, ...]:
        readers = self._readers
        return tuple(value if read is None else read(value) for value, read in zip(row, readers, strict=True))

    def fill(self, values: Mapping[str, Any]) -> Any:
        if self._positional:
            return tuple([self._bound(name, values) for name in self._names])
        return {name: self._bound(name, values) for name in self._names}

    def _bound(self, name: str, values: Mapping[str, Any]) -> Any:
        value = values[name] if name in values else self._constants[name]
        process = self._process.get(name)
        return value if process is None else process(value)
