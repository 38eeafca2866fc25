"""What a policy file may say. Values and plain questions to them; `tools.policy` decides."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, time
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from graph.domain import ActionClass, BlastRadius, Remediation, Role, RootCause, Verdict, digest
from tools.contracts import EditKind


def _several(value: Any) -> Any:
    """One word in the file stands for a list of one."""
    return [value] if isinstance(value, str) else value


Causes = Annotated[tuple[RootCause, ...], BeforeValidator(_several), Field(min_length=1)]
Remediations = Annotated[tuple[Remediation, ...], BeforeValidator(_several), Field(min_length=1)]
Classes = Annotated[tuple[ActionClass, ...], BeforeValidator(_several), Field(min_length=1)]
Edits = Annotated[tuple[EditKind, ...], BeforeValidator(_several), Field(min_length=1)]
Names = Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)]


class Day(StrEnum):
    """A day of the week; the order is Python's `weekday()`."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


def _quoted(value: Any) -> Any:
    # YAML reads an unquoted 22:00 as the number 1320, which would pass for 00:22.
    if isinstance(value, int | float):
        raise ValueError('write it in quotes, like "22:00"')
    return value


def _without_zone(value: time) -> time:
    if value.tzinfo is not None:
        raise ValueError("a time of day has no zone of its own: name it in `timezone`")
    return value


TimeOfDay = Annotated[time, BeforeValidator(_quoted), AfterValidator(_without_zone)]
Days = Annotated[tuple[Day, ...], BeforeValidator(_several), Field(min_length=1)]


class Part(BaseModel):
    """Base of everything in a policy file: closed and frozen."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Hours(Part):
    """A time of day. From a later to an earlier time it goes over midnight and belongs to its first day."""

    days: Days = tuple(Day)
    start: TimeOfDay = Field(time(0), alias="from")
    end: TimeOfDay = Field(time(0), alias="to")  #: not included; equal to `from` means the whole day
    timezone: str = "UTC"

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:  # `Europe` is a folder of zones
            raise ValueError(f"{name!r} is no time zone") from exc
        return name

    def contains(self, moment: datetime) -> bool:
        """Whether it is that time of day."""
        local = moment.astimezone(ZoneInfo(self.timezone))
        week = tuple(Day)
        today, yesterday = week[local.weekday()], week[local.weekday() - 1]
        now = local.time()
        if self.start < self.end:
            return today in self.days and self.start <= now < self.end
        if self.start == self.end:
            return today in self.days
        return (today in self.days and now >= self.start) or (yesterday in self.days and now < self.end)

    def __str__(self) -> str:
        days = "every day" if len(self.days) == len(Day) else ", ".join(self.days)
        return f"{days} {self.start:%H:%M} to {self.end:%H:%M} {self.timezone}"


class Caps(Part):
    """The most a plan may touch; what is not named is not capped."""

    task_instances: int | None = Field(None, ge=0)
    dag_runs: int | None = Field(None, ge=0)
    dags: int | None = Field(None, ge=0)
    settings: int | None = Field(None, ge=0)

    def passed(self, radius: BlastRadius) -> tuple[str, ...]:
        """Which caps are passed, in words."""
        found = radius.model_dump()
        return tuple(
            f"{found[name]} {name.replace('_', ' ')} (at most {most})"
            for name, most in self.model_dump(exclude_none=True).items()
            if found[name] > most
        )


class Match(Part):
    """When a rule holds. Every part that is named must hold; a list holds when one of its members does."""

    cause: Causes | None = None
    transient: bool | None = None
    remediation: Remediations | None = None
    action: Names | None = None  #: every action of the plan is among these
    kind: Classes | None = None  #: and every class of them among these
    contract_edit: Edits | None = None  #: the plan edits a contract, and only in these ways
    dag: Names | None = None  #: glob patterns
    tag: Names | None = None  #: glob patterns over the DAG's tags
    owner: Names | None = None  #: glob patterns over the DAG's owners
    environment: Names | None = None
    hours: Hours | None = None
    confidence_at_least: float | None = Field(None, ge=0, le=1)
    radius_at_most: Caps | None = None


class Rule(Part):
    """A match and what follows."""

    name: str = Field(min_length=1)
    match: Match = Match()
    verdict: Verdict
    reason: str = ""
    approvers: Literal[Role.OPERATOR, Role.ADMIN] = Role.OPERATOR
    caps: Caps = Caps()  #: beyond these, `auto` becomes `ask`


class Limits(Part):
    """How often; beyond these, `auto` becomes `ask`."""

    attempts_per_task_per_day: int = Field(6, ge=0)
    actions_per_hour: int = Field(60, ge=0)
    actions_per_hour_per_dag: int = Field(20, ge=0)


class Breaker(Part):
    """Opens after failed heals in a row, and stays open that long after the last of them.

    From then on one heal is tried at a time, until one helps.
    """

    failed_heals: int = Field(5, ge=1)
    failed_heals_per_dag: int = Field(3, ge=1)
    cooldown_minutes: float = Field(60, gt=0)
    verdict: Literal[Verdict.ASK, Verdict.NEVER] = Verdict.ASK


class Maintenance(Part):
    """A time in which nothing is done by itself, or nothing at all."""

    name: str = Field(min_length=1)
    hours: Hours
    dag: Names = ("*",)
    verdict: Literal[Verdict.ASK, Verdict.NEVER] = Verdict.ASK


class Policy(Part):
    """A whole policy file."""

    version: Literal[1]
    trust_retries: bool = False  #: declared `retries` prove that a task is safe to run again
    ask_below_confidence: float = Field(0.6, ge=0, le=1)
    limits: Limits = Limits()
    breaker: Breaker = Breaker()
    maintenance: tuple[Maintenance, ...] = ()
    rules: tuple[Rule, ...] = ()  #: the first that matches decides
    otherwise: Literal[Verdict.ASK, Verdict.NEVER] = Verdict.ASK  #: when none matches

    @field_validator("rules")
    @classmethod
    def _names_differ(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        seen: set[str] = set()
        for rule in rules:
            if rule.name in seen:
                raise ValueError(f"two rules are called {rule.name!r}")
            seen.add(rule.name)
        return rules

    @cached_property
    def digest(self) -> str:
        """Stands for the whole policy in every decision; worked out once, for it never changes."""
        return digest(self.model_dump(mode="json", by_alias=True))

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Policy:
        """Another policy has another digest."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("digest", None)
        return copied


