"""Feedback search and cost"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import server.db.tables
from server.db.search_index import POSTGRES_DOWN, POSTGRES_UP, SQLITE_DOWN, SQLITE_UP

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("incident_id", ROW_ID, nullable=False),
        sa.Column("at", server.db.tables.UtcDateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(length=200), nullable=False),
        sa.Column("rating", sa.Integer(), nullable=False),
        sa.Column("cause_right", sa.Boolean(), nullable=True),
        sa.Column("cause", sa.String(length=40), nullable=True),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_feedback_incident_id", "feedback", ["incident_id"])
    op.create_index("event_named", "event", ["name", "at", "incident_id"])
    op.create_index("incident_outcome", "incident", ["outcome"])
    op.create_index("incident_updated", "incident", ["updated_at", "id"])
    for statement in SQLITE_UP if _is_sqlite() else POSTGRES_UP:
        op.execute(statement)


def downgrade() -> None:
    for statement in SQLITE_DOWN if _is_sqlite() else POSTGRES_DOWN:
        op.execute(statement)
    op.drop_index("incident_updated", "incident")
    op.drop_index("incident_outcome", "incident")
    op.drop_index("event_named", "event")
    op.drop_index("ix_feedback_incident_id", "feedback")
    op.drop_table("feedback")


def _is_sqlite() -> bool:
    return op.get_bind().dialect.name == "sqlite"
