"""Airmedic's vocabulary: the types that travel between nodes, into the store and out of the API.

Every type here is frozen and forbids unknown fields. Checkpoints keep the module path of these types
(see `graph.checkpoint`), so a type that has shipped is not moved or renamed. Times are aware, in UTC;
durations are seconds.
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class DomainType(BaseModel):
    """Frozen, closed, comparable by value."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def canonical_json(value: object) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces. Before-images are compared in it."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def digest(value: object) -> str:
    """Sixteen hex digits that stand for a JSON value (SHA-256 of its canonical form, cut)."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


# --- why a task failed ------------------------------------------------------------------------------------


class RootCause(StrEnum):
    """Why the task failed. The list is closed; `graph/taxonomy.md` explains each."""

    NETWORK_UNREACHABLE = "network_unreachable"  #: a remote host could not be reached or hung up
    AUTHENTICATION_FAILED = "authentication_failed"  #: the identity was not accepted
    PERMISSION_DENIED = "permission_denied"  #: the identity is known and not allowed
    RATE_LIMITED = "rate_limited"  #: the remote side asked to slow down, or a quota is used up
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"  #: the service answered that it is broken or busy
    TLS_ERROR = "tls_error"  #: the TLS handshake failed
    TIMEOUT = "timeout"  #: work did not end inside its limit
    OUT_OF_MEMORY = "out_of_memory"  #: memory ran out
    STORAGE_EXHAUSTED = "storage_exhausted"  #: disk, inodes or file handles ran out
    WORKER_LOST = "worker_lost"  #: the process or machine running the task went away
    CAPACITY_UNAVAILABLE = "capacity_unavailable"  #: the task could not get the compute it asked for
    LOCK_CONTENTION = "lock_contention"  #: another writer holds what the task needs
    SCHEMA_DRIFT = "schema_drift"  #: the structure of the data differs from what the task expects
    TYPE_MISMATCH = "type_mismatch"  #: a value does not fit the expected type, format or encoding
    CONSTRAINT_VIOLATION = "constraint_violation"  #: the data breaks a rule it must keep
    MISSING_DATA = "missing_data"  #: an input is absent or empty
    MISSING_CONFIGURATION = "missing_configuration"  #: a setting is absent or wrong
    DEPENDENCY_ERROR = "dependency_error"  #: software the task needs is absent or incompatible
    CODE_ERROR = "code_error"  #: the DAG, task or operator code is wrong
    QUERY_ERROR = "query_error"  #: the SQL (or other query) is wrong
    EXTERNAL_JOB_FAILED = "external_job_failed"  #: a job submitted elsewhere failed, the log says no more
    PLATFORM_ERROR = "platform_error"  #: Airflow itself, its metadata database or executor is at fault
    UNKNOWN = "unknown"  #: the evidence does not say


class Remediation(StrEnum):
    """The family of the fix that resolves a cause."""

    RETRY = "retry"  #: clear the task and run it again, after a wait where the cause needs one
    RERUN_UPSTREAM = "rerun_upstream"  #: produce the missing input first
    RAISE_LIMIT = "raise_limit"  #: more memory, time, slots, disk or connections
    UPDATE_CONFIGURATION = "update_configuration"  #: set or mend a Variable, Connection or parameter
    RENEW_CREDENTIALS = "renew_credentials"  #: a person with the authority renews or grants
    ADAPT_SCHEMA = "adapt_schema"  #: evolve the contract or mapping
    QUARANTINE_DATA = "quarantine_data"  #: set offending rows aside and go on, with a count
    CHANGE_CODE = "change_code"  #: the DAG, query, image or dependency pin must change
    REPAIR_PLATFORM = "repair_platform"  #: Airflow or its infrastructure must be mended
    ESCALATE = "escalate"  #: a person must look


class DiagnosedBy(StrEnum):
    """Who named the cause."""

    MEMORY = "memory"  #: a signature seen before, whose record is good
    KNOWLEDGE = "knowledge"  #: the knowledge base
    MODEL = "model"  #: the language model, with citations that were checked
    PERSON = "person"  #: an operator's correction


class EvidenceLine(DomainType):
    """One line of the log, after redaction, with its number (the first line is 1)."""

    line: int = Field(ge=1)
    text: str


class RuledOut(DomainType):
    """A cause that was considered and dropped, and why."""

    root_cause: RootCause
    why: str


class CodeLocation(DomainType):
    """Where in the user's code the failure was raised."""

    file: str
    line: int
    function: str = ""


