"""The only node that changes anything in Airflow: it applies the plan in hand, or takes it back."""

from __future__ import annotations

from datetime import timedelta

from langgraph.runtime import Runtime

from graph.domain import (
    Decision,
    FixPlan,
    Outcome,
    Remediation,
    Role,
    Status,
    Step,
    TaskSnapshot,
    Verdict,
)
from graph.errors import ActionRefused, AirflowRefused, NotFound, NotYet, OnHold, StalePlan, UndoBlocked
from graph.state import HealState
from nodes.choosing import ask_policy, choose, failed_members
from nodes.deps import Deps
from nodes.holding import check_held, held, wait_until_allowed
from nodes.human import moved_between
from nodes.probing import not_back
from nodes.waiting import wait_for
from nodes.waves import release
from tools.carry_out import Guard, carry_out, undo_attempt
from tools.gathering import accepted_by_hand, settled_run
from tools.ledger import WRITTEN
from tools.missed import as_now, is_schedule
from tools.policy import paused_since, touched_dags

LOOK_AGAIN = timedelta(seconds=5)  # at an action that Airflow still works on


async def fix(state: HealState, runtime: Runtime[Deps]) -> HealState:
    """Apply the plan when its time has come and policy still allows it; undo it when told to."""
    deps = runtime.context
    if state.get("release"):
        return await release(state, deps)
    if state.get("undo"):
        return await _undo(state, deps)
    plan, due = state.get("plan"), state.get("due")
    if plan is None:
        return {"applied": False}
    if due is not None and due > (latest := deps.clock() + timedelta(seconds=plan.wait)):
        return {"applied": False, "due": latest}  # the clock was put back since
    if due is not None and deps.clock() < due:
        wait_for(Status.WAITING_TIMER, until=due)
        return {"applied": False}
    try:
        return await _apply(plan, state, deps)
    except NotFound as exc:
        # Read before anything was written: somebody deleted the DAG, or the run, since.
        return {"applied": False, "plan": None, "asked": False, "stale": str(exc) or "what failed is gone"}


async def _apply(plan: FixPlan, state: HealState, deps: Deps) -> HealState:
    began_at = deps.clock()
    attempt = state.get("attempt", 0) + 1
    started = await deps.ledger.entries(attempt=attempt)
    if not started:
        if instead := await _instead(plan, state, deps):
            return instead
        if state["failure"].state == "failed" and deps.catalogue.reruns(plan):
            await settled_run(deps.airflow, state["failure"].task, deps.sleep)
            began_at = deps.clock()  # waiting for Airflow is not our time
            if accepted := await accepted_by_hand(deps.airflow, state["failure"].task):
                return {"plan": None, "asked": False, "applied": False, "stale": accepted}
    failure = state["failure"]
    try:
        await carry_out(
            plan,
            attempt=attempt,
            airflow=deps.airflow,
            ledger=deps.ledger,
            catalogue=deps.catalogue,
            guard=_guard(failure, deps, begun=_dags(plan, state) if started else None),
            sleep=deps.sleep,
        )
    except OnHold as exc:
        wait_until_allowed(deps, str(exc))
        return {"applied": False}
    except NotYet as exc:
        if await _too_long(attempt, deps):
            told = f"{exc}, and has not ended within {deps.limits.outcome_timeout}"
            return {"attempt": attempt, "undo": True, "stale": told, "reason": told}
        # What was written is in the ledger; the resumed node goes on behind it.
        wait_for(Status.WAITING_TIMER, until=deps.clock() + LOOK_AGAIN)
        return {"applied": False}
    except (StalePlan, AirflowRefused, ActionRefused) as exc:
        # Part of the plan may stand already: take it back before anything else.
        return {"attempt": attempt, "undo": True, "stale": str(exc) or type(exc).__name__}
    return {
        "attempt": attempt,
        "applied": True,
        "began_at": began_at,
        "applied_at": deps.clock(),
        "watch_until": None,
    }


async def _too_long(attempt: int, deps: Deps) -> bool:
    """Whether Airflow has had all the time there is for what was written last."""
    entries = await deps.ledger.entries(attempt=attempt)
    last = max((entry.sent_at for entry in entries if entry.sent_at is not None), default=None)
    return last is not None and deps.clock() - last > deps.limits.outcome_timeout


async def _instead(plan: FixPlan, state: HealState, deps: Deps) -> HealState | None:
    """What is done in place of a plan that nothing was written of: the world or the policy moved since."""
    if plan.remediation is Remediation.RETRY and (gone := await not_back(state, deps)):
        return gone
    if not state.get("approved_by") and await _grown(plan, state, deps):
        # Nobody was shown the smaller set, so the plan may take in what failed since; its time stays.
        failure, diagnosis = state["failure"], state["diagnosis"]
        chosen = await choose(deps, failure=failure, diagnosis=diagnosis, state=state)
        new = chosen.get("plan")
        if new is None or new.id != plan.id:
            return {**chosen, "due": state.get("due")}
    decision = await _still_allowed(plan, state, deps)
    if decision.shadow or decision.verdict is Verdict.NEVER:
        return _withheld(decision)
    if decision.verdict is Verdict.ASK and not _covered(decision, state):
        return {"decision": decision, "asked": True, "approved_by": ""}
    return None


