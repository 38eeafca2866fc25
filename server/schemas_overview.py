"""What the API answers about the whole: how things stand, figures over a window, the policy, a diagnosis."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from graph.domain import Diagnosis, Door, Outcome, RootCause, Status, TaskRef, TaskSnapshot
from server.answers import BodyType, plain
from server.schemas import AnswerBody

LOG_CHARS = 200_000  # of a log that is given for diagnosis; the largest body is 256 kB


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


class HealthOut(AnswerBody):
    """One part that matters."""

    name: Literal["airflow", "scheduler", "triggerer", "dag_processor", "agent", "model", "database"]
    state: Literal["well", "degraded", "unwell", "off", "unknown"]
    detail: str = ""


class RunOut(AnswerBody):
    """One run of a pipeline."""

    run_id: str
    state: str
    run_type: str
    start: datetime | None
    end: datetime | None


class PipelineOut(AnswerBody):
    """One DAG and its last runs, newest first."""

    dag_id: str
    is_paused: bool
    tags: list[str]
    next_run: datetime | None
    runs: list[RunOut]
    open_incidents: int = 0


class QueueOut(AnswerBody):
    """What waits to be worked on."""

    occurrences: int = Field(description="failures not yet looked at")
    due: int = Field(description="incidents whose time has come")
    deciding: int = Field(description="incidents that wait for a person")


class FindingOut(AnswerBody):
    """One early warning that lasts."""

    kind: str
    subject: str
    severity: str
    since: datetime
    text: str


class NoticesOut(AnswerBody):
    """How telling people goes."""

    waiting: int
    failing: int = Field(description="of those that wait, how many failed at least once")
    given_up: int
    sent: int
    last_error: str


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
    health: list[HealthOut] = Field(default_factory=list)
    pipelines: list[PipelineOut] = Field(default_factory=list)
    success_rate: float | None = Field(
        None, description="of the pipelines' last ended runs; null when none has ended"
    )
    queue: QueueOut | None = None
    findings: list[FindingOut] = Field(default_factory=list, description="early warnings, newest first")
    notices: NoticesOut | None = None


class SpreadOut(AnswerBody):
    """How long something took; seconds."""

    count: int
    p50: float | None
    p95: float | None


class PipelineFigures(AnswerBody):
    """What went wrong in the pipelines."""

    incidents: int
    causes: dict[RootCause, int]
    success_rate: float | None = Field(description="of the pipelines' last ended runs, not of the window")


class AgentFigures(AnswerBody):
    """What Airmedic did about it. Outcomes are told apart: only healed is a heal."""

    outcomes: dict[Outcome, int]
    open: int
    heal_rate: float | None = Field(description="healed, of all that ended with something to heal")
    approvals_asked: int
    approvals_answered: int
    detect: SpreadOut = Field(description="from the failure to its incident")
    diagnose: SpreadOut = Field(description="from the incident to its first diagnosis")
    fix: SpreadOut = Field(description="from the diagnosis to the first fix, waits for people included")
    recover: SpreadOut = Field(description="from the failure to the first check that found all well")
    decide: SpreadOut = Field(description="from the question to a person's answer")


class SystemFigures(AnswerBody):
    """The process and its machine now; bytes."""

    cpu_percent: float
    machine_cpu_percent: float
    memory: int
    memory_available: int
    memory_total: int
    disk_free: int
    disk_total: int
    queue: QueueOut


class BusinessFigures(AnswerBody):
    """What the language model cost. Hours saved are not told: nothing here measures them."""

    model_asked: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None = Field(description="null when no price is known")


class BucketOut(AnswerBody):
    """One stretch of the window."""

    start: datetime
    opened: int
    outcomes: dict[Outcome, int]
    causes: dict[RootCause, int]


class SummaryOut(AnswerBody):
    """Figures over a window, of the incidents opened in it."""

    window: Literal["day", "week", "month"]
    since: datetime
    until: datetime
    step: float = Field(description="seconds of one bucket")
    complete: bool = Field(description="false: more incidents than are looked at; the newest were")
    pipeline: PipelineFigures
    agent: AgentFigures
    system: SystemFigures
    business: BusinessFigures
    series: list[BucketOut]


class PolicyOut(AnswerBody):
    """The policy in force."""

    digest: str
    source: str = Field(description="the file it was read from; the shipped default when there is none")
    words: list[str] = Field(description="the policy in sentences, in the order in which it is read")
    rules: list[str] = Field(description="names of the rules, the first that matches decides")
    policy: dict[str, JsonValue] = Field(description="the whole policy as it was read")


Name = Annotated[str, Field(min_length=1, max_length=250), AfterValidator(plain)]


class DiagnoseIn(BodyType):
    """A log, or a task instance of the configured Airflow; one of the two."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"log": "psycopg2.OperationalError: could not connect to server: Connection refused"},
                {"dag_id": "orders", "run_id": "scheduled__2026-03-01T03:00:00+00:00", "task_id": "load"},
            ]
        }
    )

    log: Annotated[str, Field(max_length=LOG_CHARS), AfterValidator(plain)] | None = None
    dag_id: Name | None = None
    run_id: Name | None = None
    task_id: Name | None = None
    map_index: Annotated[int, Field(ge=-1, le=2**31 - 1, strict=True)] = -1
    try_number: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = Field(
        None, description="the last try without it"
    )

    @model_validator(mode="after")
    def _one_of_the_two(self) -> DiagnoseIn:
        named = (self.dag_id, self.run_id, self.task_id)
        if (self.log is not None) == all(one is not None for one in named):
            raise ValueError("give a log, or dag_id, run_id and task_id")
        if self.log is not None and any(one is not None for one in named):
            raise ValueError("give a log, or dag_id, run_id and task_id, not both")
        return self

    @property
    def task(self) -> TaskRef | None:
        """The task instance that is named."""
        if self.dag_id is None or self.run_id is None or self.task_id is None:
            return None
        return TaskRef(dag_id=self.dag_id, run_id=self.run_id, task_id=self.task_id, map_index=self.map_index)


class DiagnoseOut(AnswerBody):
    """The diagnosis. Nothing was changed in Airflow and nothing is kept."""

    diagnosis: Diagnosis
    task: TaskSnapshot | None = Field(description="the task instance as Airflow describes it")
    log_lines: int
    seconds: float
