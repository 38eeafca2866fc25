"""One message's world: who asks, in which zone, what the thread is about, and what the service offers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from server.access.callers import Caller
from server.observe.pulse import Pulse
from server.overview import Overview
from server.service import Service


@dataclass(frozen=True)
class Desk:
    """Everything a message is answered from. `focus` and `shown` are the thread's memory."""

    service: Service
    pulse: Pulse
    overview: Overview
    caller: Caller
    zone: ZoneInfo
    message: str
    focus: int | None  #: the incident that "it" means
    shown: dict[int, int]  #: the version of each incident whose question was put to the person
    emit: Callable[[str, dict[str, object]], None]
    patience: float = 8.0  #: seconds to wait for an incident's plan

    @property
    def now(self) -> datetime:
        """By the service's clock."""
        return self.service.clock()