def any_like(names: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether one of the names fits one of the glob patterns."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


# --- in words ---------------------------------------------------------------------------------------------


def in_words(policy: Policy) -> tuple[str, ...]:
    """The policy as sentences, one a line, in the order in which it is read."""
    limits, breaker = policy.limits, policy.breaker
    trusted = "prove" if policy.trust_retries else "do not prove"
    return (
        f"policy {policy.digest}",
        f"declared retries {trusted} that a task is safe to run again",
        f"a diagnosis below confidence {policy.ask_below_confidence:g} is asked about",
        f"beyond {limits.attempts_per_task_per_day} attempts per task and day, "
        f"{limits.actions_per_hour} actions an hour or {limits.actions_per_hour_per_dag} per DAG: ask",
        f"after {breaker.failed_heals} failed heals in a row ({breaker.failed_heals_per_dag} of one DAG), "
        f"for {breaker.cooldown_minutes:g} minutes, and then beside one that is tried: {breaker.verdict}",
        *(
            f"maintenance {one.name!r}, {one.hours}, DAGs {', '.join(one.dag)}: {one.verdict}"
            for one in policy.maintenance
        ),
        *(f"{number}. {_rule_in_words(rule)}" for number, rule in enumerate(policy.rules, 1)),
        f"otherwise: {policy.otherwise}",
    )


def _rule_in_words(rule: Rule) -> str:
    named = rule.match.model_dump(mode="json", by_alias=True, exclude_none=True)
    when = "; ".join(f"{key} {_value(value)}" for key, value in named.items()) or "always"
    caps = rule.caps.model_dump(exclude_none=True)
    up_to = ", ".join(f"{most} {name.replace('_', ' ')}" for name, most in caps.items())
    who = f" ({rule.approvers} approves)" if rule.verdict is Verdict.ASK else ""
    return f"{rule.name}: {rule.verdict}{who} when {when}" + (f", up to {up_to}" if up_to else "")


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " or ".join(str(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items() if item is not None)
    return str(value).lower() if isinstance(value, bool) else str(value)
