"""Which plan comes next: the first one that is not spent and that policy does not forbid."""

from __future__ import annotations

from datetime import timedelta

from graph.domain import (
    STARTED_STATES,
    DagInfo,
    Decision,
    Diagnosis,
    FixPlan,
    IncidentKind,
    Outcome,
    TaskRef,
    TaskSnapshot,
    Verdict,
)
from graph.errors import NotFound
from graph.state import HealState
from nodes.deps import Deps
from tools.missed import look_at
from tools.planning import Planned
from tools.planning import plan as make_plans
from tools.policy import Question, decide
from tools.requested import as_asked, confirmed_first
from tools.situation import Situation, gather_situation, reconsider


async def choose(deps: Deps, *, failure: TaskSnapshot, diagnosis: Diagnosis, state: HealState) -> HealState:
    """Plans for this diagnosis, the next one in hand with policy's word on it; or none, and a checklist."""
    spent = state.get("spent", [])
    situation = await _situation(deps, failure, diagnosis, state)
    diagnosis = reconsider(diagnosis, situation)
    request = await deps.requests.of(state["incident"].id)
    asked = [] if request is None else as_asked(request, situation, now=deps.clock())
    alone = state["incident"].kind is IncidentKind.REQUEST
    planned = Planned() if alone else make_plans(diagnosis, situation)
    refused: list[str] = []
    impossible = ""
    for plan in (*asked, *planned.plans):
        if plan.id in spent or (failure.state in STARTED_STATES and deps.catalogue.reruns(plan)):
            continue  # what still runs is a person's to end
        try:
            decision = await ask_policy(deps, plan, diagnosis=diagnosis, failure=failure, spent=spent)
        except NotFound as exc:
            impossible = f"{plan.summary}: not possible ({exc})"
            refused.append(impossible)
            continue
        if decision.verdict is Verdict.NEVER:
            refused.append(f"{plan.summary}: not allowed ({decision.rule}: {'; '.join(decision.reasons)})")
            continue
        if request is not None and request.confirm and plan.request == request.id:
            decision = confirmed_first(decision)
        return {**in_hand(deps, plan, decision), "diagnosis": diagnosis}
    if alone:
        # What was begun, a pause that is to end, is a person's when it may not be ended.
        left = bool(refused) and state.get("attempt", 0) > 0
        outcome = Outcome.ESCALATED if left else Outcome.DISMISSED
        over: HealState = {"plan": None, "decision": None, "asked": False, "outcome": outcome}
        return {**over, "reason": "; ".join(refused)} if refused else over
    found: HealState = {
        "plan": None,
        "decision": None,
        "asked": False,
        "checklist": [*planned.checklist, *refused],
        "diagnosis": diagnosis,
    }
    if not impossible:
        return found
    await deps.members.let_go("this one cannot be run again, and why is its own", node="diagnose")
    return {**found, "reason": impossible}


async def failed_members(deps: Deps, state: HealState) -> list[TaskRef]:
    """The incident's map indexes that stand failed now; empty when it holds one task instance only."""
    members = await deps.records.members(state["incident"].id)
    if len(members) < 2:
        return []
    ref = state["failure"].task
    every = await deps.airflow.run_tasks(ref.dag_id, ref.run_id)
    return [one.task for one in every if one.task in members and one.state == "failed"]


async def _situation(deps: Deps, failure: TaskSnapshot, diagnosis: Diagnosis, state: HealState) -> Situation:
    if state["incident"].kind is IncidentKind.IMPORT_ERROR:
        return Situation(task=failure, dag=DagInfo(dag_id=failure.task.dag_id, fileloc=failure.task.task_id))
    ref = failure.task
    if state["incident"].kind is IncidentKind.MISSED_SCHEDULE:
        gap = await look_at(deps.airflow, ref)
        return Situation(task=failure, dag=gap.dag, attempts=state.get("attempt", 0), gap=gap)
    return await gather_situation(
        deps.airflow,
        failure,
        diagnosis,
        attempts=state.get("attempt", 0),
        others=await failed_members(deps, state),
        last_good=await deps.records.last_good(ref.dag_id),
    )


def in_hand(deps: Deps, plan: FixPlan, decision: Decision) -> HealState:
    """The state with this plan as the one to apply or to ask about."""
    due = deps.clock() + timedelta(seconds=plan.wait)
    return {
        "plan": plan,
        "decision": decision,
        "asked": decision.verdict is Verdict.ASK,
        "approved_by": "",
        "due": due,
        "applied": False,
        "stale": "",
        "checklist": [],
    }


async def ask_policy(
    deps: Deps,
    plan: FixPlan,
    *,
    diagnosis: Diagnosis,
    failure: TaskSnapshot,
    spent: list[str],
    members: tuple[TaskRef, ...] = (),
) -> Decision:
    """Policy's word on one plan, from Airflow's own dry run and what the records count."""
    control = await deps.records.control()
    preview = await deps.catalogue.preview(deps.airflow, plan)
    dag = await deps.airflow.dag(failure.task.dag_id)
    if dag.is_stale and deps.catalogue.reruns(plan):
        raise NotFound(f"the file of DAG {dag.dag_id!r} is gone or does not load: nothing of it runs")
    question = Question(
        diagnosis=diagnosis,
        plan=plan,
        task=failure,
        members=members,
        dag=dag,
        radius=preview.radius,
        reruns=preview.reruns,
        counters=await deps.records.counters(failure.task),
        rejected=tuple(spent),
        environment=deps.environment,
        now=deps.clock(),
        paused=control.paused,
        shadow=control.shadow,
    )
    return decide(question, deps.policy, deps.catalogue)
