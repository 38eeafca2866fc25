"""The store's tables. Rows are not domain types: `server.store` turns one into the other."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator
from sqlmodel import Column, Field, SQLModel

from server.db.packed import PackedJson, PackedLine


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes on both databases; SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("a datetime without a zone cannot be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC).astimezone(UTC)


# SQLite only counts up by itself in a column declared INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


def _id() -> Any:
    return Field(default=None, sa_column=Column(RowId, primary_key=True, autoincrement=True))


def _time(*, nullable: bool = True, index: bool = False) -> Any:
    return Field(default=None, sa_column=Column(UtcDateTime, nullable=nullable, index=index))


def _json() -> Any:
    return Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))


def _packed() -> Any:
    return Field(default=None, sa_column=Column(PackedJson, nullable=True))


def table_of(kind: type[SQLModel]) -> Table:
    """The table of a kind of row, for statements that need no object of it."""
    return SQLModel.metadata.tables[str(kind.__tablename__)]


class IncidentRow(SQLModel, table=True):
    """One incident: who drives it, what it waits for, what was found and done."""

    __tablename__ = "incident"
    __table_args__ = (
        Index("incident_due", "status", "wake_at"),
        Index("incident_standing", "status", "closed_at", "outcome"),
        Index("incident_task", "dag_id", "task_id", "run_id", "map_index"),
    )

    id: int | None = _id()
    # Set while the incident is not closed: at most one open incident per task instance, on any database.
    open_key: str | None = Field(default=None, sa_column=Column(String(64), unique=True, nullable=True))
    kind: str = Field(default="failure", sa_type=String(16))
    airflow: str = Field(sa_type=String(200))
    dag_id: str = Field(sa_type=String(250))
    run_id: str = Field(sa_type=String(250))
    task_id: str = Field(sa_type=String(1000))
    map_index: int = -1
    try_number: int = 1
    operator: str = Field(default="", sa_type=String(250))
    severity: str = Field(default="high", sa_type=String(16))
    status: str = Field(default="open", sa_type=String(32))
    outcome: str | None = Field(default=None, sa_type=String(32))
    reason: str = Field(default="", sa_type=Text)
    root_cause: str | None = Field(default=None, sa_type=String(40))
    signature: str | None = Field(default=None, sa_column=Column(String(32), index=True, nullable=True))
    version: int = 1  #: goes up with every question and every end; a decision names it
    attempt: int = 0
    failures: int = 0  #: errors in a row while driving it
    opened_at: datetime = _time(nullable=False, index=True)
    updated_at: datetime = _time(nullable=False)
    failed_at: datetime | None = _time()
    closed_at: datetime | None = _time()
    wake_at: datetime | None = _time()
    expires_at: datetime | None = _time()
    lease_owner: str | None = Field(default=None, sa_type=String(100))
    lease_until: datetime | None = _time()
    epoch: int = 0
    log: str | None = Field(default=None, sa_type=String(64))
    diagnosis: JsonValue = _json()
    plan: JsonValue = _packed()
    decision: JsonValue = _packed()
    checklist: JsonValue = _json()
    verification: JsonValue = _packed()
    question: JsonValue = _json()
    answer: JsonValue = _json()  #: given and not yet taken up by the graph


class OccurrenceRow(SQLModel, table=True):
    """One failure, once, whichever doors it came through."""

    __tablename__ = "occurrence"
    __table_args__ = (
        UniqueConstraint(
            "airflow",
            "dag_id",
            "run_id",
            "task_id",
            "map_index",
            "try_number",
            "kind",
            name="occurrence_identity",
        ),
        Index("occurrence_status", "status", "check_at"),
        Index("occurrence_part", "incident_id", "part", "id"),
    )

    id: int | None = _id()
    kind: str = Field(default="failure", sa_type=String(16))
    airflow: str = Field(sa_type=String(200))
    dag_id: str = Field(sa_type=String(250))
    run_id: str = Field(sa_type=String(250))
    task_id: str = Field(sa_type=String(1000))
    map_index: int = -1
    try_number: int = 1
    door: str = Field(sa_type=String(16))
    received_at: datetime = _time(nullable=False)
    check_at: datetime = _time(nullable=False)
    checks: int = 0  #: how often Airflow was asked and did not answer
    status: str = Field(default="new", sa_type=String(16))  #: new, incident, rejected
    reason: str = Field(default="", sa_type=Text)
    error: str = Field(default="", sa_type=Text)
    incident_id: int | None = Field(default=None, sa_column=Column(RowId, nullable=True))
    # What became of it when it belongs to an incident of another task by its cause (`graph.domain.Part`).
    part: str = Field(default="", sa_column=Column(String(16), nullable=False, server_default=""))
    wave: int = Field(default=0, sa_column=Column(Integer, nullable=False, server_default="0"))


class EventRow(SQLModel, table=True):
    """One line of the agent log."""

    __tablename__ = "event"

    id: int | None = _id()
    incident_id: int | None = Field(default=None, sa_column=Column(RowId, index=True, nullable=True))
    at: datetime = _time(nullable=False)
    node: str = Field(default="", sa_type=String(32))
    name: str = Field(sa_type=String(64))
    level: str = Field(default="info", sa_type=String(16))
    data: JsonValue = Field(default=None, sa_column=Column(PackedLine, nullable=True))


class ActionRow(SQLModel, table=True):
    """One write to Airflow in the ledger."""

    __tablename__ = "action"
    __table_args__ = (
        UniqueConstraint("incident_id", "attempt", "position", name="action_place"),
        Index("action_sent", "sent_at", "name", "attempt"),
        Index("action_dag", "dag_id", "sent_at"),
    )

    id: int | None = _id()
    incident_id: int = Field(sa_column=Column(RowId, nullable=False))
    attempt: int
    position: int
    key: str = Field(sa_type=String(100))
    name: str = Field(sa_type=String(64))
    dag_id: str = Field(sa_type=String(250))
    task_id: str = Field(sa_type=String(1000))
    target: JsonValue = _packed()
    args: JsonValue = _packed()
    step: str = Field(sa_type=String(16))
    before: JsonValue = _packed()
    after: JsonValue = _packed()
    error: str = Field(default="", sa_type=Text)
    epoch: int = 0
    intended_at: datetime = _time(nullable=False)
    sent_at: datetime | None = _time()
    ended_at: datetime | None = _time()


class DecisionRow(SQLModel, table=True):
    """One answer to one question: the first wins."""

    __tablename__ = "decision"
    __table_args__ = (UniqueConstraint("incident_id", "version", name="decision_once"),)

    id: int | None = _id()
    incident_id: int = Field(sa_column=Column(RowId, nullable=False))
    version: int
    kind: str = Field(sa_type=String(16))
    by: str = Field(sa_type=String(200))
    message: str = Field(default="", sa_type=Text)
    plan_id: str = Field(default="", sa_type=String(32))
    args: JsonValue = _json()
    at: datetime = _time(nullable=False)


class LogRow(SQLModel, table=True):
    """One redacted log, compressed, under its digest."""

    __tablename__ = "log"

    digest: str = Field(sa_column=Column(String(64), primary_key=True))
    body: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    size: int
    stored_at: datetime = _time(nullable=False)


class DeliveryRow(SQLModel, table=True):
    """One accepted webhook delivery: the same id again changes nothing."""

    __tablename__ = "delivery"

    webhook_id: str = Field(sa_column=Column(String(200), primary_key=True))
    received_at: datetime = _time(nullable=False, index=True)


class SettingRow(SQLModel, table=True):
    """What the running service remembers of itself: watermark, kill switch, shadow, last contact."""

    __tablename__ = "setting"

    key: str = Field(sa_column=Column(String(300), primary_key=True))
    value: JsonValue = _json()
    updated_at: datetime = _time(nullable=False)
