"""Checkpoints: which types they may hold, and the saver for SQLite or Postgres."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiosqlite
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

from graph import domain

# A checkpoint keeps each type's module path. A type that is not listed comes back as a bare dict.
STORED_TYPES = (
    domain.Action,
    domain.Answer,
    domain.AnswerKind,
    domain.Check,
    domain.CodeLocation,
    domain.ColumnProblem,
    domain.DataReport,
    domain.Decision,
    domain.DiagnosedBy,
    domain.Diagnosis,
    domain.EvidenceLine,
    domain.Facts,
    domain.FixPlan,
    domain.Incident,
    domain.IncidentKind,
    domain.ModelCost,
    domain.Note,
    domain.Outcome,
    domain.Remediation,
    domain.Role,
    domain.RootCause,
    domain.RuledOut,
    domain.Severity,
    domain.TaskRef,
    domain.TaskSnapshot,
    domain.Verdict,
    domain.Verification,
)

BUSY_TIMEOUT = 30_000  # milliseconds; store and checkpoints share one SQLite file


def checkpoint_serializer() -> JsonPlusSerializer:
    """Strict: anything but the listed types is not rebuilt."""
    return JsonPlusSerializer(allowed_msgpack_modules=STORED_TYPES)


@asynccontextmanager
async def open_saver(database_url: str) -> AsyncIterator[BaseCheckpointSaver[str]]:
    """The saver for `sqlite:///file` or `postgresql://…`, its tables made."""
    if database_url.startswith("sqlite:///"):
        async with aiosqlite.connect(database_url.removeprefix("sqlite:///")) as connection:
            await connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT}")
            saver = AsyncSqliteSaver(connection, serde=checkpoint_serializer())
            await saver.setup()
            yield saver
        return
    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(database_url, min_size=1, max_size=4, kwargs=options, open=False) as pool:
        postgres = AsyncPostgresSaver(pool, serde=checkpoint_serializer())  # type: ignore[arg-type]
        await postgres.setup()
        yield postgres
