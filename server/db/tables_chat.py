"""What people asked for in the chat, and which threads they have."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Boolean, Index, String, UniqueConstraint
from sqlmodel import Column, Field, SQLModel

from server.db.tables import RowId, UtcDateTime


def _id() -> Any:
    return Field(default=None, sa_column=Column(RowId, primary_key=True, autoincrement=True))


def _time(*, nullable: bool = False) -> Any:
    return Field(default=None, sa_column=Column(UtcDateTime, nullable=nullable))


class RequestRow(SQLModel, table=True):
    """One thing one person asked for. The newest of an incident counts."""

    __tablename__ = "request"

    id: int | None = _id()
    incident_id: int = Field(sa_column=Column(RowId, index=True, nullable=False))
    wish: str = Field(sa_type=String(16))
    by: str = Field(sa_type=String(200))
    at: datetime = _time()
    until: datetime | None = _time(nullable=True)
    confirm: bool = Field(default=False, sa_column=Column(Boolean, nullable=False))


class ThreadRow(SQLModel, table=True):
    """One person's thread; what was said in it is in the checkpoints."""

    __tablename__ = "chat_thread"
    __table_args__ = (
        UniqueConstraint("owner", "thread", name="chat_thread_once"),
        Index("chat_thread_newest", "owner", "updated_at"),
    )

    id: int | None = _id()
    owner: str = Field(sa_type=String(64))
    thread: str = Field(sa_type=String(64))
    title: str = Field(default="", sa_type=String(200))
    updated_at: datetime = _time()
