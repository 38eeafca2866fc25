"""Which node comes next. Pure functions of the state, named after the node they follow."""

from __future__ import annotations

from typing import Literal

from graph.state import HealState

End = Literal["__end__"]


def ended(state: HealState) -> bool:
    """True once the incident has an outcome."""
    return state.get("outcome") is not None


def after_monitor(state: HealState) -> Literal["monitor", "diagnose"] | End:
    """On to the diagnosis, round again while Airflow works on it, or the end."""
    if ended(state):
        return "__end__"
    return "diagnose" if state.get("intervene") else "monitor"


def after_diagnose(state: HealState) -> Literal["fix", "human"]:
    """A plan that policy allows is applied; everything else goes to a person."""
    decision = state.get("decision")
    if state.get("plan") is None or state.get("asked") or decision is None or decision.shadow:
        return "human"
    return "fix"


def after_human(state: HealState) -> Literal["monitor", "diagnose", "human", "fix"] | End:
    """Approved is applied, a person's words are read as evidence, a moved world is looked at afresh."""
    if ended(state):
        return "__end__"
    if state.get("release"):
        return "human" if state["release"] == "ask" else "fix"
    if state.get("stale"):
        return "monitor"
    if state.get("rethink"):
        return "diagnose"
    return after_diagnose(state)


def after_fix(state: HealState) -> Literal["monitor", "human", "fix", "verify"] | End:
    """Applied is verified; undone or stale is looked at afresh; withheld goes to a person."""
    if ended(state):
        return "__end__"
    if release := state.get("release"):
        return "fix" if release == "send" else "verify"
    if state.get("undo"):
        return "fix"
    if state.get("applied"):
        return "verify"
    if state.get("stale"):
        return "monitor"
    return after_diagnose(state)


def after_verify(state: HealState) -> Literal["monitor", "human", "fix", "verify"] | End:
    """Healed is the end; what did not help is taken back; what was left over is looked at; else waiting.

    Once the incident's own task is well, the others of the same cause follow: in waves, or after a question.
    """
    if ended(state):
        return "__end__"
    match state.get("release"):
        case "send":
            return "fix"
        case "ask":
            return "human"
        case "watch":
            return "verify"
    if state.get("undo"):
        return "fix"
    return "monitor" if state.get("stale") else "verify"