class ColumnProblem(DomainType):
    """One thing a data check found wrong, as the pipeline itself reported it."""

    kind: Literal["missing", "unexpected", "type", "null", "duplicate", "empty"]
    column: str
    rows: int = 0  #: rows affected; 0 when the whole column is concerned
    expected: str = ""  #: the type the contract expects
    found: str = ""  #: the type, format or shape that was seen, never a value
    required: bool = True


class DataReport(DomainType):
    """What a task says about its data in the XCom `airmedic_report`."""

    contract: str | None = None  #: the Airflow Variable that holds the contract
    satisfied: bool | None = None
    rows_in: int | None = None
    rows_out: int | None = None
    rows_expected: int | None = None
    rows_quarantined: int | None = None
    quarantine_limit: int | None = None  #: rows
    problems: tuple[ColumnProblem, ...] = ()


class Facts(DomainType):
    """What the evidence says that a fix can use. Values from logs choose waits and words, never targets."""

    retry_after: float | None = None  #: seconds the remote side asked us to wait
    wait: float | None = None  #: seconds worth waiting, by what knowledge says of this very error
    host: str | None = None
    conn_id: str | None = None
    variable: str | None = None
    pool: str | None = None
    report: DataReport | None = None


class ModelCost(DomainType):
    """What asking the language model about one incident cost, and what came of it."""

    model: str
    outcome: str  #: `tools.llm_usage.Outcome`
    error: str = ""  #: why its answer was not used
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None  #: None when the price is not known
    seconds: float = 0.0


class Diagnosis(DomainType):
    """One named cause and the log lines that prove it."""

    root_cause: RootCause
    transient: bool
    confidence: float = Field(ge=0, le=1)  #: calibrated: of ten diagnoses at 0.8, eight are right
    remediation: Remediation
    evidence: tuple[EvidenceLine, ...] = ()
    summary: str = ""  #: one sentence a person on call understands
    ruled_out: tuple[RuledOut, ...] = ()
    alternatives: tuple[Remediation, ...] = ()  #: after `remediation`, best first
    by: DiagnosedBy = DiagnosedBy.KNOWLEDGE
    location: CodeLocation | None = None
    facts: Facts = Facts()
    signature: str = ""  #: error template with values masked, and where; the key of memory
    cost: ModelCost | None = None  #: None when the model was not asked
    context: tuple[str, ...] = ()  #: what Airflow knows beyond the log and how it moved the answer


# --- what Airflow says ------------------------------------------------------------------------------------


