"""Tells people. Never before the state is committed, and never in the way of healing."""

from __future__ import annotations

from typing import Protocol

import structlog

from graph.domain import DomainType


class Notice(DomainType):
    """One thing people should know."""

    event: str  #: approval_asked, escalated, healed, expired
    incident_id: int
    title: str
    body: str = ""


class Notifier(Protocol):
    """Delivers a notice; a failure to do so is its own business."""

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
