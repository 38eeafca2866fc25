"""Indexes for retention"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("incident_closed", "incident", ["closed_at"])
    op.create_index("log_stored", "log", ["stored_at"])


def downgrade() -> None:
    op.drop_index("log_stored", "log")
    op.drop_index("incident_closed", "incident")
