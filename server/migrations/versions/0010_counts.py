"""How many incidents stand where, without reading them all"""

from __future__ import annotations

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("incident_standing", "incident", ["status", "closed_at", "outcome"])


def downgrade() -> None:
    op.drop_index("incident_standing", "incident")
