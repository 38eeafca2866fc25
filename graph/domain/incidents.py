"""Incidents: how one was reported, where it stands, how it ended, and which failures joined it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from graph.domain.domain_type import DomainType
from graph.domain.observed import IncidentKind, TaskRef


class Door(StrEnum):
    """How a failure reached us."""

    LISTENER = "listener"  #: the plugin in Airflow
    WEBHOOK = "webhook"  #: a callback or another tool
    POLL = "poll"  #: we asked Airflow what failed


class Severity(StrEnum):
    """How much it matters."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


class Outcome(StrEnum):
    """How an incident ended. Only `healed` counts as a heal."""

    HEALED = "healed"  #: task, run and data are right again after our fix
    RECOVERED_UNVERIFIED = "recovered_unverified"  #: green after our fix; nothing is known of its data
    SELF_RECOVERED = "self_recovered"  #: Airflow's own retry, or a person, did it
    NOT_HEALED = "not_healed"  #: fixes were tried and undone, and a person closed it so
    ESCALATED = "escalated"  #: handed to a person
    EXPIRED = "expired"  #: nobody answered in time; nothing was done
    DISMISSED = "dismissed"  #: not worth acting on, or no failure at all
    JOINED = "joined"  #: of the same cause as another open incident, which has its failures now


class Status(StrEnum):
    """Where an incident stands."""

    OPEN = "open"  #: a step is due
    WATCHING = "watching"  #: Airflow still works on it by itself
    WAITING_DECISION = "waiting_decision"  #: a person is asked
    WAITING_TIMER = "waiting_timer"  #: a fix begins later
    WAITING_OUTCOME = "waiting_outcome"  #: the fix is applied, Airflow works
    ESCALATED = "escalated"  #: a person has it; the graph's run has ended
    CLOSED = "closed"


class Incident(DomainType):
    """One failure that Airmedic is responsible for."""

    id: int
    airflow: str
    task: TaskRef
    try_number: int
    opened_at: datetime
    kind: IncidentKind = IncidentKind.FAILURE
    severity: Severity = Severity.HIGH
    failed_at: datetime | None = None  #: when Airflow says the task ended


class Role(StrEnum):
    """What a signed-in person may do; each includes the one before."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether who has this role may do what `other` may."""
        order = tuple(Role)
        return order.index(self) >= order.index(other)


class Part(StrEnum):
    """What became of one failure that joined an incident of another task for its cause."""

    WAITING = "waiting"  #: for a wave
    RELEASED = "released"  #: cleared in a wave, Airflow works
    HEALED = "healed"  #: succeeded after that
    FAILED = "failed"  #: failed again after that
    LEFT = "left"  #: at work, recovered, moved by others or gone when its turn came
    ASK = "ask"  #: policy wants a person
    NEVER = "never"  #: policy forbids it
    DECLINED = "declined"  #: a person said no, or nobody answered
    GIVEN_UP = "given_up"  #: the waves did not help
    AGAIN = "again"  #: failed again of the same cause: the newer failure stands for the task instance


class MemberCounts(DomainType):
    """How many failures joined an incident for its cause, by what became of them."""

    waiting: int = 0
    released: int = 0
    healed: int = 0
    failed: int = 0
    left: int = 0
    ask: int = 0
    never: int = 0
    declined: int = 0
    given_up: int = 0
    again: int = 0
    unverified: int = 0  #: of those that are `healed`: nothing is known of their data
    dags: int = 0  #: DAGs they are of, the incident's own included
    upto: int = 0  #: the newest of them

    @property
    def total(self) -> int:
        """All task instances."""
        return sum(getattr(self, part.value) for part in Part if part is not Part.AGAIN)


class Group(DomainType):
    """Where the healing of an incident's members stands. Numbers only: the members are rows of the store."""

    members: int = 0  #: task instances beside the incident's own, as last counted
    dags: int = 0
    safe: int = 0  #: task instances, the incident's own included, whose DAGs declare them safe to run again
    upto: int = 0  #: the newest failure that was counted; a decision binds no later one
    wave: int = 0  #: waves sent
    size: int = 0  #: task instances in the last of them
    stops: int = 0  #: waves after which too many failed again, in all
    due: datetime | None = None  #: the next wave leaves at or after this
    sent_at: datetime | None = None
    approved_upto: int = 0  #: a person approved failures up to this one
    approved_by: str = ""
    approved_role: Role = Role.OPERATOR
    told: tuple[str, ...] = ()  #: why policy asked, as whoever approved was told
    asked: int = 0  #: members that a person is asked about
    reasons: tuple[str, ...] = ()  #: and why
    approvers: Role = Role.OPERATOR  #: and the least role that may approve
