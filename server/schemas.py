"""What the API answers. Bodies, rows and domain are three things; these are the bodies."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from graph.domain import (
    Action,
    Decision,
    Diagnosis,
    Door,
    FixPlan,
    Outcome,
    Remediation,
    RootCause,
    Severity,
    Status,
    Step,
    TaskRef,
    Verification,
)
from server.answers import BodyType, plain
from server.record import AgentEvent, IncidentDetail, IncidentRecord


class AnswerBody(BaseModel):
    """Read from domain types by attribute; new fields may come, none goes."""

    model_config = ConfigDict(from_attributes=True)


class EventAccepted(AnswerBody):
    """A delivery was taken; it is stored already. `accepted` is false for what was known or asks nothing."""

    accepted: bool
    event: str


class PlanOut(AnswerBody):
    """The plan in hand."""

    id: str
    remediation: Remediation
    summary: str
    diff: str
    wait: float = Field(description="seconds before it begins")
    actions: list[Action]


class IncidentOut(AnswerBody):
    """One incident in a list."""

    id: int
    version: int
    status: Status
    outcome: Outcome | None
    severity: Severity
    airflow: str
    task: TaskRef
    try_number: int
    operator: str
    root_cause: RootCause | None
    summary: str = Field(description="the diagnosis in one sentence")
    reason: str
    asks: bool = Field(description="whether a person is asked")
    attempt: int
    opened_at: datetime
    updated_at: datetime
    failed_at: datetime | None
    closed_at: datetime | None
    expires_at: datetime | None = Field(description="until when the question can be answered")

    @classmethod
    def of(cls, record: IncidentRecord) -> IncidentOut:
        """The body for one record."""
        return cls.model_validate(_fields(record, cls))


def _fields(record: IncidentRecord, body: type[BaseModel]) -> dict[str, object]:
    known = {name: getattr(record, name) for name in body.model_fields if hasattr(record, name)}
    summary = record.diagnosis.summary if record.diagnosis is not None else ""
    return {**known, "summary": summary, "asks": record.status is Status.WAITING_DECISION}


class IncidentPage(AnswerBody):
    """Incidents, newest first. Ask again with `cursor=<next>`; null at the end."""

    items: list[IncidentOut]
    next: str | None


class OccurrenceOut(AnswerBody):
    """One failure as it came in."""

    id: int
    door: Door
    task: TaskRef
    try_number: int
    received_at: datetime
    status: str
    reason: str
    error: str


class LedgerOut(AnswerBody):
    """One write to Airflow."""

    attempt: int
    position: int
    key: str
    step: Step
    action: Action
    before: JsonValue
    after: JsonValue
    error: str
    at: datetime | None


class AgentEventOut(AnswerBody):
    """One line of the agent log."""

    id: int
    incident_id: int | None
    at: datetime
    node: str
    name: str
    level: str
    data: JsonValue

    @classmethod
    def of(cls, event: AgentEvent) -> AgentEventOut:
        """The body for one event."""
        return cls.model_validate(event)


class IncidentDetailOut(IncidentOut):
    """Everything known of one incident."""

    wake_at: datetime | None
    log: str | None = Field(description="digest of the stored log; read it at .../log")
    diagnosis: Diagnosis | None
    plan: PlanOut | None
    decision: Decision | None = Field(description="policy's word on the plan")
    checklist: list[str]
    verification: Verification | None
    question: dict[str, JsonValue] | None = Field(
        description="what a person is asked, in LangChain's human-in-the-loop form"
    )
    answer: dict[str, JsonValue] | None = Field(description="given and not yet taken up")
    occurrences: list[OccurrenceOut]
    ledger: list[LedgerOut]
    events: list[AgentEventOut]

    @classmethod
    def of_detail(cls, detail: IncidentDetail) -> IncidentDetailOut:
        """The body for one incident with all that hangs on it."""
        record = detail.incident
        known = _fields(record, cls)
        return cls.model_validate(
            {
                **known,
                "plan": None if record.plan is None else plan_out(record.plan),
                "occurrences": detail.occurrences,
                "ledger": detail.ledger,
                "events": detail.events,
            }
        )


def plan_out(plan: FixPlan) -> PlanOut:
    """A plan with what is computed from it."""
    return PlanOut.model_validate(plan)


class LogPage(AnswerBody):
    """The agent log in order. Go on with `after=<next>`."""

    items: list[AgentEventOut]
    next: int


class CloseIn(BodyType):
    """Why a person closes an escalated incident."""

    reason: Annotated[str, Field(max_length=2000), AfterValidator(plain)] = ""


class AirflowOut(AnswerBody):
    """Airflow as it answered last; null means not deployed or not told."""

    ok: bool
    detail: str
    asked_at: datetime
    version: str | None = None
    metadatabase: bool | None = None
    scheduler: bool | None = None
    triggerer: bool | None = None
    dag_processor: bool | None = None


class StatusOut(AnswerBody):
    """How things stand."""

    airflow_id: str
    environment: str
    healing: str = Field(description="shadow: decides and records, touches nothing")
    paused: bool = False  #: the kill switch is on: nothing is written
    policy: str = Field(description="digest of the policy in force")
    airflow: AirflowOut
    incidents: dict[Status, int] = Field(description="how many stand where")
    outcomes: dict[Outcome, int] = Field(description="how many ended how; only healed is a heal")
    open: int
    waiting_decision: int
    seen: dict[Door, datetime | None] = Field(description="last delivery by door")
    polled_until: datetime | None


class PartOut(AnswerBody):
    """One part the service needs."""

    name: str
    ok: bool
    detail: str


class ReadyOut(AnswerBody):
    """Whether the service can do its work."""

    ready: bool
    parts: list[PartOut]


class AliveOut(AnswerBody):
    """The process is alive."""

    status: str = "alive"


class ControlIn(BodyType):
    """The switches to set; what is not named stays as it is."""

    paused: bool | None = None  #: the kill switch: nothing is written to Airflow
    shadow: bool | None = None  #: decide and record, touch nothing


class ControlOut(AnswerBody):
    """The switches in force."""

    paused: bool
    shadow: bool
    by: str | None = None  #: who set them last; None while the settings alone decide
