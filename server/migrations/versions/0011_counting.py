"""What policy counts, found by an index however many writes there were in a day"""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("action_dag", "action", ["dag_id", "sent_at"])
    op.drop_index("action_sent", "action")
    op.create_index("action_sent", "action", ["sent_at", "name", "attempt"])


def downgrade() -> None:
    op.drop_index("action_sent", "action")
    op.create_index("action_sent", "action", ["sent_at"])
    op.drop_index("action_dag", "action")
