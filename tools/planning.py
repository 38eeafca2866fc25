"""From a named cause to concrete plans on this failure's targets, best first. Pure.

A cause opens only its own families of fixes, whatever a model or a knowledge file proposes. Values from a
log lengthen waits and fill sentences; every target comes from the situation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from pydantic import JsonValue

from graph.domain import (
    Action,
    Diagnosis,
    DomainType,
    FixPlan,
    Remediation,
    RootCause,
    TaskRef,
    digest,
)
from tools import contracts
from tools.actions.settings import SECRET_NAME, text_diff
from tools.checklists import checklist
from tools.contracts import Edit, EditKind
from tools.missed import fill
from tools.situation import Situation

RETRIES = 3  # plans of one incident that only wait and run again
LONGEST_WAIT = 86_400.0  # seconds
MARGIN = 1.0  # seconds after what the remote side asked for
CANARY_FROM = 10  # failed map indexes: from here on one goes first, to see whether it helps
OFTEN = 4  # runs in a row that fail by rate limit: the DAG itself is the trouble
SKIP_TAG = "airmedic:skippable"

# Seconds before the first retry. What is not here waits a minute.
FIRST_WAIT: Mapping[RootCause, float] = MappingProxyType(
    {
        RootCause.NETWORK_UNREACHABLE: 20,
        RootCause.UPSTREAM_UNAVAILABLE: 15,
        RootCause.RATE_LIMITED: 30,
        RootCause.LOCK_CONTENTION: 5,
        RootCause.TIMEOUT: 5,
        RootCause.WORKER_LOST: 0,
        RootCause.CAPACITY_UNAVAILABLE: 60,
    }
)
OTHER_WAIT = 60.0
SECOND_WAIT = 10.0  # seconds, where the first retry is immediate
JITTER = 5.0  # seconds over which writers that met at a lock are spread

FAMILIES: Mapping[RootCause, tuple[Remediation, ...]] = MappingProxyType(
    {
        RootCause.NETWORK_UNREACHABLE: (Remediation.RETRY, Remediation.UPDATE_CONFIGURATION),
        RootCause.UPSTREAM_UNAVAILABLE: (Remediation.RETRY,),
        RootCause.RATE_LIMITED: (Remediation.RETRY,),
        RootCause.LOCK_CONTENTION: (Remediation.RETRY,),
        RootCause.WORKER_LOST: (Remediation.RETRY,),
        RootCause.TIMEOUT: (Remediation.RETRY, Remediation.RAISE_LIMIT),
        RootCause.PLATFORM_ERROR: (Remediation.RETRY,),
        RootCause.EXTERNAL_JOB_FAILED: (Remediation.RETRY,),
        RootCause.CAPACITY_UNAVAILABLE: (Remediation.RAISE_LIMIT, Remediation.RETRY),
        RootCause.OUT_OF_MEMORY: (Remediation.RAISE_LIMIT,),
        RootCause.SCHEMA_DRIFT: (Remediation.ADAPT_SCHEMA,),
        RootCause.TYPE_MISMATCH: (Remediation.ADAPT_SCHEMA,),
        RootCause.CONSTRAINT_VIOLATION: (Remediation.QUARANTINE_DATA,),
        RootCause.MISSING_DATA: (Remediation.RERUN_UPSTREAM,),
        RootCause.MISSING_CONFIGURATION: (Remediation.UPDATE_CONFIGURATION,),
        RootCause.AUTHENTICATION_FAILED: (Remediation.RENEW_CREDENTIALS,),
    }
)


class Planned(DomainType):
    """Plans, best first, and what a person should look at when none of them will do."""

    plans: tuple[FixPlan, ...] = ()
    checklist: tuple[str, ...] = ()


class Proposal(DomainType):
    """What one family has to offer, and what it left open."""

    plans: tuple[FixPlan, ...] = ()
    open: tuple[str, ...] = ()


def plan(diagnosis: Diagnosis, situation: Situation) -> Planned:
    """Every sensible plan for this failure."""
    proposals = [OFFERS[family](diagnosis, situation) for family in _families(diagnosis)]
    plans = [one for proposal in proposals for one in proposal.plans]
    plans = [*_pause(diagnosis, situation), *plans, *_skip(diagnosis, situation)]
    still_open = tuple(words for proposal in proposals for words in proposal.open)
    return Planned(plans=tuple(plans), checklist=(*still_open, *checklist(diagnosis, situation)))


def _families(diagnosis: Diagnosis) -> list[Remediation]:
    """Those the cause allows: first in the diagnosis' order, then in the cause's own."""
    allowed = FAMILIES.get(diagnosis.root_cause, ())
    wished = [one for one in (diagnosis.remediation, *diagnosis.alternatives) if one in allowed]
    return list(dict.fromkeys([*wished, *allowed]))


# --- run it again -----------------------------------------------------------------------------------------


def _retry(diagnosis: Diagnosis, situation: Situation) -> Proposal:
    cause, attempts = diagnosis.root_cause, situation.attempts
    if not situation.task.final or (situation.pool is not None and situation.pool.slots == 0):
        return Proposal()  # it has not had its turn yet, or would get none: running it again changes nothing
    if cause is RootCause.EXTERNAL_JOB_FAILED and not diagnosis.transient:
        once = _retry_plan(situation, 0.0, "run it once more, for the log does not say why the job failed")
        return Proposal(plans=(once,) if attempts == 0 else ())
    if not diagnosis.transient:
        return Proposal()
    # A second timeout says that the limit is too short for the work, not that the moment was bad.
    most = 1 if cause is RootCause.TIMEOUT else RETRIES
    if attempts >= most:
        return Proposal(open=(f"{attempts} attempts did not help, so another retry is not proposed",))
    seconds = wait_before(diagnosis, situation)
    if seconds > LONGEST_WAIT:
        told = f"the wait would be {seconds:g} s, which is more than a day"
        return Proposal(open=(told,))
    return Proposal(plans=(_retry_plan(situation, seconds, f"run it again, as {cause} passes by itself"),))


def wait_before(diagnosis: Diagnosis, situation: Situation) -> float:
    """Seconds before the retry: doubled by each attempt, never less than the remote side asked for.

    What knowledge says of the very error comes before what the cause usually needs.
    """
    hint = diagnosis.facts.wait
    first = hint if hint is not None and hint >= 0 else FIRST_WAIT.get(diagnosis.root_cause, OTHER_WAIT)
    if first == 0 and situation.attempts:
        first = SECOND_WAIT / 2
    seconds = first * 2.0**situation.attempts
    if diagnosis.root_cause is RootCause.LOCK_CONTENTION:
        seconds += _spread(situation)
    asked = diagnosis.facts.retry_after
    return max(seconds, asked + MARGIN) if asked is not None and asked > 0 else seconds


def _spread(situation: Situation) -> float:
    """The same for the same failure, so that the plan keeps its id; different for those that met."""
    key = digest([situation.task.task.model_dump(), situation.task.try_number])
    return round(int(key[:4], 16) / 0xFFFF * JITTER, 1)


def _retry_plan(situation: Situation, seconds: float, why: str) -> FixPlan:
    wait = [Action(name="wait", args={"seconds": seconds})] if seconds else []
    told = f"after {seconds:g} s, " if seconds else ""
    return FixPlan(
        remediation=Remediation.RETRY,
        actions=(*wait, *_in_two_steps(situation)),
        summary=f"{told}clear {_named(situation)}: {why}",
    )


def _in_two_steps(situation: Situation) -> tuple[Action, ...]:
    """A large batch sends one index ahead; the rest follows only when that one succeeded."""
    own = situation.task.task
    if len(situation.batch) < CANARY_FROM:
        return (clear(situation),)
    # Not the incident's own index: its state is what tells us that nobody else is at work.
    canary = next(ref for ref in situation.batch if ref != own)
    rest = tuple(ref for ref in situation.batch if ref != canary)
    ahead = Action(name="clear_task", target=_target([canary]), args={"downstream": False})
    return ahead, Action(name="clear_task", target=_target(rest), args={"downstream": True})


def clear(situation: Situation) -> Action:
    """Clear exactly what failed of this task in this run, and what that holds back."""
    refs = situation.batch or (situation.task.task,)
    return Action(name="clear_task", target=_target(refs), args={"downstream": True})


def _target(refs: Sequence[TaskRef]) -> dict[str, JsonValue]:
    tasks: list[JsonValue] = [{"task_id": one.task_id, "map_index": one.map_index} for one in refs]
    return {"dag_id": refs[0].dag_id, "run_id": refs[0].run_id, "tasks": tasks}


def _named(situation: Situation) -> str:
    many = len(situation.batch)
    name = situation.task.task.task_id
    return f"{many} failed instances of {name!r}" if many > 1 else repr(name)


def _renew(diagnosis: Diagnosis, situation: Situation) -> Proposal:
    if situation.attempts:
        return Proposal(open=("the task was refused again after the credentials were said to be renewed",))
    summary = f"once you have renewed the credentials: clear {_named(situation)}"
    made = FixPlan(remediation=Remediation.RENEW_CREDENTIALS, actions=(clear(situation),), summary=summary)
    return Proposal(plans=(made,))


# --- the contract -----------------------------------------------------------------------------------------


def _fit_contract(diagnosis: Diagnosis, situation: Situation) -> Proposal:
    contract, report = situation.contract, situation.report
    if contract is None:
        return Proposal(open=("the DAG names no contract that could be edited (tag airmedic:contract=…)",))
    if report is None or not report.problems:
        return Proposal(open=("the pipeline does not report what is wrong with its data (airmedic_report)",))
    return _edited(situation, contracts.fit(contract.value, report))


def _edited(situation: Situation, edit: Edit, remediation: Remediation | None = None) -> Proposal:
    """The plan that stores an edited contract and runs the task again."""
    contract = situation.contract
    if contract is None or not edit.solved:
        return Proposal(open=edit.open)
    kinds = contracts.edit_kinds(contract.value, edit.text)
    rows_only = kinds <= {EditKind.SET_ASIDE, EditKind.KEEP_FIRST}
    family = remediation or (Remediation.QUARANTINE_DATA if rows_only else Remediation.ADAPT_SCHEMA)
    store = Action(
        name="set_variable",
        target={"key": contract.key, "base": contract.value},
        args={"value": edit.text},
    )
    made = FixPlan(
        remediation=family,
        actions=(store, clear(situation)),
        summary=f"edit {contract.key}: {'; '.join(edit.words)}; then clear {_named(situation)}",
        diff=text_diff(contract.key, contract.value, edit.text),
    )
    return Proposal(plans=(made,))


def _raise_limit(diagnosis: Diagnosis, situation: Situation) -> Proposal:
    cause, contract = diagnosis.root_cause, situation.contract
    if cause is RootCause.CAPACITY_UNAVAILABLE:
        return _more_slots(situation)
    if contract is None:
        return Proposal(open=("no contract holds a limit of this task that could be raised",))
    if cause is RootCause.OUT_OF_MEMORY:
        edit = contracts.smaller_batch(contract.value)
    else:
        edit = contracts.longer_timeout(contract.value, situation.task.task.task_id)
    return _edited(situation, edit, Remediation.RAISE_LIMIT)


def _more_slots(situation: Situation) -> Proposal:
    pool = situation.pool
    if pool is None or pool.slots != 0:
        return Proposal()
    slots: dict[str, JsonValue] = {"slots": 1}
    grow = Action(name="set_pool_slots", target={"pool": pool.name, "base": pool.slots}, args=slots)
    # A task that still waits for its slot starts by itself; one that gave up is cleared.
    again = [clear(situation)] if situation.task.state == "failed" else []
    summary = f"pool {pool.name!r} has no slots: give it 1 (or as many as you choose)"
    made = FixPlan(remediation=Remediation.RAISE_LIMIT, actions=(grow, *again), summary=summary)
    return Proposal(plans=(made,))


# --- settings ---------------------------------------------------------------------------------------------


def _configure(diagnosis: Diagnosis, situation: Situation) -> Proposal:
    plans = [*_moved_connection(situation), *_absent_variable(situation)]
    return Proposal(plans=tuple(plans))


def _moved_connection(situation: Situation) -> list[FixPlan]:
    if situation.moved is None:
        return []
    now, good = situation.moved.now, situation.moved.last_good
    base: dict[str, JsonValue] = {
        "host": now.host,
        "port": now.port,
        "schema": now.schema_name,
        "login": now.login,
    }
    past = {"host": good.host, "port": good.port, "schema": good.schema_name, "login": good.login}
    fields: dict[str, JsonValue] = {name: value for name, value in past.items() if value != base[name]}
    patch = Action(name="patch_connection", target={"conn_id": now.conn_id, "base": base}, args=fields)
    told = ", ".join(f"{name} {base[name]!r} → {value!r}" for name, value in fields.items())
    return [
        FixPlan(
            remediation=Remediation.UPDATE_CONFIGURATION,
            actions=(patch, clear(situation)),
            summary=f"restore Connection {now.conn_id!r} as of its last good run: {told}",
            diff=text_diff(now.conn_id, contracts.spell(base), contracts.spell({**base, **fields})),
        )
    ]


def _absent_variable(situation: Situation) -> list[FixPlan]:
    key = situation.absent_variable
    if key is None or SECRET_NAME.search(key):
        return []
    create = Action(name="set_variable", target={"key": key, "base": None})
    return [
        FixPlan(
            remediation=Remediation.UPDATE_CONFIGURATION,
            actions=(create, clear(situation)),
            summary=f"create Variable {key!r} with the value you give, then clear {_named(situation)}",
        )
    ]


# --- inputs, pausing, skipping ----------------------------------------------------------------------------


def _rerun_upstream(diagnosis: Diagnosis, situation: Situation) -> Proposal:
    if situation.gap is not None:
        made, why_not = fill(situation.gap)
        return Proposal(plans=(made,) if made else (), open=(why_not,) if why_not else ())
    if situation.attempts or situation.made_nothing:
        return Proposal()
    return Proposal(plans=(*_from_producer(situation), *_from_this_run(situation)))


def _from_producer(situation: Situation) -> list[FixPlan]:
    producer = situation.producer
    if producer is None:
        return []
    dag_id, plans = producer.dag.dag_id, []
    if producer.run is not None and producer.tasks:
        again = Action(name="rerun_upstream", target=_target(producer.tasks), args={"downstream": False})
        summary = f"run {dag_id!r} again ({producer.run.run_id}), which makes the missing input"
        plans.append(_input_plan(again, situation, summary))
    target: dict[str, JsonValue] = {"dag_id": dag_id, "on_behalf": str(situation.task.task)}
    start = Action(name="trigger_dag", target=target)
    plans.append(_input_plan(start, situation, f"start a run of {dag_id!r}, which makes the missing input"))
    return plans


def _input_plan(make: Action, situation: Situation, summary: str) -> FixPlan:
    return FixPlan(
        remediation=Remediation.RERUN_UPSTREAM,
        actions=(make, clear(situation)),
        summary=f"{summary}; then clear {_named(situation)}",
    )


def _from_this_run(situation: Situation) -> list[FixPlan]:
    """The upstream tasks of this run, which all succeeded and whose product is gone."""
    ref = situation.task.task
    done = [one.task_id for one in situation.upstream if one.state == "success"]
    if situation.producer is not None or not done or len(done) < len(situation.upstream):
        return []
    refs = [TaskRef(dag_id=ref.dag_id, run_id=ref.run_id, task_id=name) for name in sorted(done)]
    again = Action(name="rerun_upstream", target=_target(refs), args={"downstream": True})
    summary = f"run {', '.join(sorted(done))} of this run again, and what comes after"
    return [FixPlan(remediation=Remediation.RERUN_UPSTREAM, actions=(again,), summary=summary)]


def _pause(diagnosis: Diagnosis, situation: Situation) -> list[FixPlan]:
    if situation.failed_in_a_row < OFTEN or diagnosis.root_cause is not RootCause.RATE_LIMITED:
        return []
    dag_id, count = situation.dag.dag_id, situation.failed_in_a_row
    pause = Action(name="pause_dag", target={"dag_id": dag_id})
    summary = f"pause {dag_id!r}: {count} runs in a row were turned away; a person unpauses it"
    return [FixPlan(remediation=Remediation.ESCALATE, actions=(pause,), summary=summary)]


def _skip(diagnosis: Diagnosis, situation: Situation) -> list[FixPlan]:
    """Only a task whose DAG says that it may be left out, and only when it will not come by itself."""
    ref = situation.task.task
    allowed = {SKIP_TAG, f"{SKIP_TAG}={ref.task_id}"} & set(situation.dag.tags)
    if not allowed or situation.gap is not None or (diagnosis.transient and situation.attempts == 0):
        return []
    target: dict[str, JsonValue] = dict(ref.model_dump())
    mark = Action(name="mark_task", target=target, args={"state": "skipped"})
    summary = f"leave {ref.task_id!r} out of this run: its part of the data will be missing"
    return [FixPlan(remediation=Remediation.ESCALATE, actions=(mark,), summary=summary)]


Offer = Callable[[Diagnosis, Situation], Proposal]
OFFERS: Mapping[Remediation, Offer] = MappingProxyType(
    {
        Remediation.RETRY: _retry,
        Remediation.RENEW_CREDENTIALS: _renew,
        Remediation.ADAPT_SCHEMA: _fit_contract,
        Remediation.QUARANTINE_DATA: _fit_contract,
        Remediation.RAISE_LIMIT: _raise_limit,
        Remediation.UPDATE_CONFIGURATION: _configure,
        Remediation.RERUN_UPSTREAM: _rerun_upstream,
    }
)
