"""What a plan reaches, in words: the targets that the planner took from Airflow's own records."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import JsonValue

from gradio_ui.markup import Html, el, join
from gradio_ui.wording import plain
from graph.domain import Action, BlastRadius

HIDDEN = frozenset({"base"})  # what stood before: the diff shows it
SHOWN = 12  # targets of one action
NOTHING = frozenset({"wait", "notify"})  # actions that touch nothing in Airflow


COUNTED = {"task_instances": "task instance", "dag_runs": "DAG run", "dags": "DAG", "settings": "setting"}


def touched(actions: Sequence[Action], radius: BlastRadius | None = None) -> Html:
    """The blast radius: one line per action that writes, and the numbers that policy judged by."""
    rows = [
        el("li", el("strong", plain(one.name)), ": ", targets(one.target))
        for one in actions
        if one.name not in NOTHING
    ]
    if not rows:
        return Html("")
    counts = el("p", _counted(radius), cls="am-quiet") if radius is not None and _counted(radius) else None
    return el("div", el("h4", "What it reaches"), el("ul", *rows, cls="am-plain"), counts, cls="am-reach")


def _counted(radius: BlastRadius) -> str:
    found = radius.model_dump()
    parts = [
        f"{found[name]:,} {word}{'' if found[name] == 1 else 's'}"
        for name, word in COUNTED.items()
        if found[name]
    ]
    return f"In all {', '.join(parts)}." if parts else ""


def targets(target: dict[str, JsonValue]) -> Html:
    """A target's names and values; long lists say how many more there are."""
    parts = [
        join([f"{plain(name).lower()} ", el("code", _spelled(value))])
        for name, value in target.items()
        if name not in HIDDEN and value not in (None, [], {}, -1)
    ]
    return join(parts, ", ")


def _spelled(value: JsonValue) -> str:
    if not isinstance(value, list):
        return _one(value)
    more = f" and {len(value) - SHOWN} more" if len(value) > SHOWN else ""
    return ", ".join(map(_one, value[:SHOWN])) + more


def _one(value: JsonValue) -> str:
    if not isinstance(value, dict):
        return str(value)
    name = str(value.get("task_id") or "")
    mapped = value.get("map_index")
    if name:
        return name + (f"[{mapped}]" if isinstance(mapped, int) and mapped >= 0 else "")
    return ", ".join(f"{key} {inner}" for key, inner in value.items())
