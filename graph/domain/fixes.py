"""Fixes: the plan, policy's word, the answer of a person, what was written, and whether it helped."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, JsonValue

from graph.domain.diagnosis import Remediation
from graph.domain.domain_type import DomainType, digest
from graph.domain.incidents import Outcome, Role


class ActionClass(StrEnum):
    """Whether an action can be taken back."""

    REVERSIBLE = "reversible"  #: undo restores the before-image exactly
    COMPENSABLE = "compensable"  #: another action makes up for it
    IRREVERSIBLE = "irreversible"  #: what ran has run


class Action(DomainType):
    """One typed step of a plan. The planner sets `target` from the incident; nobody may edit it."""

    name: str  #: an action of `tools.actions`
    target: dict[str, JsonValue] = Field(default_factory=dict)
    args: dict[str, JsonValue] = Field(default_factory=dict)


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
