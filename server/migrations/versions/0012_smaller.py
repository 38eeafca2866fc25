"""One index of the agent log's times instead of two; its long lines are packed on SQLite from here on"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from server.db.packed import unpack

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

PACKED = sa.text(
    "SELECT id, data FROM event WHERE id > :after AND typeof(data) = 'blob' ORDER BY id LIMIT 1000"
)


def upgrade() -> None:
    op.create_index("event_time", "event", ["at", "name", "incident_id"])
    op.drop_index("event_named", "event")
    op.drop_index("ix_event_at", "event")
    op.drop_index("ix_occurrence_incident_id", "occurrence")  # `occurrence_part` begins with the same column


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _unpack_lines()
    op.create_index("ix_occurrence_incident_id", "occurrence", ["incident_id"])
    op.create_index("ix_event_at", "event", ["at"])
    op.create_index("event_named", "event", ["name", "at", "incident_id"])
    op.drop_index("event_time", "event")


def _unpack_lines() -> None:
    """As a program of before reads them."""
    bind, after = op.get_bind(), 0
    while rows := bind.execute(PACKED, {"after": after}).all():
        texts = [{"id": number, "data": unpack(data)} for number, data in rows]
        bind.execute(sa.text("UPDATE event SET data = :data WHERE id = :id"), texts)
        after = rows[-1][0]
