"""How a node waits: it suspends the graph, and the runner resumes it. Nothing sits in memory meanwhile."""

from __future__ import annotations

from datetime import datetime

from langgraph.types import interrupt
from pydantic import JsonValue

from graph.domain import Status


def wait_for(
    status: Status,
    *,
    until: datetime | None = None,
    question: dict[str, JsonValue] | None = None,
    note: str = "",
) -> JsonValue:
    """Suspend until something happens or `until` comes; the resumer's words come back.

    LangGraph runs the node again from its first line on resume: call this after reads only.
    """
    value: dict[str, JsonValue] = {"status": status.value}
    if until is not None:
        value["until"] = until.isoformat()
    if note:
        value["note"] = note  # a line for the agent log
    if question is not None:
        value["question"] = question
    answer: JsonValue = interrupt(value)
    return answer
