"""What the API answers. Bodies, rows and domain are three things; these are the bodies."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from graph.domain import (
    Action,
    AnswerKind,
    Decision,
    Diagnosis,
    Door,
    FixPlan,
    MemberCounts,
    ModelCost,
    Outcome,
    Remediation,
    RootCause,
    Severity,
    Status,
    Step,
    TaskRef,
    Verdict,
    Verification,
)
from server.answers import BodyType, plain
from server.record import AgentEvent, IncidentDetail, IncidentLine, IncidentRecord


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
    def of(cls, record: IncidentRecord | IncidentLine) -> IncidentOut:
        """The body for one record, or for a line of a list."""
        return cls.model_validate(_fields(record, cls))


def _fields(record: IncidentRecord | IncidentLine, body: type[BaseModel]) -> dict[str, object]:
    known = {name: getattr(record, name) for name in body.model_fields if hasattr(record, name)}
    if isinstance(record, IncidentLine):
        summary = record.summary
    else:
        summary = record.diagnosis.summary if record.diagnosis is not None else ""
    return {**known, "summary": summary, "asks": record.status is Status.WAITING_DECISION}


class IncidentPage(AnswerBody):
    """A page of incidents. Ask again with `cursor=<next>`; null at the end. A page may be short and go on."""

    items: list[IncidentOut]
    next: str | None
    count: int | None = Field(None, description="with `count=true`: how many match, counted up to 1000")
    more: bool = Field(False, description="there are more than `count`")


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
    part: str = Field("", description="what became of it, when it joined an incident of another task")


class GroupOut(AnswerBody):
    """Everything that failed of the incident's cause: its own task instance, and those that joined."""

    task_instances: int = Field(description="all of them")
    dags: int
    waiting: int = Field(description="for a wave")
    released: int = Field(description="cleared, Airflow works on them")
    healed: int
    failed: int = Field(description="failed again")
    left: int = Field(description="recovered, moved or gone without our doing")
    ask: int = Field(description="policy wants a person")
    never: int = Field(description="policy forbids it")
    declined: int
    given_up: int

    @classmethod
    def of(cls, counts: MemberCounts) -> GroupOut | None:
        """The body for an incident; None when nobody joined it."""
        if not counts.total:
            return None
        known = counts.model_dump(include=set(cls.model_fields))
        return cls(**known, task_instances=counts.total + 1)


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


class PlanSeen(AnswerBody):
    """One plan that was considered, and policy's word on it."""

    at: datetime
    plan_id: str
    summary: str
    diff: str
    verdict: Verdict
    rule: str
    reasons: list[str]
    policy: str
    shadow: bool


class AnswerOut(AnswerBody):
    """One answer to one question."""

    version: int
    kind: AnswerKind
    by: str
    message: str
    plan_id: str
    args: JsonValue
    at: datetime


class FeedbackOut(AnswerBody):
    """What one person said of one incident."""

    id: int
    incident_id: int
    at: datetime
    by: str
    rating: int
    cause_right: bool | None
    cause: RootCause | None
    comment: str


class CostOut(AnswerBody):
    """What asking the language model about this incident cost, all times together."""

    asked: int
    calls: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(description="null when no price is known")
    seconds: float


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
    occurrences: list[OccurrenceOut] = Field(description="the first 200, oldest first")
    occurrence_count: int = Field(0, description="all of them")
    group: GroupOut | None = Field(None, description="null when no other task failed of the same cause")
    ledger: list[LedgerOut] = Field(description="the writes of its plans, and the newest 20 of its waves")
    events: list[AgentEventOut]
    plans: list[PlanSeen] = Field(
        default_factory=list, description="every plan that was considered, oldest first"
    )
    answers: list[AnswerOut] = Field(default_factory=list, description="what people decided")
    feedback: list[FeedbackOut] = Field(default_factory=list)
    cost: CostOut | None = None

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
                "occurrence_count": detail.occurrence_count,
                "group": GroupOut.of(detail.members),
                "ledger": detail.ledger,
                "events": detail.events,
                "plans": plans_of(detail.events),
                "answers": detail.answers,
                "feedback": detail.feedback,
                "cost": cost_of(detail.events),
            }
        )