class TaskRef(DomainType):
    """One task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1  #: -1 for a task that is not mapped

    def __str__(self) -> str:
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{mapped} @ {self.run_id}"


class IncidentKind(StrEnum):
    """What kind of trouble it is."""

    FAILURE = "failure"  #: a task instance failed
    STUCK = "stuck"  #: a task instance is due and does not start
    IMPORT_ERROR = (
        "import_error"  #: a DAG file does not import; `task_id` is the file, `run_id` names the error
    )
    MISSED_SCHEDULE = "missed_schedule"  #: runs that were due do not exist; `run_id` names the first of them
    STUCK_RUNNING = "stuck_running"  #: a task instance runs far longer than it ever did
    REQUEST = "request"  #: a person asked for something; `run_id` names the request, not a run


class FailureId(DomainType):
    """The identity of one failure: the same failure through two doors is one occurrence."""

    airflow: str  #: which Airflow installation
    task: TaskRef
    try_number: int
    kind: IncidentKind = IncidentKind.FAILURE


RUNNING_STATES = frozenset(
    {"scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred", "none"}
)

ACTIVE_STATES = RUNNING_STATES - {"none"}  #: the scheduler has done its part: somebody is at work


class TaskSnapshot(DomainType):
    """A task instance as Airflow described it at one moment."""

    task: TaskRef
    state: str  #: Airflow's state; "none" before it is scheduled
    try_number: int = 0
    max_tries: int = 0
    operator: str = ""
    pool: str = "default_pool"
    queue: str = ""
    hostname: str = ""
    note: str = ""
    start: datetime | None = None
    end: datetime | None = None
    updated: datetime | None = None
    duration: float | None = None  #: seconds
    dag_version: int | None = None

    @property
    def final(self) -> bool:
        """True when Airflow will not move it by itself."""
        return self.state not in RUNNING_STATES


class RunSnapshot(DomainType):
    """A DAG run as Airflow described it at one moment."""

    dag_id: str
    run_id: str
    state: str
    run_type: str = ""
    logical_date: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    conf: dict[str, JsonValue] = {}
    note: str = ""


class DagInfo(DomainType):
    """A DAG's own settings."""

    dag_id: str
    is_paused: bool = False
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    fileloc: str = ""
    has_import_errors: bool = False
    latest_version: int | None = None
    next_run: datetime | None = None
    periodic: bool = False  #: runs by the clock, so that intervals can be missing


class TaskInfo(DomainType):
    """A task's place in its DAG."""

    task_id: str
    downstream: tuple[str, ...] = ()
    retries: int = 0
    operator: str = ""
    pool: str = "default_pool"


class TaskLog(DomainType):
    """One try's log, redacted. `content` is Airflow 3's structured form, empty for a plain log."""

    text: str
    content: tuple[dict[str, JsonValue], ...] = ()
    complete: bool = True


class Variable(DomainType):
    """An Airflow Variable. A masked one holds `***` somewhere: it is never captured nor written back."""

    key: str
    value: str
    description: str | None = None
    masked: bool = False


class Connection(DomainType):
    """An Airflow Connection without its password; `extra_masked` when Airflow hid part of `extra`."""

    conn_id: str
    conn_type: str
    host: str | None = None
    schema_name: str | None = None
    login: str | None = None
    port: int | None = None
    extra: str | None = None
    description: str | None = None
    extra_masked: bool = False


class Pool(DomainType):
    """An Airflow pool."""

    name: str
    slots: int
    occupied: int = 0
    queued: int = 0
    scheduled: int = 0  #: task instances that wait for a slot
    description: str | None = None
    include_deferred: bool = False


class ImportFailure(DomainType):
    """A DAG file that Airflow could not import."""

    filename: str
    stacktrace: str
    seen: datetime | None = None


class AirflowHealth(DomainType):
    """What Airflow says of its own components; None means not deployed or not told."""

    version: str = ""
    metadatabase: bool = True
    scheduler: bool | None = None
    triggerer: bool | None = None
    dag_processor: bool | None = None


# --- incidents --------------------------------------------------------------------------------------------


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
    asked: int = 0  #: members that a person is asked about
    reasons: tuple[str, ...] = ()  #: and why
    approvers: Role = Role.OPERATOR  #: and the least role that may approve


# --- fixes ------------------------------------------------------------------------------------------------


class ActionClass(StrEnum):
    """Whether an action can be taken back."""

    REVERSIBLE = "reversible"  #: undo restores the before-image exactly
    COMPENSABLE = "compensable"  #: another action makes up for it
    IRREVERSIBLE = "irreversible"  #: what ran has run


