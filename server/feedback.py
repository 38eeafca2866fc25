"""What people said of incidents: kept, shown, and heard by memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from graph.domain import DomainType, RootCause
from server.db.database import store_errors
from server.db.tables_api import FeedbackRow

SHOWN = 200  # of one incident


class Feedback(DomainType):
    """One person's word on one incident."""

    id: int
    incident_id: int
    at: datetime
    by: str
    rating: int  #: 1 to 5
    cause_right: bool | None  #: None: nothing said of the cause
    cause: RootCause | None  #: what it was instead
    comment: str


class FeedbackStore:
    """The table of feedback."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    async def add(
        self,
        incident_id: int,
        *,
        by: str,
        rating: int,
        cause_right: bool | None = None,
        cause: RootCause | None = None,
        comment: str = "",
    ) -> Feedback:
        """Keep one word; committed on return."""
        values: dict[str, Any] = {
            "incident_id": incident_id,
            "at": self._clock(),
            "by": by,
            "rating": rating,
            "cause_right": cause_right,
            "cause": None if cause is None else cause.value,
            "comment": comment,
        }
        with store_errors("storing feedback"):
            async with self._engine.begin() as connection:
                added = insert(FeedbackRow).values(**values).returning(col(FeedbackRow.id))
                number = (await connection.execute(added)).scalar_one()
        return Feedback.model_validate({**values, "id": number})

    async def of(self, *incident_ids: int) -> list[Feedback]:
        """What was said of these incidents, oldest first, the newest of them at most."""
        query = (
            select(FeedbackRow)
            .where(col(FeedbackRow.incident_id).in_(incident_ids))
            .order_by(col(FeedbackRow.id).desc())
            .limit(SHOWN)
        )
        with store_errors("reading feedback"):
            async with AsyncSession(self._engine) as session:
                rows = list((await session.execute(query)).scalars())
        fields = tuple(Feedback.model_fields)
        return [Feedback.model_validate({name: getattr(row, name) for name in fields}) for row in rows[::-1]]


def counting(given: Sequence[Feedback]) -> list[Feedback]:
    """The newest word of each person on each incident, oldest first: only these count."""
    newest = {(one.incident_id, one.by): one for one in given}
    return sorted(newest.values(), key=lambda one: one.id)
