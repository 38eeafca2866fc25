"""Puts together what tells people and what keeps the audit trail, and runs it beside the driver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import Severity, Status
from graph.errors import StoreUnavailable
from server.audit.chain import AuditKeys
from server.audit.trail import AuditTrail
from server.db.database import store_errors
from server.db.rows import incident_of
from server.db.tables import EventRow, IncidentRow
from server.people.apprise_door import AppriseDoor, Door
from server.people.conditions import IN_A_ROW, Conditions
from server.people.looks import Looks
from server.people.notices import of_condition, of_expiry
from server.people.notify_file import Routing, load_routing
from server.people.outbox import Outbox
from server.record import IncidentRecord
from server.settings import Settings
from tools.gateway import AirflowGateway

log = structlog.get_logger("people")

DELIVER_EVERY = 1.0  # seconds; one look into our own table when nothing waits
LOOK_EVERY = 15.0  # seconds between two rounds of looks
HEAD_EVERY = timedelta(minutes=10)  # between two log lines with the audit trail's head
LONGEST_WARNING = timedelta(minutes=30)


def audit_keys(settings: Settings) -> AuditKeys:
    """The keys of the audit trail. Raises `SettingsInvalid`."""
    key = settings.audit_key
    return AuditKeys.parse(key.get_secret_value() if key is not None else None)


def routing_of(settings: Settings) -> Routing | None:
    """Who is told what; None when nobody is. Raises `SettingsInvalid`."""
    urls = settings.notify_urls.get_secret_value() if settings.notify_urls is not None else None
    return load_routing(urls, settings.notify, digest=settings.notify_digest)


def public_url(settings: Settings) -> str:
    """Where people reach us: what the settings say, else this machine."""
    if settings.public_url is not None:
        return str(settings.public_url).rstrip("/")
    return f"http://{settings.host}:{settings.port}"


def warning_of(settings: Settings) -> timedelta:
    """How long before its end an open question is told of again."""
    return settings.approval_warning or min(settings.approval_timeout / 4, LONGEST_WARNING)


def make_outbox(
    settings: Settings,
    engine: AsyncEngine,
    *,
    airflow: AirflowGateway,
    clock: Callable[[], datetime],
    owner: str,
    audit: AuditTrail,
    door: Door | None = None,
) -> Outbox:
    """The outbox these settings ask for. Raises `SettingsInvalid` for a URL that Apprise does not know."""
    routing = routing_of(settings)
    if routing is not None and door is None:
        door = AppriseDoor(routing.urls)
    return Outbox(
        engine,
        routing=routing,
        door=door,
        airflow=airflow,
        clock=clock,
        link=public_url(settings),
        owner=owner,
        audit=audit,
    )


@dataclass
class People:
    """The round that runs beside the driver: warnings before an expiry, looks, the audit trail's head."""

    engine: AsyncEngine
    outbox: Outbox
    conditions: Conditions
    looks: Looks
    audit: AuditTrail
    clock: Callable[[], datetime]
    warning: timedelta
    _database_down: int = 0
    _head_logged: datetime | None = field(default=None, repr=False)

    async def round(self) -> None:
        """One round. Whatever the database says, the next one comes."""
        try:
            await self.warn_expiring()
            async for seen in self.looks.all():
                if await self.conditions.report(seen):
                    log.warning("condition_changed", what=seen.name, unwell=seen.unwell, detail=seen.detail)
            await self._log_head()
        except StoreUnavailable as exc:
            await self._database(down=str(exc))
            raise
        await self._database(down="")

    async def warn_expiring(self) -> int:
        """Say once of each question whose time is nearly over that it is."""
        now = self.clock()
        query = select(IncidentRow).where(
            col(IncidentRow.status) == Status.WAITING_DECISION.value,
            col(IncidentRow.expires_at) > now,
            col(IncidentRow.expires_at) <= now + self.warning,
        )
        with store_errors("looking for questions that expire"):
            async with self.engine.connect() as connection:
                rows = (await connection.execute(query)).mappings().all()
        warned = 0
        for row in rows:
            warned += await self._warn(incident_of(IncidentRow(**row)), now)
        return warned

    async def _warn(self, record: IncidentRecord, now: datetime) -> bool:
        assert record.expires_at is not None
        left = record.expires_at - now
        data = {"until": record.expires_at.isoformat(), "minutes_left": round(left.total_seconds() / 60, 1)}
        with store_errors("warning of an expiry"):
            async with self.engine.begin() as connection:
                if not await self.outbox.post(connection, of_expiry(record, left=left)):
                    return False
                line = {"name": "expiring", "node": "human", "level": "warning", "data": data, "at": now}
                await connection.execute(insert(EventRow).values(incident_id=record.id, **line))
        log.warning("expiring", incident_id=record.id, **data)
        return True

    async def _log_head(self) -> None:
        """The head goes into the log, where a cut tail of the trail shows against it."""
        now = self.clock()
        if self._head_logged is not None and now - self._head_logged < HEAD_EVERY:
            return
        head = await self.audit.head()
        if head is not None:
            log.info("audit_head", head=str(head))
        self._head_logged = now

    async def _database(self, *, down: str) -> None:
        """Without a database there is no outbox, so this one goes out directly, once per process."""
        before = self._database_down
        self._database_down = before + 1 if down else 0
        name = "Airmedic's database"
        if self._database_down == IN_A_ROW:
            told = of_condition(name, "unwell", number=0, detail=down, severity=Severity.CRITICAL)
        elif not down and before >= IN_A_ROW:
            told = of_condition(name, "well_again", number=0, detail="it answers", severity=Severity.CRITICAL)
        else:
            return
        await self.outbox.tell_at_once(told)
