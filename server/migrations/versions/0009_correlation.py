"""Failures of one cause in one incident"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from server.db.tables import RowId, UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("occurrence", sa.Column("part", sa.String(16), nullable=False, server_default=""))
    op.add_column("occurrence", sa.Column("wave", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("occurrence_part", "occurrence", ["incident_id", "part", "id"])
    op.create_table(
        "cause",
        sa.Column("key", sa.String(16), primary_key=True),
        sa.Column("incident_id", RowId, nullable=False),
        sa.Column("resource", sa.String(300), nullable=False),
        sa.Column("family", sa.String(16), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
    )
    op.create_index("ix_cause_incident_id", "cause", ["incident_id"])


def downgrade() -> None:
    op.drop_table("cause")
    op.drop_index("occurrence_part", "occurrence")
    op.drop_column("occurrence", "wave")
    op.drop_column("occurrence", "part")
