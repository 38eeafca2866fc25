"""Correlation and work queue"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from server.db.tables import RowId, UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


# Postgres tells the other processes when something is due, in the transaction that makes it so.
POSTGRES_UP = (
    """
    CREATE FUNCTION airmedic_ring() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_notify('airmedic', TG_TABLE_NAME); RETURN NULL; END $$
    """,
    """
    CREATE TRIGGER occurrence_ring AFTER INSERT ON occurrence
    FOR EACH STATEMENT EXECUTE FUNCTION airmedic_ring()
    """,
    """
    CREATE TRIGGER incident_ring AFTER INSERT OR UPDATE OF wake_at, lease_owner ON incident
    FOR EACH ROW WHEN (NEW.wake_at <= now() AND NEW.lease_owner IS NULL) EXECUTE FUNCTION airmedic_ring()
    """,
)
POSTGRES_DOWN = (
    "DROP TRIGGER incident_ring ON incident",
    "DROP TRIGGER occurrence_ring ON occurrence",
    "DROP FUNCTION airmedic_ring()",
)


def upgrade() -> None:
    op.create_table(
        "checkpoint",
        sa.Column("incident_id", RowId, primary_key=True, autoincrement=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "worker",
        sa.Column("owner", sa.String(100), primary_key=True),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "duty",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("until", UtcDateTime(), nullable=False),
    )
    if op.get_bind().dialect.name == "postgresql":
        for statement in POSTGRES_UP:
            op.execute(statement)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        for statement in POSTGRES_DOWN:
            op.execute(statement)
    for name in ("duty", "worker", "checkpoint"):
        op.drop_table(name)
