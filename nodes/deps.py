"""What a node may call. It arrives in `runtime.context`; nodes read no settings and open nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from graph.domain import Connection, MemberCounts, Part, RootCause, TaskRef
from tools.actions import ActionCatalogue
from tools.airflow_around import Around
from tools.diagnosis import Case, Diagnostician
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

    async def causes(self, task: TaskRef, runs: Sequence[str]) -> Mapping[str, frozenset[RootCause | None]]:
        """What the task's failures in these runs were found to be caused by; None where nobody knows yet."""


class Requests(Protocol):
    """What people asked for."""

    async def of(self, incident_id: int) -> Request | None: ...


class NoRequests:
    """Nobody asks for anything."""

    async def of(self, incident_id: int) -> Request | None:
        """Nothing."""
        return None


REFUSED = "refused once"  # how the reason of a member begins that has one more chance
UNVERIFIED = "it is green, and nothing is known of its data"  # why one that recovered is no more than that


class Fate(StrEnum):
    """Why a member that was cleared failed again."""

    SAME = "same"  #: of the cause that it joined for
    OTHER = "other"  #: of another one: an incident of its own has it
    UNKNOWN = "unknown"  #: nobody has looked yet


@dataclass(frozen=True, slots=True)
class Member:
    """A failure that joined the incident for its cause."""

    id: int  #: of the occurrence
    task: TaskRef
    try_number: int
    refused: bool = False  #: its clear came to nothing once


@dataclass(frozen=True, slots=True)
class Joined:
    """The incident that the driven one has joined, with all its failures."""

    incident_id: int
    resource: str


class Members(Protocol):
    """The driven incident among others of the same cause, and the failures that joined it.

    `mark` and `move` are written with the drive's next flush, under its lease.
    """

    async def join(self, case: Case) -> Joined | None:
        """Stand for the causes that knowledge reads in the log; or join who stands for one, committed."""

    async def let_go(self, why: str, *, node: str) -> int:
        """Stand for no cause any more: what waits or was released is new again; how many, committed."""

    async def part(self, case: Case) -> int:
        """Let the others go when the log surely names another cause than theirs; how many."""

    async def correlates(self) -> bool:
        """Whether others may join this incident."""

    async def counts(self, *, dags: bool = False) -> MemberCounts: ...

    async def tasks(self, part: Part | None = None) -> dict[tuple[str, str], int]:
        """How many failures of each (DAG, task)."""

    async def page(self, part: Part, *, after: int = 0, limit: int) -> tuple[Member, ...]: ...

    async def in_dag(self, dag_id: str, *, limit: int) -> tuple[Member, ...]:
        """Members of one DAG that wait, run by run."""

    async def fates(self, wave: int) -> dict[Fate, tuple[int, ...]]:
        """Those of this wave and the one before it that failed again, by why."""

    def mark(self, ids: Sequence[int], part: Part, *, wave: int | None = None, reason: str = "") -> None: ...

    def move(self, old: Part, new: Part, *, upto: int, reason: str = "") -> None: ...

    def supersede(self) -> None:
        """A task instance that failed more than once counts once, by its newest failure; as `move`."""

    async def flush(self) -> None: ...


class NoMembers:
    """Nothing correlates."""

    async def join(self, case: Case) -> Joined | None:
        """Nobody."""
        return None

    async def let_go(self, why: str, *, node: str) -> int:
        """There is nobody."""
        return 0

    async def part(self, case: Case) -> int:
        """There is nobody."""
        return 0

    async def correlates(self) -> bool:
        """It stands for itself."""
        return False

    async def counts(self, *, dags: bool = False) -> MemberCounts:
        """None."""
        return MemberCounts(dags=1)

    async def tasks(self, part: Part | None = None) -> dict[tuple[str, str], int]:
        """None."""
        return {}

    async def page(self, part: Part, *, after: int = 0, limit: int) -> tuple[Member, ...]:
        """None."""
        return ()

    async def in_dag(self, dag_id: str, *, limit: int) -> tuple[Member, ...]:
        """None."""
        return ()

    async def fates(self, wave: int) -> dict[Fate, tuple[int, ...]]:
        """None."""
        return dict.fromkeys(Fate, ())

    def mark(self, ids: Sequence[int], part: Part, *, wave: int | None = None, reason: str = "") -> None:
        """There is nobody."""

    def move(self, old: Part, new: Part, *, upto: int, reason: str = "") -> None:
        """There is nobody."""

    def supersede(self) -> None:
        """There is nobody."""

    async def flush(self) -> None:
        """Nothing to write."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How the members of an incident are released."""

    first: int = 10  #: task instances in the first wave; each wave is twice the one before
    largest: int = 500  #: task instances in one wave
    per_minute: int = 600  #: task instances; the next wave waits for that
    gather: timedelta = timedelta(seconds=10)  #: without a new one, before people are asked about them
    gather_most: timedelta = timedelta(seconds=60)
    pause: timedelta = timedelta(seconds=60)  #: after a wave that failed again; doubles
    stops: int = 3  #: waves that may fail again before a person has the rest


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
    members: Members = field(default_factory=NoMembers)
    pace: Pace = field(default_factory=Pace)
    around: Around | None = None  #: tells what else failed and how the pools are; None asks `airflow`
