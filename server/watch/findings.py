"""Early warnings: told once when they begin, closed when they are over, with the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime

from pydantic import Field, JsonValue
from sqlalchemy import ColumnElement, RowMapping, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import DomainType, Severity, digest
from server.db.database import store_errors
from server.db.tables import EventRow, table_of
from server.db.tables_watch import FindingRow
from server.people.inert import inert, inert_line
from server.people.notifier import Notice, NoticePost
from server.store import insert_once

WORDS = {
    "component_unhealthy": "a part of Airflow gives no sign of life",
    "pool_starvation": "tasks wait for a pool that is full",
    "duration_drift": "a task takes longer than it used to",
    "run_failed": "a run failed, though none of its tasks did",
    "runs_deadlocked": "runs of a DAG wait for each other",
}
# Whether Airflow's parts are well is told by `server.people.conditions`, with the other things we depend on.
TOLD_ELSEWHERE = frozenset({"component_unhealthy"})


class Sight(DomainType):
    """What one look showed; it opens a finding or keeps one going."""

    kind: str  #: one of WORDS
    subject: str
    text: str
    numbers: dict[str, JsonValue] = Field(default_factory=dict)
    severity: Severity = Severity.MEDIUM
    since: datetime | None = None  #: when it began, if that is known

    @property
    def key(self) -> str:
        """One open finding for each kind and subject."""
        return key_of(self.kind, self.subject)


class Finding(DomainType):
    """One early warning, over when `until` is set."""

    id: int
    kind: str
    subject: str
    severity: Severity
    since: datetime
    seen_at: datetime
    until: datetime | None = None
    numbers: Mapping[str, JsonValue] = Field(default_factory=dict)
    text: str


def key_of(kind: str, subject: str) -> str:
    """What an open finding is found by."""
    return digest([kind, subject])


class Findings:
    """The findings in the store."""

    def __init__(
        self, engine: AsyncEngine, *, clock: Callable[[], datetime], post: NoticePost | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._post = post

    async def sync(
        self, kind: str, seen: Sequence[Sight], *, looked_at: Collection[str] | None = None
    ) -> tuple[int, int]:
        """Make the open findings of a kind agree with a look; how many began and how many are over.

        `looked_at` names the subjects that the look covered; without it, all of them.
        """
        now, begun = self._clock(), 0
        keys = {one.key for one in seen}
        with store_errors("recording what the watch found"):
            async with self._engine.begin() as connection:
                for one in seen:
                    begun += await self._keep(connection, one, now)
                wanted = [col(FindingRow.kind) == kind, col(FindingRow.open_key).is_not(None)]
                if looked_at is not None:
                    covered = [key_of(kind, subject) for subject in looked_at]
                    wanted.append(col(FindingRow.open_key).in_(covered))
                rows = await _rows(connection, wanted)
                over = [row for row in rows if row["open_key"] not in keys]
                for row in over:
                    await self._close(connection, row, now)
        return begun, len(over)

    async def _keep(self, connection: AsyncConnection, sight: Sight, now: datetime) -> bool:
        told = {"numbers": sight.numbers, "text": sight.text, "seen_at": now}
        mine = update(FindingRow).where(col(FindingRow.open_key) == sight.key)
        if (await connection.execute(mine.values(**told))).rowcount:
            return False
        row = {
            "open_key": sight.key,
            "kind": sight.kind,
            "subject": sight.subject[:1300],
            "severity": sight.severity.value,
            "since": sight.since or now,
            **told,
        }
        if not (await connection.execute(insert_once(self._engine, FindingRow, row))).rowcount:
            return False  # another process saw it first
        (kept,) = await _rows(connection, [col(FindingRow.open_key) == sight.key])
        await self._tell(connection, kept, "early_warning", now)
        return True

    async def _close(self, connection: AsyncConnection, row: RowMapping, now: datetime) -> None:
        mine = update(FindingRow).where(
            col(FindingRow.id) == row["id"], col(FindingRow.open_key).is_not(None)
        )
        if (await connection.execute(mine.values(open_key=None, until=now))).rowcount:
            await self._tell(connection, row, "warning_over", now)

    async def _tell(self, connection: AsyncConnection, row: RowMapping, event: str, now: datetime) -> None:
        data = {"finding": row["id"], "kind": row["kind"], "subject": row["subject"], "text": row["text"]}
        level = "warning" if event == "early_warning" else "info"
        line = {"incident_id": None, "at": now, "node": "watch", "level": level, "name": event, "data": data}
        await connection.execute(insert(EventRow).values(**line))
        if self._post is None or row["kind"] in TOLD_ELSEWHERE:
            return
        notice = Notice(
            event=event,
            key=f"{event}:{row['id']}",
            severity=Severity(row["severity"]),
            title=inert_line(f"{row['subject']}: {WORDS[row['kind']]}"),
            body=inert(row["text"]),
        )
        await self._post.post(connection, notice)

    async def listed(
        self,
        *,
        lasting: bool | None = None,
        kind: str | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[Finding]:
        """Newest first; only those that last, or only those that are over, when asked; `before` goes on."""
        wanted: list[ColumnElement[bool]] = []
        if lasting is not None:
            wanted.append(col(FindingRow.until).is_(None) if lasting else col(FindingRow.until).is_not(None))
        if kind is not None:
            wanted.append(col(FindingRow.kind) == kind)
        if before is not None:
            wanted.append(col(FindingRow.id) < before)
        with store_errors("reading findings"):
            async with self._engine.connect() as connection:
                rows = await _rows(connection, wanted, limit=limit)
        return [Finding.model_validate({k: v for k, v in row.items() if k != "open_key"}) for row in rows]


async def _rows(
    connection: AsyncConnection, wanted: Sequence[ColumnElement[bool]], *, limit: int = 1000
) -> Sequence[RowMapping]:
    table = table_of(FindingRow)
    query = select(table).where(*wanted).order_by(col(FindingRow.id).desc()).limit(limit)
    return (await connection.execute(query)).mappings().all()
