"""Opens the audit trail for commands; to read it, nothing is migrated and nothing is written."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr
from pydantic_settings import BaseSettings
from sqlalchemy import inspect
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from graph.errors import SettingsInvalid, StoreUnavailable
from server.audit.chain import AuditHead, AuditKeys
from server.audit.trail import AuditTrail
from server.db.checkup import sqlite_file
from server.db.database import engine_url, store_errors
from server.db.tables_people import AuditRow
from server.settings import Settings

HEAD = re.compile(r"(?<![0-9])[0-9]{1,18}:[0-9a-f]{64}(?![0-9a-f])")


class AuditSettings(BaseSettings):
    """What reading the trail needs; an auditor need not have Airflow's credentials."""

    model_config = Settings.model_config

    database_url: str = "sqlite:///airmedic.db"
    audit_key: SecretStr | None = None


@asynccontextmanager
async def open_trail(settings: AuditSettings | Settings | None = None) -> AsyncIterator[AuditTrail]:
    """The trail of the configured database. Raises `StoreUnavailable`, `SettingsInvalid`."""
    chosen = settings or AuditSettings()
    file = sqlite_file(chosen.database_url)
    if file is not None and not file.exists():
        raise StoreUnavailable(f"AIRMEDIC_DATABASE_URL names {file}, which does not exist")
    keys = AuditKeys.parse(chosen.audit_key.get_secret_value() if chosen.audit_key is not None else None)
    engine = create_async_engine(engine_url(chosen.database_url))
    try:
        with store_errors("opening the audit trail"):
            async with engine.connect() as connection:
                tables = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
        if AuditRow.__tablename__ not in tables:
            raise StoreUnavailable(
                "this database has no audit trail yet: the first `airmedic serve` makes it"
            )
        yield AuditTrail(engine, keys=keys, clock=lambda: datetime.now(UTC))
    finally:
        await engine.dispose()


async def checked_trail(engine: AsyncEngine) -> AuditTrail:
    """A trail to append to, from a command. Raises `SettingsInvalid` when its key is not at hand."""
    key = AuditSettings().audit_key
    keys = AuditKeys.parse(key.get_secret_value() if key is not None else None)
    trail = AuditTrail(engine, keys=keys, clock=lambda: datetime.now(UTC))
    await trail.check_key()
    return trail


def heads_in(file: Path) -> list[AuditHead]:
    """The heads that stand in a log or a saved message, each once. Raises `SettingsInvalid`."""
    try:
        text = file.read_text("utf-8", errors="replace")
    except OSError as exc:
        raise SettingsInvalid(f"{file} cannot be read: {exc.strerror}") from exc
    found = [AuditHead.parse(one) for one in dict.fromkeys(HEAD.findall(text))]
    if not found:
        raise SettingsInvalid(f"{file} holds no head of an audit trail")
    return found
