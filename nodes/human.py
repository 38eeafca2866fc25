"""Waits for a typed decision. Nothing is sent and nothing is changed here."""

from __future__ import annotations

from langgraph.runtime import Runtime

from graph.domain import (
    Answer,
    AnswerKind,
    FixPlan,
    Group,
    Note,
    Outcome,
    Status,
    TaskSnapshot,
    Verdict,
)
from graph.errors import ActionRefused, NotFound
from graph.state import HealState
from nodes.approval import question_for
from nodes.choosing import ask_policy, choose, in_hand
from nodes.deps import Deps
from nodes.group_question import ask_about_members, gather
from nodes.waiting import wait_for
from tools.ledger import WRITTEN
from tools.missed import as_now
from tools.policy import paused_since


async def human(state: HealState, runtime: Runtime[Deps]) -> HealState:
    """Ask about the plan in hand, or hand the incident over when there is none."""
    deps = runtime.context
    plan, decision = state.get("plan"), state.get("decision")
    if state.get("outcome") is not None:
        return {}  # what a person asked for is not allowed: it ended before anybody was asked
    if state.get("release"):
        return await ask_about_members(state, deps)
    if plan is None or decision is None:
        return {"outcome": Outcome.ESCALATED, "reason": state.get("reason") or "no plan that policy allows"}
    if decision.shadow:
        words = "shadow mode: decided and recorded, nothing touched"
        return {"outcome": Outcome.ESCALATED, "reason": f"{words}; the plan was: {plan.summary}"}
    if not state.get("gathered") and await deps.members.correlates():
        return await gather(state, deps)
    group = state.get("group") or Group()
    given = wait_for(
        Status.WAITING_DECISION,
        until=deps.clock() + deps.limits.approval_timeout,
        question=question_for(plan, decision, state["diagnosis"], deps.catalogue, group),
    )
    return await _take(Answer.model_validate(given), plan, state, deps)


async def _take(answer: Answer, plan: FixPlan, state: HealState, deps: Deps) -> HealState:
    """What follows from the answer. Runs after the interrupt only."""
    match answer.kind:
        case AnswerKind.EXPIRED:
            return {"outcome": Outcome.EXPIRED, "reason": "nobody answered in time; nothing was done"}
        case AnswerKind.STALE:
            return {"plan": None, "asked": False, "stale": answer.message or "the world moved"}
        case AnswerKind.RESPOND:
            notes = [*state.get("notes", []), Note(by=answer.by, text=answer.message)]
            return {"notes": notes, "plan": None, "asked": False, "rethink": True}
        case AnswerKind.REJECT:
            return await _next_plan(answer, plan, state, deps)
        case AnswerKind.APPROVE | AnswerKind.EDIT:
            return await _approved(answer, plan, state, deps)


async def _next_plan(answer: Answer, plan: FixPlan, state: HealState, deps: Deps) -> HealState:
    spent = [*state.get("spent", []), plan.id]
    try:
        chosen = await choose(
            deps, failure=state["failure"], diagnosis=state["diagnosis"], state={**state, "spent": spent}
        )
    except NotFound as exc:  # deleted since: whether all of it, monitor finds out
        return {"spent": spent, "plan": None, "asked": False, "stale": str(exc) or "what failed is gone"}
    reason = f"rejected by {answer.by}" + (f": {answer.message}" if answer.message else "")
    return {"spent": spent, "reason": reason, **chosen}


async def _approved(answer: Answer, plan: FixPlan, state: HealState, deps: Deps) -> HealState:
    """Look at the world again at the moment of approval, and at policy again after an edit."""
    begun = await _begun(state, deps)
    if not begun and (moved := await _moved(state["failure"], deps)):
        return {"plan": None, "asked": False, "stale": moved}
    if answer.plan_id and answer.plan_id != plan.id:
        return {"stale": f"the answer was for another plan than {plan.id}", "plan": None, "asked": False}
    if answer.kind is AnswerKind.EDIT:
        try:
            plan = deps.catalogue.with_args(plan, answer.args)
        except ActionRefused as exc:
            return {"reason": f"the edit was refused: {exc}", "asked": True}
    if missing := deps.catalogue.missing(plan):
        return {"reason": f"a person must give {', '.join(missing)} (edit)", "asked": True}
    asked = state.get("decision")
    decision = asked if begun else None
    try:
        decision = decision or await ask_policy(
            deps,
            plan,
            diagnosis=state["diagnosis"],
            failure=state["failure"],
            spent=state.get("spent", []),
        )
    except NotFound as exc:
        return {"plan": None, "asked": False, "stale": str(exc)}
    if decision.verdict is Verdict.NEVER:
        why = f"policy no longer allows it ({decision.rule}): {'; '.join(decision.reasons)}"
        return {"plan": None, "asked": False, "outcome": Outcome.ESCALATED, "reason": why}
    if decision.verdict is Verdict.ASK and not answer.role.includes(decision.approvers):
        # An edit, or the time that passed, brought the plan under another rule.
        why = f"{decision.rule} asks for {decision.approvers.value}; {answer.by} is {answer.role.value}"
        return {**in_hand(deps, plan, decision), "reason": why}
    if paused_since(decision, () if asked is None else asked.reasons):
        return {**in_hand(deps, plan, decision), "reason": "it was paused after the question was put"}
    # The answer covers the members that were shown with the question, and none that came later.
    group = state.get("group") or Group()
    shown = {
        "approved_upto": group.upto,
        "approved_by": answer.by,
        "approved_role": answer.role,
        "told": () if asked is None else asked.reasons,
    }
    return {
        **in_hand(deps, plan, decision),
        "asked": False,
        "approved_by": answer.by,
        "approved_role": answer.role,
        "group": group.model_copy(update=shown),
    }


async def _begun(state: HealState, deps: Deps) -> bool:
    """Whether a process that is gone acted on this answer: what became of it, the ledger and Airflow know."""
    entries = await deps.ledger.entries(attempt=state.get("attempt", 0) + 1)
    return any(entry.step in WRITTEN for entry in entries)


async def _moved(failure: TaskSnapshot, deps: Deps) -> str:
    try:
        now = await as_now(deps.airflow, failure.task)
    except NotFound:
        return "the task instance is gone"
    return moved_between(failure, now)


def moved_between(then: TaskSnapshot, now: TaskSnapshot) -> str:
    """Why a plan made `then` no longer holds `now`; empty when it does."""
    if (now.state, now.try_number) != (then.state, then.try_number):
        return (
            f"the task was {then.state} on try {then.try_number} and is {now.state} on try {now.try_number}"
        )
    if now.dag_version != then.dag_version:
        return f"the DAG went from version {then.dag_version} to {now.dag_version}"
    return ""
