"""Checkpoints: which types they may hold, and the saver for SQLite or Postgres."""

from __future__ import annotations

import asyncio
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import aiosqlite
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    WRITES_IDX_MAP,
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    PendingWrite,
)
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.types import Interrupt

from graph import domain

if TYPE_CHECKING:
    from psycopg import AsyncConnection

# A checkpoint keeps each type as `graph.domain` and its name. One not listed comes back as a bare dict.
STORED_TYPES = (
    domain.Action,
    domain.Answer,
    domain.AnswerKind,
    domain.BlastRadius,
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
    domain.Group,
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

LATELY = 128  # threads whose last checkpoint is remembered: most go on where they were within seconds
SETUP_PAUSE = 0.1  # seconds
SETUP_LOCK = 0x41697265  # any number, the same in every process
BUSY_TIMEOUT = 30_000  # milliseconds; store and checkpoints share one SQLite file


def checkpoint_serializer() -> JsonPlusSerializer:
    """Strict: anything but the listed types is not rebuilt."""
    return JsonPlusSerializer(allowed_msgpack_modules=STORED_TYPES)


class Kept(NamedTuple):
    """Where one thread stands: its newest checkpoint and what was written since."""

    config: RunnableConfig
    checkpoint: Checkpoint
    metadata: CheckpointMetadata
    writes: list[PendingWrite]


class CarriedSaver(BaseCheckpointSaver[int]):
    """Carries the newest checkpoint of the threads that are being driven, in memory, no history.

    It promises nothing by itself: whoever drives a thread hands in what was stored (`take_up`), stores what
    `packed` gives together with what the run has found, and lets go (`drop`).
    """

    def __init__(self) -> None:
        super().__init__(serde=checkpoint_serializer())
        self._kept: dict[str, Kept] = {}
        self._packed: dict[str, tuple[Kept, bytes]] = {}  # what each thread of ours was packed into last
        self._lately: OrderedDict[str, tuple[Kept, bytes]] = OrderedDict()  # the same, of threads let go of

    def take_up(self, thread: str, stored: bytes | None) -> None:
        """Go on from what was stored; None begins afresh."""
        self._kept.pop(thread, None)
        self._packed.pop(thread, None)
        known = self._lately.pop(thread, None)
        if known is not None and known[1] == stored:
            self._kept[thread] = known[0]  # stored here and by nobody else since: no need to read it again
        elif stored is not None:
            checkpoint, metadata, writes = self.serde.loads_typed(("msgpack", zlib.decompress(stored)))
            config = _config(thread, checkpoint["id"])
            self._kept[thread] = Kept(config, checkpoint, metadata, [_write(one) for one in writes])

    def packed(self, thread: str) -> bytes | None:
        """What must be stored to go on from here; None when there is nothing yet."""
        if (kept := self._kept.get(thread)) is None:
            return None
        kind, body = self.serde.dumps_typed([kept.checkpoint, kept.metadata, [list(w) for w in kept.writes]])
        assert kind == "msgpack", kind
        packed = zlib.compress(body, 1)
        # Writes may be added to what is kept: remembered is what was packed.
        self._packed[thread] = (kept._replace(writes=list(kept.writes)), packed)
        return packed

    def drop(self, thread: str) -> None:
        """Nobody drives it any more."""
        self._kept.pop(thread, None)
        if (packed := self._packed.pop(thread, None)) is not None:
            self._lately[thread] = packed
            if len(self._lately) > LATELY:
                self._lately.popitem(last=False)

    def values(self, thread: str) -> Mapping[str, Any]:
        """The state as of the newest checkpoint; empty when there is none."""
        kept = self._kept.get(thread)
        return {} if kept is None else kept.checkpoint["channel_values"]

    def interrupts(self, thread: str) -> list[Interrupt]:
        """What the thread waits for."""
        kept = self._kept.get(thread)
        found = [value for _, channel, value in kept.writes if channel == INTERRUPT] if kept else []
        return [one for several in found for one in several]

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """See `BaseCheckpointSaver`."""
        kept = self._kept.get(config["configurable"]["thread_id"])
        if kept is None:
            return None
        return CheckpointTuple(kept.config, kept.checkpoint, kept.metadata, None, list(kept.writes))

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """See `BaseCheckpointSaver`. The one before it is forgotten."""
        thread = config["configurable"]["thread_id"]
        placed = _config(thread, checkpoint["id"])
        self._kept[thread] = Kept(placed, checkpoint, metadata, [])
        return placed

    async def aput_writes(
        self,
        config: RunnableConfig,
        writes: Sequence[tuple[str, Any]],
        task_id: str,
        task_path: str = "",
    ) -> None:
        """See `BaseCheckpointSaver`."""
        kept = self._kept.get(config["configurable"]["thread_id"])
        if kept is None or kept.checkpoint["id"] != config["configurable"]["checkpoint_id"]:
            return
        # A node that runs again replaces what it wrote; a special channel holds one value of each task.
        special = {channel for channel, _ in writes if channel in WRITES_IDX_MAP}
        plain = any(channel not in WRITES_IDX_MAP for channel, _ in writes)
        kept.writes[:] = [
            one
            for one in kept.writes
            if one[0] != task_id or not (one[1] in special or (plain and one[1] not in WRITES_IDX_MAP))
        ]
        kept.writes.extend((task_id, channel, value) for channel, value in writes)

    async def adelete_thread(self, thread_id: str) -> None:
        """See `BaseCheckpointSaver`."""
        self.drop(thread_id)


def _config(thread: str, checkpoint_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread, "checkpoint_ns": "", "checkpoint_id": checkpoint_id}}


def _write(stored: Sequence[Any]) -> PendingWrite:
    task_id, channel, value = stored
    return task_id, channel, value


async def _only_one(connection: AsyncConnection[Any]) -> None:
    """Wait until no other process sets up: they would meet in its list of versions.

    Asked again and again: who waits inside Postgres holds up the indexes that the other one builds there.
    """
    while True:
        found = await connection.execute("SELECT pg_try_advisory_lock(%s) AS ours", (SETUP_LOCK,))
        row = await found.fetchone()
        if row is not None and row["ours"]:
            return
        await asyncio.sleep(SETUP_PAUSE)


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
    # Ten megabytes that a SQLite installation does without.
    from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
    from psycopg.rows import dict_row
    from psycopg_pool import AsyncConnectionPool

    options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
    async with AsyncConnectionPool(database_url, min_size=1, max_size=4, kwargs=options, open=False) as pool:
        postgres = AsyncPostgresSaver(pool, serde=checkpoint_serializer())  # type: ignore[arg-type]
        async with pool.connection() as connection:
            await _only_one(connection)
            try:
                await postgres.setup()
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (SETUP_LOCK,))
        yield postgres
