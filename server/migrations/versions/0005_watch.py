"""Findings of the watch"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import server.db.tables

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    return sa.Column(name, server.db.tables.UtcDateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "finding",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("open_key", sa.String(length=64), nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("subject", sa.String(length=1300), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        _time("since"),
        _time("seen_at"),
        _time("until", nullable=True),
        sa.Column("numbers", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("text", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("open_key"),
    )
    op.create_index("finding_since", "finding", ["since"], unique=False)
    op.create_table(
        "suspect",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        _time("due"),
        sa.Column("paused", sa.Boolean(), nullable=False),
        _time("check_at"),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("dag_id"),
    )
    op.create_index("suspect_check", "suspect", ["check_at"], unique=False)
    op.create_table(
        "duration",
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("task_id", sa.String(length=1000), nullable=False),
        sa.Column("seconds", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        _time("updated_at"),
        sa.PrimaryKeyConstraint("dag_id", "task_id"),
    )


def downgrade() -> None:
    for table in ("duration", "suspect", "finding"):
        op.drop_table(table)
