"""Whether what Airmedic depends on is well. Each change is told once, over restarts and processes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from pydantic import JsonValue
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import DomainType, Severity
from server.audit.chain import AuditEntry
from server.audit.trail import AuditTrail
from server.db.database import store_errors
from server.db.tables import EventRow
from server.db.tables_people import ConditionRow
from server.people.notices import of_condition
from server.people.notifier import NoticePost
from server.store import insert_once

IN_A_ROW = 2  # looks that must agree before a change is believed


class Seen(DomainType):
    """How one thing was found: `unwell` with the words why."""

    name: str
    unwell: bool
    detail: str = ""
    severity: Severity = Severity.HIGH
    worse: str = "unwell"  #: the event when it gets unwell
    better: str = "well_again"


class Conditions:
    """Remembers how each thing was found last, and tells people when that changes."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        post: NoticePost,
        clock: Callable[[], datetime],
        audit: AuditTrail | None = None,
    ) -> None:
        self._engine = engine
        self._post = post
        self._clock = clock
        self._audit = audit
        self._changed: dict[str, int] = {}

    async def unwell(self) -> dict[str, str]:
        """What is unwell now, and why."""
        query = select(col(ConditionRow.name), col(ConditionRow.detail)).where(col(ConditionRow.unwell))
        with store_errors("reading conditions"):
            async with self._engine.connect() as connection:
                return {str(name): str(detail) for name, detail in (await connection.execute(query)).all()}

    async def report(self, seen: Seen) -> bool:
        """Take note of one look. True when it changed something that people are now told."""
        before = await self.unwell()
        if (seen.name in before) == seen.unwell:
            self._changed.pop(seen.name, None)
            return False
        self._changed[seen.name] = self._changed.get(seen.name, 0) + 1
        if self._changed[seen.name] < IN_A_ROW:
            return False
        self._changed.pop(seen.name, None)
        return await self._change(seen)

    async def _change(self, seen: Seen) -> bool:
        now = self._clock()
        fresh = {"name": seen.name, "unwell": False, "number": 0, "since": now, "detail": ""}
        row = ConditionRow
        change = (
            update(row)
            .where(col(row.name) == seen.name, col(row.unwell) != seen.unwell)
            .values(unwell=seen.unwell, number=col(row.number) + 1, since=now, detail=seen.detail)
            .returning(col(row.number))
        )
        event = seen.worse if seen.unwell else seen.better
        data: dict[str, JsonValue] = {"what": seen.name, "detail": seen.detail}
        level = "warning" if seen.unwell else "info"
        line = {"incident_id": None, "at": now, "node": "", "name": event, "level": level, "data": data}
        with store_errors("recording a condition"):
            async with self._engine.begin() as connection:
                await connection.execute(insert_once(self._engine, row, fresh))
                number = (await connection.execute(change)).scalar_one_or_none()
                if number is None:
                    return False  # another process saw it first
                await connection.execute(insert(EventRow).values(**line))
                notice = of_condition(
                    seen.name, event, number=number, detail=seen.detail, severity=seen.severity
                )
                await self._post.post(connection, notice)
                if self._audit is not None and event.startswith("breaker"):
                    await self._audit.append(connection, AuditEntry(kind=event, by="airmedic", data=data))
        return True
