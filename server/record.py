"""What the store gives back: an incident with everything known of it, its agent log, an occurrence."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, NamedTuple

from pydantic import JsonValue

from graph.domain import (
    AnswerKind,
    Decision,
    Diagnosis,
    DomainType,
    Door,
    FixPlan,
    Incident,
    IncidentKind,
    LedgerEntry,
    MemberCounts,
    Outcome,
    Part,
    RootCause,
    Severity,
    Status,
    TaskRef,
    Verification,
)
from server.feedback import Feedback


class IncidentRecord(DomainType):
    """One incident as stored."""

    id: int
    kind: IncidentKind
    airflow: str
    task: TaskRef
    try_number: int
    operator: str
    severity: Severity
    status: Status
    outcome: Outcome | None
    reason: str
    root_cause: RootCause | None
    version: int
    attempt: int
    opened_at: datetime
    updated_at: datetime
    failed_at: datetime | None
    closed_at: datetime | None
    wake_at: datetime | None
    expires_at: datetime | None
    failures: int
    log: str | None
    diagnosis: Diagnosis | None
    plan: FixPlan | None
    decision: Decision | None
    checklist: tuple[str, ...]
    verification: Verification | None
    question: JsonValue
    answer: JsonValue

    def to_domain(self) -> Incident:
        """The part of it that travels in the graph's state."""
        return Incident(
            id=self.id,
            airflow=self.airflow,
            task=self.task,
            try_number=self.try_number,
            opened_at=self.opened_at,
            kind=self.kind,
            severity=self.severity,
            failed_at=self.failed_at,
        )


class IncidentLine(DomainType):
    """One incident in a list: what is shown there, and no more is read."""

    id: int
    version: int
    status: Status
    outcome: Outcome | None
    severity: Severity
    kind: IncidentKind
    airflow: str
    task: TaskRef
    try_number: int
    operator: str
    root_cause: RootCause | None
    summary: str
    reason: str
    attempt: int
    opened_at: datetime
    updated_at: datetime
    failed_at: datetime | None
    closed_at: datetime | None
    expires_at: datetime | None


class Occurrence(DomainType):
    """One failure as it came in."""

    id: int
    kind: IncidentKind = IncidentKind.FAILURE
    airflow: str
    task: TaskRef
    try_number: int
    door: Door
    received_at: datetime
    checks: int = 0
    status: str = "new"
    reason: str = ""
    error: str = ""
    incident_id: int | None = None
    part: Part | Literal[""] = ""  #: what became of it, when it joined for its cause


class Leader(NamedTuple):
    """An open incident that stands for a cause, and the task instance that it leads with."""

    incident_id: int
    task: TaskRef


class AgentEvent(DomainType):
    """One line of the agent log."""

    id: int
    incident_id: int | None
    at: datetime
    node: str
    name: str
    level: str
    data: JsonValue


class LogQuery(DomainType):
    """Which lines of the agent log, and in which order."""

    incident_id: int | None = None
    node: str | None = None
    level: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    newest: bool = False  #: newest first


class AnswerGiven(DomainType):
    """One answer to one question, as it was given."""

    version: int
    kind: AnswerKind
    by: str
    message: str
    plan_id: str
    args: JsonValue
    at: datetime


class IncidentDetail(DomainType):
    """An incident with its occurrences, its writes, its agent log, and what people decided and said."""

    incident: IncidentRecord
    occurrences: tuple[Occurrence, ...]  #: the first of them
    occurrence_count: int = 0  #: all of them
    members: MemberCounts = MemberCounts()
    ledger: tuple[LedgerEntry, ...]
    events: tuple[AgentEvent, ...]
    answers: tuple[AnswerGiven, ...] = ()
    feedback: tuple[Feedback, ...] = ()


class Lease(DomainType):
    """The right to drive one incident, until somebody else takes it over."""

    incident_id: int
    epoch: int
    owner: str
    since: datetime  #: a wake-up later than this came while we were driving
