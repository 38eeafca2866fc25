"""Notices on their way to people, and the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import JSON, Index, Integer, String, Text
from sqlmodel import Column, Field, SQLModel

from server.db.packed import PackedEntry
from server.db.tables import RowId, UtcDateTime


def _time(*, nullable: bool = True) -> Any:
    return Field(default=None, sa_column=Column(UtcDateTime, nullable=nullable))


class NoticeRow(SQLModel, table=True):
    """One thing to tell people, written with the state it tells of. Its key is there once."""

    __tablename__ = "notice"
    __table_args__ = (Index("notice_due", "status", "due_at"),)

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True, autoincrement=True))
    key: str = Field(sa_column=Column(String(200), unique=True, nullable=False))
    event: str = Field(sa_type=String(40))
    severity: str = Field(sa_type=String(16))
    incident_id: int | None = Field(default=None, sa_column=Column(RowId, nullable=True))
    version: int | None = None  #: of the question it tells of; told only while that one is open
    dag_id: str = Field(default="", sa_type=String(250))
    title: str = Field(sa_type=Text)
    body: str = Field(default="", sa_type=Text)
    created_at: datetime = _time(nullable=False)
    due_at: datetime = _time(nullable=False)
    status: str = Field(default="due", sa_type=String(16))  #: due, sent, moot, unrouted, given_up
    attempts: int = 0
    sent_to: JsonValue = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    message: str | None = Field(default=None, sa_type=String(32))  #: the message it went out in
    claim: str | None = Field(default=None, sa_type=String(200))
    lease_until: datetime | None = _time()
    sent_at: datetime | None = _time()
    error: str = Field(default="", sa_type=Text)


class ConditionRow(SQLModel, table=True):
    """Whether something Airmedic depends on is unwell, and how often it has been."""

    __tablename__ = "condition"

    name: str = Field(sa_column=Column(String(300), primary_key=True))
    unwell: bool = False
    number: int = 0  #: goes up with every change, so that each change is told once
    since: datetime = _time(nullable=False)
    detail: str = Field(default="", sa_type=Text)


class AuditRow(SQLModel, table=True):
    """One entry of the audit trail. `body` is what the mac covers; the other columns repeat parts of it."""

    __tablename__ = "audit"

    seq: int = Field(sa_column=Column(RowId, primary_key=True, autoincrement=False))
    at: datetime = _time(nullable=False)
    kind: str = Field(sa_type=String(40))
    incident_id: int | None = Field(default=None, sa_column=Column(RowId, index=True, nullable=True))
    body: str = Field(sa_type=PackedEntry)
    mac: str = Field(sa_type=String(64))


class AuditHeadRow(SQLModel, table=True):
    """The end of the chain: one row, which whoever appends holds until it commits."""

    __tablename__ = "audit_head"

    id: int = Field(sa_column=Column(Integer, primary_key=True, autoincrement=False))
    seq: int = Field(sa_column=Column(RowId, nullable=False))
    mac: str = Field(sa_type=String(64))
