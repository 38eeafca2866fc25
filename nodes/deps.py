"""What a node may call. It arrives in `runtime.context`; nodes read no settings and open nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from graph.domain import Connection, TaskRef
from tools.actions import ActionCatalogue
from tools.diagnosis import Diagnostician
from tools.gateway import AirflowGateway
from tools.ledger import ActionLedger
from tools.policy import Counters, Policy
from tools.probes import Probes
from tools.requested import Request


class LogArchive(Protocol):
    """Keeps a redacted log once, under its digest."""

    async def put_log(self, text: str) -> str: ...


class Records(Protocol):
    """What policy counts, and the switches that people set."""

    async def counters(self, task: TaskRef) -> Counters: ...

    async def control(self) -> Control: ...

    async def members(self, incident_id: int) -> tuple[TaskRef, ...]: ...

    async def last_good(self, dag_id: str) -> Mapping[str, Connection]: ...


class Requests(Protocol):
    """What people asked for."""

    async def of(self, incident_id: int) -> Request | None: ...


class NoRequests:
    """Nobody asks for anything."""

    async def of(self, incident_id: int) -> Request | None:
        """Nothing."""
        return None


@dataclass(frozen=True, slots=True)
class Control:
    """The switches in force at this moment."""

    paused: bool = False  #: the kill switch: nothing is written
    shadow: bool = False  #: decide and record, touch nothing


@dataclass(frozen=True, slots=True)
class Limits:
    """How long things may take."""

    watch_window: timedelta = timedelta(hours=24)  #: recurrence is watched this long at most
    approval_timeout: timedelta = timedelta(hours=12)
    outcome_timeout: timedelta = timedelta(
        hours=24
    )  #: a cleared task that has not ended by then goes to people
    probe_patience: timedelta = timedelta(hours=6)  #: a dependency that is not back by then goes to people


@dataclass(frozen=True, slots=True)
class Deps:
    """The world of one incident's run."""

    airflow: AirflowGateway
    ledger: ActionLedger
    diagnostician: Diagnostician
    catalogue: ActionCatalogue
    policy: Policy
    archive: LogArchive
    records: Records
    clock: Callable[[], datetime]
    sleep: Callable[[float], Awaitable[None]]
    limits: Limits = Limits()
    environment: str = "production"
    probes: Probes = field(default_factory=Probes)  #: which dependencies may be asked whether they are back
    requests: Requests = field(default_factory=NoRequests)