def plans_of(events: Sequence[AgentEvent]) -> list[PlanSeen]:
    """The plans that the agent log tells of."""
    told = [(one.at, one.data) for one in events if one.name == "decided" and isinstance(one.data, dict)]
    return [
        PlanSeen.model_validate({**data, "at": at, "summary": data["plan"]})
        for at, data in told
        if "verdict" in data and "plan" in data
    ]


def cost_of(events: Sequence[AgentEvent]) -> CostOut:
    """What the diagnoses in the agent log cost together."""
    told = [one.data.get("model") for one in events if one.name == "diagnosed" and isinstance(one.data, dict)]
    asked = [ModelCost.model_validate(one) for one in told if isinstance(one, dict)]
    prices = [one.cost_usd for one in asked if one.cost_usd is not None]
    return CostOut(
        asked=len(asked),
        calls=sum(one.calls for one in asked),
        input_tokens=sum(one.input_tokens for one in asked),
        output_tokens=sum(one.output_tokens for one in asked),
        cost_usd=sum(prices) if prices else None,
        seconds=sum(one.seconds for one in asked),
    )


def plan_out(plan: FixPlan) -> PlanOut:
    """A plan with what is computed from it."""
    return PlanOut.model_validate(plan)


class LogPage(AnswerBody):
    """A page of the agent log. Go on with `cursor=<next>`; a page may be short and go on.

    In the order of time `next` always leads on: what comes later is found there. Newest first, it is 0 at
    the end.
    """

    items: list[AgentEventOut]
    next: int


class CloseIn(BodyType):
    """Why a person closes an escalated incident, or gives it back."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the source's owner mended it"}]})

    reason: Annotated[str, Field(max_length=2000), AfterValidator(plain)] = ""


class FeedbackIn(BodyType):
    """A person's word on an incident. The newest word of each person counts."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"incident": 12, "rating": 5, "cause_right": True},
                {
                    "incident": 12,
                    "rating": 2,
                    "cause_right": False,
                    "cause": "rate_limited",
                    "comment": "the API counts calls per day, its 500 only looks like an outage",
                },
            ]
        }
    )

    incident: Annotated[int, Field(ge=1, le=2**63 - 1, strict=True)]
    rating: Annotated[int, Field(ge=1, le=5, strict=True, description="1: useless, 5: just right")]
    cause_right: bool | None = Field(None, description="whether the cause that was named is the real one")
    cause: RootCause | None = Field(None, description="what it was instead; with `cause_right: false` only")
    comment: Annotated[str, Field(max_length=2000), AfterValidator(plain)] = ""

    @model_validator(mode="after")
    def _cause_fits(self) -> FeedbackIn:
        if self.cause is not None and self.cause_right is not False:
            raise ValueError("cause: it belongs to cause_right: false")
        return self


class PartOut(AnswerBody):
    """One part the service needs."""

    name: str
    ok: bool
    detail: str
    degraded: bool = Field(False, description="it works, slowly or with something missing")
    seconds: float | None = Field(None, description="its last answer took")


class ReadyOut(AnswerBody):
    """Whether the service can do its work."""

    ready: bool
    parts: list[PartOut]


class AliveOut(AnswerBody):
    """The process is alive."""

    status: str = "alive"


class ControlIn(BodyType):
    """The switches to set; what is not named stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"paused": True}, {"shadow": True}]})

    paused: bool | None = None  #: the kill switch: nothing is written to Airflow
    shadow: bool | None = None  #: decide and record, touch nothing


class ControlOut(AnswerBody):
    """The switches in force."""

    paused: bool
    shadow: bool
    by: str | None = None  #: who set them last; None while the settings alone decide
