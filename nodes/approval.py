"""The question put to a person, in LangChain's human-in-the-loop form, with what else a console shows."""

from __future__ import annotations

from pydantic import JsonValue

from graph.domain import Decision, Diagnosis, FixPlan, Group
from nodes.group_question import in_words, set_of
from tools.actions import ActionCatalogue

ALLOWED: list[JsonValue] = ["approve", "edit", "reject", "respond"]


def question_for(
    plan: FixPlan,
    decision: Decision,
    diagnosis: Diagnosis,
    catalogue: ActionCatalogue,
    group: Group | None = None,
) -> dict[str, JsonValue]:
    """`action_requests` and `review_configs` as LangChain emits them; targets are not in `args`."""
    requests: list[JsonValue] = []
    reviews: list[JsonValue] = []
    for action in plan.actions:
        requests.append({"name": action.name, "args": action.args, "description": catalogue.describe(action)})
        reviews.append(
            {
                "action_name": action.name,
                "allowed_decisions": ALLOWED,
                "args_schema": catalogue.args_schema(action.name),
            }
        )
    group = group or Group()
    others = (
        f"; {in_words(group)} failed of this cause, and the others follow in waves" if group.members else ""
    )
    members: dict[str, JsonValue] = {"members": set_of(group)} if group.members else {}
    return {
        "action_requests": requests,
        "review_configs": reviews,
        "plan_id": plan.id,
        "summary": plan.summary + others,
        "diff": plan.diff,
        "root_cause": diagnosis.root_cause.value,
        "why": list(decision.reasons),
        "rule": decision.rule,
        "approvers": decision.approvers.value,
        "radius": None if decision.radius is None else decision.radius.model_dump(mode="json"),
        **members,
    }
