"""Access tokens, and the answers kept under idempotency keys."""

from __future__ import annotations

from datetime import datetime

from pydantic import JsonValue
from sqlalchemy import JSON, LargeBinary, String
from sqlmodel import Column, Field, SQLModel

from server.db.tables import RowId, UtcDateTime


class TokenRow(SQLModel, table=True):
    """One access token: never itself, only its digest."""

    __tablename__ = "token"

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True, autoincrement=True))
    name: str = Field(sa_type=String(100))
    # The name while the token is not revoked: it can be given to a new one after that.
    held_name: str | None = Field(default=None, sa_column=Column(String(100), unique=True, nullable=True))
    role: str = Field(sa_type=String(16))
    digest: str = Field(sa_column=Column(String(64), unique=True, nullable=False))
    prefix: str = Field(sa_type=String(16))
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    expires_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime, nullable=True))
    revoked_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime, nullable=True))
    last_used_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime, nullable=True))


class KeptAnswerRow(SQLModel, table=True):
    """The answer to one write, for whoever sends it again under the same idempotency key."""

    __tablename__ = "kept_answer"

    key: str = Field(sa_column=Column(String(64), primary_key=True))  #: digest of caller and key
    request: str = Field(sa_type=String(64))  #: digest of what was asked
    begun_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False, index=True))
    status: int | None = None  #: None while the first one is at work
    headers: JsonValue = Field(default=None, sa_column=Column(JSON(none_as_null=True), nullable=True))
    body: bytes | None = Field(default=None, sa_column=Column(LargeBinary, nullable=True))
