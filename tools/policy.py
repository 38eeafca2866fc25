"""The decision engine: auto, ask or never for one plan, and why. A pure function.

It never reads what comes out of a log or a model: not a diagnosis' facts, evidence or summary. Guards come
first and no file loosens them; then the first rule that matches; the more restrictive of the two holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from graph.domain import (
    Action,
    BlastRadius,
    DagInfo,
    Decision,
    Diagnosis,
    DomainType,
    FixPlan,
    Remediation,
    Role,
    RootCause,
    TaskRef,
    TaskSnapshot,
    Verdict,
)
from graph.errors import ActionRefused
from tools.actions import ActionCatalogue, AnyKind, Rerun
from tools.contracts import EditKind, edit_kinds
from tools.policy_rules import Maintenance, Match, Policy, Rule, any_like, in_words

__all__ = ["Counters", "Policy", "Question", "Ruling", "decide", "explain", "in_words"]

SAFE, UNSAFE = "airmedic:rerun-safe", "airmedic:rerun-unsafe"
STRICTNESS = {Verdict.AUTO: 0, Verdict.ASK: 1, Verdict.NEVER: 2}
# These leave the world as it is: a plan of nothing else repeats the failure unchanged.
CHANGE_NOTHING = frozenset({"wait", "clear_task", "add_note", "notify"})
SWITCHES = frozenset({"pause_dag", "unpause_dag"})  # what a person may wish for without any cause
PAUSED = "is paused: what is cleared starts when somebody unpauses it, whenever that is"
ON_THE_TASK = frozenset({"clear_task", "mark_task", "add_note"})


class Counters(DomainType):
    """What was done lately, from the records."""

    attempts_today: int = 0  #: plans applied to this task in the last 24 hours
    actions_last_hour: int = 0
    actions_last_hour_dag: int = 0
    failed_heals: int = 0  #: in a row, over all DAGs
    failed_heals_dag: int = 0  #: in a row, of this DAG
    last_failed_heal: datetime | None = None
    last_failed_heal_dag: datetime | None = None
    trials: int = 0  #: heals of others that began after the last failed one and are not over, over all DAGs
    trials_dag: int = 0  #: the same, of this DAG


class Question(DomainType):
    """Everything a decision depends on."""

    diagnosis: Diagnosis
    plan: FixPlan
    task: TaskSnapshot  #: the failure
    members: tuple[TaskRef, ...] = ()  #: others of the same cause that the incident holds
    dag: DagInfo
    radius: BlastRadius
    now: datetime
    reruns: tuple[Rerun, ...] = ()  #: from the preview: what would run a second time, other DAGs included
    counters: Counters = Counters()
    rejected: tuple[str, ...] = ()  #: ids of plans that were rejected or did not help
    environment: str = "production"
    paused: bool = False  #: the kill switch
    shadow: bool = False


class Ruling(DomainType):
    """What one guard or rule says."""

    verdict: Verdict
    name: str
    reason: str


@dataclass(frozen=True)
class _Case:
    """A question with what the catalogue knows of its plan."""

    question: Question
    policy: Policy
    kinds: tuple[AnyKind, ...]
    edits: frozenset[EditKind]
    reruns: tuple[Rerun, ...]
    incomplete: tuple[str, ...]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(action.name for action in self.question.plan.actions)


def decide(question: Question, policy: Policy, catalogue: ActionCatalogue) -> Decision:
    """Auto, ask or never, and why."""
    try:
        catalogue.validate_plan(question.plan)
    except ActionRefused as exc:
        return _decision(
            question, policy, [Ruling(verdict=Verdict.NEVER, name="valid plan", reason=str(exc))]
        )
    case = _case(question, policy, catalogue)
    ruled, rule = _by_rules(case)
    return _decision(question, policy, [ruled, *(one for guard in GUARDS for one in guard(case))], rule)


def explain(decision: Decision) -> str:
    """The decision in words."""
    shadow = " (shadow mode: nothing is touched)" if decision.shadow else ""
    who = f"; at least {decision.approvers} may approve" if decision.verdict is Verdict.ASK else ""
    reasons = "".join(f"\n  - {reason}" for reason in decision.reasons)
    return (
        f"{decision.verdict}{shadow}, decided by {decision.rule!r} of policy {decision.policy}{who}{reasons}"
    )


def _decision(
    question: Question, policy: Policy, rulings: list[Ruling], rule: Rule | None = None
) -> Decision:
    strictest = max(rulings, key=lambda one: STRICTNESS[one.verdict])  # the first of equals
    reasons = [one.reason for one in rulings if one.verdict is strictest.verdict]
    return Decision(
        verdict=strictest.verdict,
        rule=strictest.name,
        reasons=tuple(dict.fromkeys(reasons)),
        policy=policy.digest,
        approvers=rule.approvers if rule is not None else Role.OPERATOR,
        shadow=question.shadow,
        radius=question.radius,
    )


def _case(question: Question, policy: Policy, catalogue: ActionCatalogue) -> _Case:
    plan = question.plan
    told = {(one.dag_id, one.task_id): one for one in question.reruns}
    for ref in catalogue.reruns(plan):
        # A DAG that was not read declares nothing.
        tags = question.dag.tags if ref.dag_id == question.dag.dag_id else ()
        told.setdefault((ref.dag_id, ref.task_id), Rerun(dag_id=ref.dag_id, task_id=ref.task_id, tags=tags))
    return _Case(
        question=question,
        policy=policy,
        kinds=tuple(catalogue.get(action.name) for action in plan.actions),
        edits=_edits(plan),
        reruns=tuple(told.values()),
        incomplete=catalogue.missing(plan),
    )


def _edits(plan: FixPlan) -> frozenset[EditKind]:
    found: set[EditKind] = set()
    for action in plan.actions:
        base, value = action.target.get("base"), action.args.get("value")
        if action.name == "set_variable" and isinstance(base, str) and isinstance(value, str):
            found |= edit_kinds(base, value)
    return frozenset(found)


def maintained(policy: Policy, dags: Iterable[str], now: datetime) -> tuple[Maintenance, ...]:
    """The maintenance windows of these DAGs that are open."""
    names = list(dags)
    return tuple(one for one in policy.maintenance if one.hours.contains(now) and any_like(names, one.dag))


def paused_since(decision: Decision, told: Collection[str]) -> bool:
    """Whether policy asks because of a pause that whoever approved for these reasons did not know of."""
    return any(one.endswith(PAUSED) and one not in told for one in decision.reasons)


def touched_dags(actions: Iterable[Action]) -> frozenset[str]:
    """The DAGs that these actions aim at: not always the one that failed."""
    return frozenset(str(one.target["dag_id"]) for one in actions if "dag_id" in one.target)


# --- rules ------------------------------------------------------------------------------------------------


def _by_rules(case: _Case) -> tuple[Ruling, Rule | None]:
    for rule in case.policy.rules:
        if _matches(rule.match, case):
            passed = rule.caps.passed(case.question.radius) if rule.verdict is Verdict.AUTO else ()
            if passed:
                reason = f"beyond the rule's caps: {', '.join(passed)}"
                return Ruling(verdict=Verdict.ASK, name=rule.name, reason=reason), rule
            reason = rule.reason or f"rule {rule.name!r} says {rule.verdict}"
            return Ruling(verdict=rule.verdict, name=rule.name, reason=reason), rule
    reason = "no rule of the policy covers this plan"
    return Ruling(verdict=case.policy.otherwise, name="otherwise", reason=reason), None


def _matches(match: Match, case: _Case) -> bool:
    question = case.question
    found, plan, dag = question.diagnosis, question.plan, question.dag
    kinds = {kind.kind for kind in case.kinds if kind.writes}
    return all(
        (
            match.cause is None or found.root_cause in match.cause,
            match.transient is None or found.transient is match.transient,
            match.remediation is None or plan.remediation in match.remediation,
            match.action is None or case.names <= set(match.action),
            match.kind is None or kinds <= set(match.kind),
            match.contract_edit is None or (bool(case.edits) and case.edits <= set(match.contract_edit)),
            match.dag is None or any_like([dag.dag_id], match.dag),
            match.tag is None or any_like(dag.tags, match.tag),
            match.owner is None or any_like(dag.owners, match.owner),
            match.environment is None or question.environment in match.environment,
            match.hours is None or match.hours.contains(question.now),
            match.confidence_at_least is None or found.confidence >= match.confidence_at_least,
            match.radius_at_most is None or not match.radius_at_most.passed(question.radius),
        )
    )


# --- guards: what no file loosens -------------------------------------------------------------------------


def _kill_switch(case: _Case) -> Iterator[Ruling]:
    if case.question.paused:
        yield Ruling(verdict=Verdict.NEVER, name="kill switch", reason="Airmedic is paused")


def _rejected(case: _Case) -> Iterator[Ruling]:
    if case.question.plan.id in case.question.rejected:
        reason = "this plan was rejected or did not help before"
        yield Ruling(verdict=Verdict.NEVER, name="tried plan", reason=reason)


def _own_task(case: _Case) -> Iterator[Ruling]:
    """Targets come from the incident; a plan that aims elsewhere was not made by our planner."""
    task = case.question.task.task
    members = set(case.question.members)
    for action in case.question.plan.actions:
        if action.name not in ON_THE_TASK:
            continue
        tasks = action.target.get("tasks")
        listed: Sequence[JsonValue] = tasks if isinstance(tasks, list) else [action.target]
        if members and _refs(action, listed) <= members:
            continue
        ids = {one.get("task_id") if isinstance(one, dict) else None for one in listed}
        if (action.target.get("dag_id"), action.target.get("run_id"), ids) != (
            task.dag_id,
            task.run_id,
            {task.task_id},
        ):
            reason = f"{action.name} aims at another task than the one that failed"
            yield Ruling(verdict=Verdict.NEVER, name="own target", reason=reason)


def _refs(action: Action, listed: Sequence[JsonValue]) -> set[TaskRef]:
    """The task instances that an action names."""
    place = {name: str(action.target.get(name)) for name in ("dag_id", "run_id")}
    named = [one for one in listed if isinstance(one, dict)]
    return {
        TaskRef(**place, task_id=str(one.get("task_id")), map_index=int(str(one.get("map_index", -1))))
        for one in named
    }


def _unchanged_retry(case: _Case) -> Iterator[Ruling]:
    """A failure that is not transient comes again when nothing changes."""
    diagnosis, plan = case.question.diagnosis, case.question.plan
    if diagnosis.transient or "clear_task" not in case.names or not case.names <= CHANGE_NOTHING:
        return
    told = "running it again unchanged does not help a cause that is not transient"
    name = "unchanged retry"
    if plan.requested_by:
        reason = "the cause does not pass by itself: approve once what caused it is mended"
        yield Ruling(verdict=Verdict.ASK, name=name, reason=reason)
        return
    if plan.remediation is Remediation.RENEW_CREDENTIALS:
        yield Ruling(verdict=Verdict.ASK, name=name, reason="a person renews the credentials first")
    elif diagnosis.root_cause is RootCause.EXTERNAL_JOB_FAILED:
        reason = "the log does not say whether it would help; a person may try once"
        yield Ruling(verdict=Verdict.ASK, name=name, reason=reason)
    else:
        yield Ruling(verdict=Verdict.NEVER, name=name, reason=told)


def _rerun_safety(case: _Case) -> Iterator[Ruling]:
    for one in case.reruns:
        named = f"{one.dag_id}.{one.task_id}"
        if UNSAFE in one.tags or f"{UNSAFE}={one.task_id}" in one.tags:
            reason = f"{named} is declared unsafe to run again"
        elif _declared_safe(one, case.policy):
            continue
        else:
            reason = f"nothing declares {named} safe to run again (DAG tag {SAFE} or {SAFE}={one.task_id})"
        yield Ruling(verdict=Verdict.ASK, name="re-run safety", reason=reason)


def _declared_safe(one: Rerun, policy: Policy) -> bool:
    tagged = SAFE in one.tags or f"{SAFE}={one.task_id}" in one.tags
    return tagged or (policy.trust_retries and one.retries > 0)


def _paused(case: _Case) -> Iterator[Ruling]:
    """Somebody stopped the DAG, and not for our clear to start whenever it is let go again."""
    own = case.question.dag
    others = {one.dag_id for one in case.reruns if one.is_paused} - {own.dag_id}
    named = ["the DAG"] if own.is_paused and case.reruns and "unpause_dag" not in case.names else []
    for name in (*named, *(f"DAG {dag_id!r}" for dag_id in sorted(others))):
        yield Ruling(verdict=Verdict.ASK, name="paused DAG", reason=f"{name} {PAUSED}")


def _doubt(case: _Case) -> Iterator[Ruling]:
    diagnosis, least = case.question.diagnosis, case.policy.ask_below_confidence
    wished = bool(case.question.plan.requested_by) and case.names <= SWITCHES
    if diagnosis.root_cause is RootCause.UNKNOWN and not wished:
        yield Ruling(verdict=Verdict.ASK, name="unknown cause", reason="the cause is not known")
    if diagnosis.confidence < least:
        reason = f"confidence {diagnosis.confidence:.2f} is below {least:g}"
        yield Ruling(verdict=Verdict.ASK, name="confidence", reason=reason)
    if diagnosis.disputed is not None and case.reruns:
        reason = (
            f"printed lines speak for {diagnosis.root_cause.value}, "
            f"the exception that ended the task for {diagnosis.disputed.value}"
        )
        yield Ruling(verdict=Verdict.ASK, name="disputed cause", reason=reason)
    if case.incomplete:
        reason = f"a person must give {', '.join(case.incomplete)}"
        yield Ruling(verdict=Verdict.ASK, name="missing value", reason=reason)


def _budgets(case: _Case) -> Iterator[Ruling]:
    used, limits = case.question.counters, case.policy.limits
    for count, most, what in (
        (used.attempts_today, limits.attempts_per_task_per_day, "attempts at this task in a day"),
        (used.actions_last_hour, limits.actions_per_hour, "actions in an hour"),
        (used.actions_last_hour_dag, limits.actions_per_hour_per_dag, "actions on this DAG in an hour"),
    ):
        if count >= most:
            reason = f"{count} {what} already (at most {most})"
            yield Ruling(verdict=Verdict.ASK, name="budget", reason=reason)


def _breaker(case: _Case) -> Iterator[Ruling]:
    """Open while it cools down; then half open, for one heal at a time, until one helps."""
    used, breaker = case.question.counters, case.policy.breaker
    for count, most, last, trials, where in (
        (used.failed_heals, breaker.failed_heals, used.last_failed_heal, used.trials, "overall"),
        (
            used.failed_heals_dag,
            breaker.failed_heals_per_dag,
            used.last_failed_heal_dag,
            used.trials_dag,
            "of this DAG",
        ),
    ):
        if count < most:
            continue
        if last is None or case.question.now < last + timedelta(minutes=breaker.cooldown_minutes):
            reason = f"the circuit breaker is open: {count} failed heals in a row {where}"
        elif trials:
            reason = (
                f"the circuit breaker is half open: after {count} failed heals in a row {where} "
                "one is tried at a time, and one is under way"
            )
        else:
            continue
        yield Ruling(verdict=breaker.verdict, name="circuit breaker", reason=reason)


def _maintenance(case: _Case) -> Iterator[Ruling]:
    dags = {case.question.dag.dag_id, *touched_dags(case.question.plan.actions)}
    for one in maintained(case.policy, dags, case.question.now):
        reason = f"maintenance {one.name!r} ({one.hours})"
        yield Ruling(verdict=one.verdict, name="maintenance window", reason=reason)


Guard = Callable[[_Case], Iterator[Ruling]]
GUARDS: tuple[Guard, ...] = (
    _kill_switch,
    _rejected,
    _own_task,
    _unchanged_retry,
    _rerun_safety,
    _paused,
    _doubt,
    _budgets,
    _breaker,
    _maintenance,
)
