"""Notices and the audit trail"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

import server.db.tables

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

GENESIS = "0" * 64
BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
WORDS = "the audit trail is append-only"


def _time(name: str, *, nullable: bool = True) -> sa.Column[object]:
    return sa.Column(name, server.db.tables.UtcDateTime(timezone=True), nullable=nullable)


def upgrade() -> None:
    op.create_table(
        "notice",
        sa.Column("id", BIG, autoincrement=True, nullable=False),
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("event", sa.String(length=40), nullable=False),
        sa.Column("severity", sa.String(length=16), nullable=False),
        sa.Column("incident_id", BIG, nullable=True),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("dag_id", sa.String(length=250), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        _time("created_at", nullable=False),
        _time("due_at", nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("sent_to", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("message", sa.String(length=32), nullable=True),
        sa.Column("claim", sa.String(length=200), nullable=True),
        _time("lease_until"),
        _time("sent_at"),
        sa.Column("error", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("notice_due", "notice", ["status", "due_at"], unique=False)
    op.create_table(
        "condition",
        sa.Column("name", sa.String(length=300), nullable=False),
        sa.Column("unwell", sa.Boolean(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        _time("since", nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    _audit()


def _audit() -> None:
    op.create_table(
        "audit",
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        _time("at", nullable=False),
        sa.Column("kind", sa.String(length=40), nullable=False),
        sa.Column("incident_id", BIG, nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("ix_audit_incident_id", "audit", ["incident_id"], unique=False)
    head = op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("mac", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(head, [{"id": 1, "seq": 0, "mac": GENESIS}])
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_no_{verb.lower()} BEFORE {verb} ON audit "
                f"BEGIN SELECT RAISE(ABORT, '{WORDS}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION airmedic_audit_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{WORDS}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit "
        "FOR EACH STATEMENT EXECUTE FUNCTION airmedic_audit_refuse()"
    )


def downgrade() -> None:
    for table in ("audit_head", "audit", "condition", "notice"):
        op.drop_table(table)
    if op.get_bind().dialect.name != "sqlite":
        op.execute("DROP FUNCTION IF EXISTS airmedic_audit_refuse()")
