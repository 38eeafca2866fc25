"""What is shared between workers: where each suspended incident stands, what it stands for, who is there."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import LargeBinary, String
from sqlmodel import Column, Field, SQLModel

from server.db.tables import RowId, UtcDateTime


class CheckpointRow(SQLModel, table=True):
    """Where the graph of an incident goes on: one row, replaced with each suspension, gone when it closes."""

    __tablename__ = "checkpoint"

    incident_id: int = Field(sa_column=Column(RowId, primary_key=True, autoincrement=False))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class WorkerRow(SQLModel, table=True):
    """One process that drives incidents. One that has not been seen for a while is dead."""

    __tablename__ = "worker"

    owner: str = Field(sa_column=Column(String(100), primary_key=True))
    seen_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class DutyRow(SQLModel, table=True):
    """A job that one process at a time has, like asking Airflow what failed."""

    __tablename__ = "duty"

    name: str = Field(sa_column=Column(String(32), primary_key=True))
    owner: str = Field(sa_column=Column(String(100), nullable=False))
    until: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class CauseRow(SQLModel, table=True):
    """A cause that an open incident stands for: further failures of it belong there."""

    __tablename__ = "cause"

    key: str = Field(sa_column=Column(String(16), primary_key=True))
    incident_id: int = Field(sa_column=Column(RowId, index=True, nullable=False))
    resource: str = Field(sa_column=Column(String(300), nullable=False))
    family: str = Field(sa_column=Column(String(16), nullable=False))
    seen_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))  #: the last failure of it