def _covered(decision: Decision, state: HealState) -> bool:
    """Whether somebody approved who may, by the rule that holds now."""
    role, asked = state.get("approved_role", Role.OPERATOR), state.get("decision")
    if paused_since(decision, () if asked is None else asked.reasons):
        return False
    return bool(state.get("approved_by")) and role.includes(decision.approvers)


async def _grown(plan: FixPlan, state: HealState, deps: Deps) -> bool:
    planned = deps.catalogue.reruns(plan)
    return any(task not in planned for task in await failed_members(deps, state))


def _withheld(decision: Decision) -> HealState:
    if decision.shadow:
        why = "shadow mode was switched on before the fix began; nothing was touched"
    else:
        why = f"withheld by {decision.rule}: {'; '.join(decision.reasons)}"
    return {"decision": decision, "plan": None, "asked": False, "stale": "", "reason": why}


async def _still_allowed(plan: FixPlan, state: HealState, deps: Deps) -> Decision:
    return await ask_policy(
        deps,
        plan,
        diagnosis=state["diagnosis"],
        failure=state["failure"],
        spent=state.get("spent", []),
    )


def _dags(plan: FixPlan | None, state: HealState) -> frozenset[str]:
    """The DAGs that the plan is about."""
    aimed = touched_dags(plan.actions) if plan is not None else frozenset()
    return aimed | {state["failure"].task.dag_id}


def _guard(failure: TaskSnapshot, deps: Deps, *, begun: frozenset[str] | None) -> Guard:
    async def unmoved() -> None:
        """Read the world immediately before a write."""
        if begun is not None:  # else policy has just been asked
            await check_held(deps, begun)
        try:
            now = await as_now(deps.airflow, failure.task)
        except NotFound as exc:
            raise StalePlan("the task instance is gone") from exc
        if is_schedule(failure.task):
            return  # filling the gap is the plan's own first step: an action reads what it needs itself
        if moved := moved_between(failure, now):
            raise StalePlan(moved)

    return unmoved


async def _undo(state: HealState, deps: Deps) -> HealState:
    """Take the attempt back, then look at the failure afresh with this plan spent."""
    plan = state.get("plan")
    if await _stands(state, deps) and (why := await held(deps, _dags(plan, state))):
        wait_until_allowed(deps, why)
        return {}
    spent = [*state.get("spent", []), *([plan.id] if plan is not None else [])]
    cleared: HealState = {
        "undo": False,
        "applied": False,
        "plan": None,
        "asked": False,
        "spent": spent,
        "watch_until": None,
    }
    try:
        await undo_attempt(
            state.get("attempt", 0),
            airflow=deps.airflow,
            ledger=deps.ledger,
            catalogue=deps.catalogue,
            sleep=deps.sleep,
        )
    except (UndoBlocked, AirflowRefused, ActionRefused) as exc:
        return {**cleared, "outcome": Outcome.ESCALATED, "reason": f"the fix could not be taken back: {exc}"}
    if moved := state.get("stale"):
        return {**cleared, "stale": moved}
    try:
        task = await as_now(deps.airflow, state["failure"].task)
    except NotFound as exc:
        return {**cleared, "stale": str(exc) or "what failed is gone"}
    if task.state == "success":
        failed = [check.detail for check in state["verification"].checks if check.ok is False]
        why = f"the task is green and its run or data are not: {'; '.join(failed)}"
        own = "this one ran well, and what is wrong with its run or data is its own"
        await deps.members.let_go(own, node="fix")
        return {**cleared, "outcome": Outcome.ESCALATED, "reason": why}
    taken_back = await _took_back(state, deps)
    told = "the plan did not help" + (" and was taken back" if taken_back else "")
    return {**cleared, "stale": told, "taken_back": taken_back}


async def _stands(state: HealState, deps: Deps) -> bool:
    """Whether there may be something to take back: a plan that only waited and ran again leaves nothing."""
    entries = await deps.ledger.entries(attempt=state.get("attempt", 0))
    kinds = [deps.catalogue.get(entry.action.name) for entry in entries if entry.step in WRITTEN]
    return any(kind.writes and kind.undoable for kind in kinds)


async def _took_back(state: HealState, deps: Deps) -> bool:
    """Whether settings stand again as they stood: a plan that only waited and ran again changed none."""
    entries = await deps.ledger.entries(attempt=state.get("attempt", 0))
    return any(entry.step is Step.UNDONE for entry in entries)