class Action(DomainType):
    """One typed step of a plan. The planner sets `target` from the incident; nobody may edit it."""

    name: str  #: an action of `tools.actions`
    target: dict[str, JsonValue] = {}
    args: dict[str, JsonValue] = {}


class FixPlan(DomainType):
    """A short list of actions that should resolve one diagnosis."""

    remediation: Remediation
    actions: tuple[Action, ...]
    summary: str  #: what will be done, in a sentence
    diff: str = ""  #: unified diff of what a contract or setting becomes
    requested_by: str = ""  #: the person who asked for it; empty for the planner's own
    request: int | None = None  #: and the number of what they asked

    @property
    def wait(self) -> float:
        """Seconds before the plan begins: its leading `wait` action. A wait stands nowhere else."""
        first = self.actions[0] if self.actions else None
        seconds = first.args.get("seconds", 0) if first is not None and first.name == "wait" else 0
        return float(seconds) if isinstance(seconds, int | float) else 0.0

    @property
    def id(self) -> str:
        """Same plan, same id: a rejected plan is recognised when it comes again. Asked anew, it is new."""
        asked = [] if self.request is None else [self.request]
        return digest([self.remediation, [a.model_dump(mode="json") for a in self.actions], *asked])


class BlastRadius(DomainType):
    """How much a plan touches, by Airflow's own dry run where it has one."""

    task_instances: int = 0
    dag_runs: int = 0
    dags: int = 0
    settings: int = 0  #: Variables, Connections, pools


class Verdict(StrEnum):
    """What policy says of a plan."""

    AUTO = "auto"
    ASK = "ask"
    NEVER = "never"


class Decision(DomainType):
    """Policy's word on one plan, and why."""

    verdict: Verdict
    rule: str  #: the rule or guard that decided
    reasons: tuple[str, ...]
    policy: str = ""  #: digest of the policy in force
    approvers: Role = Role.OPERATOR  #: the least role that may approve
    shadow: bool = False  #: decided and recorded, nothing is touched
    radius: BlastRadius | None = None  #: how much the plan touches; None when it was not looked at


class AnswerKind(StrEnum):
    """What came back to a question."""

    APPROVE = "approve"
    EDIT = "edit"
    REJECT = "reject"
    RESPOND = "respond"
    EXPIRED = "expired"  #: nobody answered
    STALE = "stale"  #: the world moved


class Answer(DomainType):
    """A person's (or the clock's) answer to a question."""

    kind: AnswerKind
    by: str
    message: str = ""
    plan_id: str = ""
    args: tuple[dict[str, JsonValue], ...] = ()  #: edited arguments, one object per action
    role: Role = Role.OPERATOR  #: what who answered may do


class Step(StrEnum):
    """Where one write stands in the ledger."""

    INTENT = "intent"  #: decided, before-image captured, nothing sent
    SENT = "sent"  #: on its way; after a crash only Airflow knows
    CONFIRMED = "confirmed"  #: read back and true
    FAILED = "failed"  #: Airflow refused; nothing changed
    UNDONE = "undone"  #: taken back, read back


class LedgerEntry(DomainType):
    """One write to Airflow, from intent to its end."""

    incident_id: int
    attempt: int
    position: int
    action: Action
    step: Step
    key: str  #: goes into Airflow's note where it has one
    before: JsonValue = None
    after: JsonValue = None
    error: str = ""
    sent_at: datetime | None = None  #: when it last left for Airflow
    at: datetime | None = None  #: when it came to the present step


class Check(DomainType):
    """One thing verification looked at."""

    name: str
    ok: bool | None  #: None: nothing to judge by
    detail: str


class Verification(DomainType):
    """Whether the task, its run and its data are right again."""

    outcome: Outcome | None  #: None: not known yet
    checks: tuple[Check, ...] = ()


class Note(DomainType):
    """Words a person added while answering; the next diagnosis reads them as evidence."""

    by: str
    text: str
