"""Requests of people and threads of the chat"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import server.db.tables

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, server.db.tables.UtcDateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "request",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("incident_id", BIG, nullable=False),
        sa.Column("wish", sa.String(length=16), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        _time("at"),
        _time("until", nullable=True),
        sa.Column("confirm", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_request_incident_id", "request", ["incident_id"], unique=False)
    op.create_table(
        "chat_thread",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("thread", sa.String(length=64), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("owner", "thread", name="chat_thread_once"),
    )
    op.create_index("chat_thread_newest", "chat_thread", ["owner", "updated_at"], unique=False)


def downgrade() -> None:
    op.drop_table("chat_thread")
    op.drop_table("request")
