"""Statements that are written often: compiled once for a dialect, then only filled in.

SQLAlchemy builds and looks up a statement again each time it is executed, which costs several times what the
database does with it. They go to the database's driver itself, with nothing in between. A list behind IN has
its length in the statement: `listed` gives lists of a few lengths only.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, cast

from sqlalchemy import BindParameter, DateTime, Executable, Insert, bindparam
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlmodel import SQLModel

from server.db.driver import READER, Reads, driver_of

Build = Callable[[str, tuple[str, ...]], Executable]
Fill = Callable[[Mapping[str, Any]], tuple[Any, ...]]
# As libpq wants its parameters: $1, $2, …
NUMBERED: Dialect = cast(Any, postgresql.psycopg.dialect)(paramstyle="numeric_dollar")


def insert_once_in(dialect: str, table: type[SQLModel]) -> Insert:
    """INSERT that does nothing when the row is there already; the values come with each execution."""
    row: Any = (sqlite if dialect == "sqlite" else postgresql).insert(table)
    insertion: Insert = row.on_conflict_do_nothing()
    return insertion


def listed(name: str, values: Iterable[Any]) -> dict[str, Any]:
    """Values for a list behind IN, under numbered names; the last one again up to a power of two."""
    given = list(values)
    most = 1 << max(len(given) - 1, 0).bit_length()
    return {f"{name}_{n}": given[min(n, len(given) - 1)] for n in range(most)} if given else {}


def places(name: str, names: Iterable[str], type_: Any = None) -> list[BindParameter[Any]]:
    """The parameters that stand for such a list in a statement."""
    return [bindparam(one, type_=type_) for one in names if one.startswith(f"{name}_")]


class Prepared:
    """One kind of statement; its variants differ in the names of the values that are given."""

    def __init__(self, build: Build) -> None:
        """`build` makes it for a dialect's name and the names that are given."""
        self._build = build
        self._known: dict[tuple[str, tuple[str, ...]], _Compiled] = {}

    async def run(self, connection: AsyncConnection, values: Mapping[str, Any]) -> int:
        """Execute it with these values; how many rows it changed."""
        compiled = self._compiled(connection.dialect, values)
        return max(await driver_of(connection).change(compiled.sql, compiled.fill(values)), 0)

    async def run_many(self, connection: AsyncConnection, rows: Sequence[Mapping[str, Any]]) -> None:
        """Execute it once for each row; all have the same names."""
        compiled = self._compiled(connection.dialect, rows[0])
        await driver_of(connection).change_all(compiled.sql, [compiled.fill(row) for row in rows])

    async def fetch(self, connection: AsyncConnection, values: Mapping[str, Any]) -> list[Any]:
        """Execute it and give its rows, each value in its column's type and under its column's name."""
        compiled = self._compiled(connection.dialect, values)
        found = await driver_of(connection).read(compiled.sql, compiled.fill(values))
        return [compiled.read(row) for row in found]

    async def look(self, engine: AsyncEngine, values: Mapping[str, Any]) -> list[Any]:
        """The same in a transaction of its own, for a few rows by an index, beside what others write."""
        compiled = self._compiled(engine.dialect, values)
        reader: Reads = engine.get_execution_options()[READER]
        return [compiled.read(row) for row in await reader.look(compiled.sql, compiled.fill(values))]

    def compiled(self, connection: AsyncConnection, values: Mapping[str, Any]) -> tuple[str, Fill]:
        """The statement's text, and what makes its parameters of such values; for the driver itself."""
        found = self._compiled(connection.dialect, values)
        return found.sql, found.fill

    def _compiled(self, dialect: Dialect, values: Mapping[str, Any]) -> _Compiled:
        key = (dialect.name, tuple(values))
        if (known := self._known.get(key)) is None:
            statement = cast(ClauseElement, self._build(*key))
            spelling = NUMBERED if dialect.name == "postgresql" else dialect
            compiler = statement.compile(dialect=spelling, column_keys=list(values))
            known = self._known[key] = _Compiled(cast(SQLCompiler, compiler), statement, dialect, values)
        return known


class _Compiled:
    def __init__(
        self, compiler: SQLCompiler, statement: ClauseElement, dialect: Dialect, given: Collection[str]
    ) -> None:
        # Of a query what it selects, of another statement what it returns.
        columns = list(getattr(statement, "exported_columns", ()))
        readers = [column.type.dialect_impl(dialect).result_processor(dialect, None) for column in columns]
        self._readers = [(place, read) for place, read in enumerate(readers) if read is not None]
        self._row = _named([column.key or "_" for column in columns])
        self.sql = str(compiler)
        names: Sequence[str] = compiler.positiontup or ()
        bound: Mapping[str, Any] = compiler._bind_processors
        spell = _in_utc if dialect.name == "sqlite" else None
        self._constants = {name: compiler.params[name] for name in names if name not in given}
        self._pick = _picking(names)
        self._spell = [
            (place, _remembering(bound[name], spell if _is_time(compiler.binds[name]) else None))
            for place, name in enumerate(names)
            if name in bound
        ]

    def read(self, row: Sequence[Any]) -> Any:
        values = list(row)
        for place, read in self._readers:
            values[place] = read(values[place])
        return self._row._make(values)

    def fill(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        filled = self._pick({**self._constants, **values} if self._constants else values)
        if not self._spell:
            return filled
        spelled = list(filled)
        for place, spell in self._spell:
            spelled[place] = spell(spelled[place])
        return tuple(spelled)


def _picking(names: Sequence[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    """Gives the values of these names, in their order."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)


def _named(names: Sequence[str]) -> Any:
    """A kind of row whose values have these names; names that are none give way to numbers."""
    return namedtuple("Row", names, rename=True)


def _is_time(parameter: BindParameter[Any]) -> bool:
    return isinstance(getattr(parameter.type, "impl_instance", parameter.type), DateTime)


def _in_utc(value: datetime) -> str:
    """As SQLAlchemy spells it for SQLite, in a fraction of the time."""
    if value.tzinfo is None:
        raise ValueError("a datetime without a zone cannot be stored")
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(" ", "microseconds")


def _remembering(
    process: Callable[[Any], Any], spell_time: Callable[[datetime], Any] | None
) -> Callable[[Any], Any]:
    """Rows that are written together share their moment: it is spelled once."""
    last: Any = None
    spelled: Any = None

    def spell(value: Any) -> Any:
        nonlocal last, spelled
        if not isinstance(value, datetime):
            return process(value)
        if value is not last:
            last, spelled = value, (spell_time or process)(value)
        return spelled

    return spell
