"""One question about all members that policy wants a person for; and time for them to come in before any."""

from __future__ import annotations

from pydantic import JsonValue

from graph.domain import Answer, AnswerKind, Group, Part, Status
from graph.state import HealState
from nodes.deps import Deps
from nodes.following import shown
from nodes.waiting import wait_for

ALLOWED: list[JsonValue] = ["approve", "reject"]


def in_words(group: Group) -> str:
    """How many stand behind the incident's own task instance."""
    return f"{group.members + 1:,} task instances in {group.dags:,} DAGs"


def set_of(group: Group) -> dict[str, JsonValue]:
    """The set that a decision binds: what came up to this failure, and no later one."""
    return {
        "task_instances": group.members + 1,
        "dags": group.dags,
        "safe": group.safe,
        "upto": group.upto,
    }


async def gather(state: HealState, deps: Deps) -> HealState:
    """Wait until no more come in, for a moment at most: people are asked once, about all of them."""
    counts = await deps.members.counts()
    group = state.get("group") or Group()
    opened, now = state["incident"].opened_at, deps.clock()
    grown = counts.upto > group.upto
    last = now if grown or group.due is None else group.due
    until = min(last + deps.pace.gather, opened + deps.pace.gather_most)
    if now < until:
        seen = group.model_copy(update={"upto": counts.upto, "due": last})
        if grown or group.due is None:
            return {"group": seen}
        wait_for(Status.WAITING_TIMER, until=until, note="waiting for others of the same cause")
        return {"group": seen}
    settled = await shown(group.model_copy(update={"due": None}), deps)
    return {"gathered": True, "group": settled}


async def ask_about_members(state: HealState, deps: Deps) -> HealState:
    """Put the one question, and do as it was answered."""
    group = state["group"]
    given = wait_for(
        Status.WAITING_DECISION,
        until=deps.clock() + deps.limits.approval_timeout,
        question=_question(group, state),
    )
    answer = Answer.model_validate(given)
    if answer.kind is AnswerKind.STALE:
        return {"release": "ask", "reason": answer.message}
    if answer.kind is AnswerKind.APPROVE and not answer.role.includes(group.approvers):
        words = f"policy asks for {group.approvers.value}; {answer.by} is {answer.role.value}"
        return {"reason": words, "release": "ask"}
    if answer.kind is AnswerKind.APPROVE:
        deps.members.move(Part.ASK, Part.WAITING, upto=group.upto)
        approved = {"approved_upto": group.upto, "approved_by": answer.by, "approved_role": answer.role}
        told = tuple(dict.fromkeys([*group.told, *group.reasons]))
        cleared = {"reasons": (), "due": None, "size": 0, "told": told}
        return {"release": "send", "group": group.model_copy(update=approved | cleared)}
    words = f"declined by {answer.by}" + (f": {answer.message}" if answer.message else "")
    if answer.kind is AnswerKind.EXPIRED:
        words = "nobody answered in time"
    deps.members.move(Part.ASK, Part.DECLINED, upto=group.upto, reason=words)
    return {"release": "watch", "reason": words, "group": group.model_copy(update={"reasons": (), "size": 0})}


def _question(group: Group, state: HealState) -> dict[str, JsonValue]:
    asked = group.asked
    summary = f"clear {asked:,} more task instances that failed of the same cause, in waves"
    told = "the incident's own task is well again; these are not known to be safe to run again"
    return {
        "action_requests": [{"name": "clear_task", "args": {}, "description": summary}],
        "review_configs": [
            {"action_name": "clear_task", "allowed_decisions": ALLOWED, "args_schema": {"type": "object"}}
        ],
        "plan_id": plan.id if (plan := state.get("plan")) is not None else "",
        "summary": f"{summary} ({told})",
        "diff": "",
        "root_cause": state["diagnosis"].root_cause.value,
        "why": list(group.reasons),
        "rule": "members",
        "approvers": group.approvers.value,
        "radius": {"task_instances": asked, "dag_runs": 0, "dags": group.dags, "settings": 0},
        "members": {**set_of(group), "asked": asked},
    }
