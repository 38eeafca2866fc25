"""What the watch found, and what it must remember to find more."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import JSON, Boolean, Index, Integer, String, Text
from sqlmodel import Column, Field, SQLModel

from server.db.tables import RowId, UtcDateTime


def _time(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(UtcDateTime, nullable=nullable))


def _json() -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


class FindingRow(SQLModel, table=True):
    """One early warning, from when it was first seen to when it was over."""

    __tablename__ = "finding"
    __table_args__ = (Index("finding_since", "since"),)

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True, autoincrement=True))
    # Set while it lasts: one open finding for each kind and subject.
    open_key: str | None = Field(default=None, sa_column=Column(String(64), unique=True, nullable=True))
    kind: str = Field(sa_type=String(32))
    subject: str = Field(sa_type=String(1300))
    severity: str = Field(sa_type=String(16))
    since: datetime = _time(nullable=False)
    seen_at: datetime = _time(nullable=False)
    until: datetime | None = _time()
    numbers: JsonValue = _json()
    text: str = Field(sa_type=Text)


class SuspectRow(SQLModel, table=True):
    """A DAG whose next run is due or whose schedule is paused, until its runs are known to be complete."""

    __tablename__ = "suspect"
    __table_args__ = (Index("suspect_check", "check_at"),)

    dag_id: str = Field(sa_column=Column(String(250), primary_key=True))
    due: datetime = _time(nullable=False)  #: of the first run that may be missing
    paused: bool = Field(sa_column=Column(Boolean, nullable=False))
    check_at: datetime = _time(nullable=False)
    reason: str = Field(default="", sa_type=Text)  #: what the last look showed


class DurationRow(SQLModel, table=True):
    """How long the last good runs of one task took."""

    __tablename__ = "duration"

    dag_id: str = Field(sa_column=Column(String(250), primary_key=True))
    task_id: str = Field(sa_column=Column(String(1000), primary_key=True))
    seconds: JsonValue = _json()  #: oldest first, a few dozen at most
    count: int = Field(default=0, sa_column=Column(Integer, nullable=False))  #: how many those are
    updated_at: datetime = _time(nullable=False)
