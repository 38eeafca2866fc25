"""What people are told, and the ports through which it goes out. Never in the way of healing."""

from __future__ import annotations

from typing import Protocol

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from graph.domain import DomainType, Severity


class Notice(DomainType):
    """One thing people should know. What has the same key is told once."""

    event: str  #: one of `server.people.notices.EVENTS`
    title: str
    body: str = ""
    incident_id: int | None = None
    key: str = ""
    severity: Severity = Severity.HIGH
    dag_id: str = ""
    version: int | None = None  #: of the question it tells of; told only while that one is open


class NoticePost(Protocol):
    """Takes a notice in the transaction that commits what it tells of."""

    async def post(self, connection: AsyncConnection, notice: Notice) -> bool:
        """Store it, once per key; it goes out when the transaction is committed."""


class Notifier(Protocol):
    """Is shown each notice at once, in this process; a failure to do so is its own business."""

    async def tell(self, notice: Notice) -> None: ...


class LogNotifier:
    """Writes notices to the service's log."""

    async def tell(self, notice: Notice) -> None:
        structlog.get_logger("notify").info(
            notice.event, incident_id=notice.incident_id, title=notice.title, body=notice.body
        )


class SilentNotifier:
    """Keeps notices in a list, for tests."""

    def __init__(self) -> None:
        self.told: list[Notice] = []

    async def tell(self, notice: Notice) -> None:
        self.told.append(notice)
