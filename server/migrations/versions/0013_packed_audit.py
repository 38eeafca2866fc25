"""On SQLite the bodies of the audit trail are packed from here on; those of before stay as they are"""

from __future__ import annotations

import zlib

import sqlalchemy as sa
from alembic import op

from server.db.packed import unpack

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

PACKED = sa.text(
    "SELECT seq, body FROM audit WHERE seq > :after AND typeof(body) = 'blob' ORDER BY seq LIMIT 1000"
)
GUARD = "audit_no_update"


def upgrade() -> None:
    pass


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _unpack_bodies()


def _unpack_bodies() -> None:
    """As a program of before reads them. The text is what the macs cover, so the chain stays whole."""
    bind, after = op.get_bind(), 0
    kept = sa.text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = :name")
    guard = bind.execute(kept, {"name": GUARD}).scalar_one_or_none()
    if guard is not None:
        op.execute(f"DROP TRIGGER {GUARD}")
    while rows := bind.execute(PACKED, {"after": after}).all():
        texts = [{"seq": seq, "body": text} for seq, body in rows if (text := _text_of(body)) is not None]
        if texts:
            bind.execute(sa.text("UPDATE audit SET body = :body WHERE seq = :seq"), texts)
        after = rows[-1][0]
    if guard is not None:
        op.execute(guard)


def _text_of(body: bytes) -> str | None:
    """None for what was tampered with: it stays as it is, and the program of before finds it, too."""
    try:
        return unpack(body)
    except (ValueError, zlib.error):
        return None
