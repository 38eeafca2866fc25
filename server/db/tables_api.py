"""What people said of incidents, and what the API searches."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlmodel import Column, Field, SQLModel, col

from server.db.tables import EventRow, IncidentRow, RowId, UtcDateTime

# The words and facets of incidents are no table of ours: see `server.db.search_index`.
Index("event_time", col(EventRow.at), col(EventRow.name), col(EventRow.incident_id))
Index("incident_outcome", col(IncidentRow.outcome))
Index("incident_updated", col(IncidentRow.updated_at), col(IncidentRow.id))


class FeedbackRow(SQLModel, table=True):
    """What one person said of one incident. The newest word of each person counts."""

    __tablename__ = "feedback"

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True, autoincrement=True))
    incident_id: int = Field(sa_column=Column(RowId, index=True, nullable=False))
    at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    by: str = Field(sa_type=String(200))
    rating: int
    cause_right: bool | None = None
    cause: str | None = Field(default=None, sa_type=String(40))
    comment: str = Field(default="", sa_type=Text)
