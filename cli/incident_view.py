"""How an incident reads in the terminal. Text from logs and DAGs is printed inert."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.words import line_of
from server.record import AgentEvent
from server.telling import together
from tools.terminal import inert_line

INDENT = "  "


def print_list(items: list[dict[str, Any]], *, more: bool) -> None:
    """Incidents as a table."""
    console = Console(highlight=False)
    if not items:
        console.print("no incidents")
        return
    table = Table("id", "status", "outcome", "task", "cause", "opened", box=None, pad_edge=False)
    for one in items:
        status = "asks you" if one["asks"] else one["status"]
        row = (one["id"], status, one["outcome"] or "", task_of(one), one["root_cause"] or "")
        table.add_row(*(Text(inert_line(cell)) for cell in row), when(one["opened_at"]))
    console.print(table)
    if more:
        console.print("there are more; --limit shows up to 200")


def task_of(incident: dict[str, Any]) -> str:
    """The task instance in one word."""
    task = incident["task"]
    mapped = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
    return f"{task['dag_id']}.{task['task_id']}{mapped}"


def when(value: str | None) -> str:
    """A time, in UTC, to the second."""
    return "" if value is None else datetime.fromisoformat(value).strftime("%Y-%m-%d %H:%M:%S")


def print_incident(found: dict[str, Any]) -> None:
    """Everything about one incident, in the order in which a person on call asks."""
    console = Console(highlight=False, soft_wrap=True)
    parts = (_headline, _why, _planned, _asked, _written, _checked, _timeline)
    for part in parts:
        lines = list(part(found))
        if lines:
            console.print(Text("\n".join(inert_line(line) for line in lines)))
            console.print()


def print_question(found: dict[str, Any]) -> None:
    """What is asked, with the reasons, before a person answers."""
    console = Console(highlight=False, soft_wrap=True)
    lines = [*_headline(found), *_why(found), *_planned(found), *_asked(found)]
    console.print(Text("\n".join(inert_line(line) for line in lines)))


def _headline(found: dict[str, Any]) -> Iterator[str]:
    outcome = f", {found['outcome']}" if found["outcome"] else ""
    yield f"incident {found['id']} (version {found['version']}): {found['status']}{outcome}"
    yield f"{INDENT}{task_of(found)} in run {found['task']['run_id']}, try {found['try_number']}"
    yield f"{INDENT}failed {when(found['failed_at']) or 'at an unknown time'}, severity {found['severity']}"
    if found.get("group"):
        yield INDENT + together(found["group"])
    if found["reason"]:
        yield f"{INDENT}{found['reason']}"


def _why(found: dict[str, Any]) -> Iterator[str]:
    diagnosis = found["diagnosis"]
    if diagnosis is None:
        return
    again = "may pass by itself" if diagnosis["transient"] else "does not pass by itself"
    yield f"why: {diagnosis['root_cause']} ({diagnosis['confidence']:.0%} by {diagnosis['by']}; {again})"
    if diagnosis["summary"]:
        yield f"{INDENT}{diagnosis['summary']}"
    for line in diagnosis["evidence"]:
        yield f"{INDENT}log line {line['line']}: {line['text']}"
    if (place := diagnosis["location"]) is not None:
        yield f"{INDENT}in {place['file']}, line {place['line']}"
    for one in diagnosis["ruled_out"]:
        yield f"{INDENT}not {one['root_cause']}: {one['why']}"


def _planned(found: dict[str, Any]) -> Iterator[str]:
    if (plan := found["plan"]) is not None:
        yield f"plan: {plan['summary']} [{plan['remediation']}]"
        yield from (INDENT + line for line in plan["diff"].splitlines())
    if (decision := found["decision"]) is not None:
        shadow = ", shadow: nothing is touched" if decision["shadow"] else ""
        yield f"policy: {decision['verdict']} by rule {decision['rule']}{shadow}"
        yield from (f"{INDENT}{reason}" for reason in decision["reasons"])
    if found["checklist"]:
        yield "look at:"
        yield from (f"{INDENT}- {item}" for item in found["checklist"])


def _asked(found: dict[str, Any]) -> Iterator[str]:
    if not found["asks"] or found["question"] is None:
        return
    until = f" until {when(found['expires_at'])}" if found["expires_at"] else ""
    yield f"asks for a decision{until}: {found['question'].get('summary', '')}".rstrip()
    for request in found["question"]["action_requests"]:
        args = ", ".join(f"{name}={value!r}" for name, value in request["args"].items())
        yield f"{INDENT}{request['name']}({args}): {request.get('description', '')}"


def _written(found: dict[str, Any]) -> Iterator[str]:
    if found["ledger"]:
        yield "writes to Airflow:"
    for entry in found["ledger"]:
        error = f": {entry['error']}" if entry["error"] else ""
        place, name = f"{entry['attempt']}.{entry['position']}", entry["action"]["name"]
        yield f"{INDENT}{place} {name}, {entry['step']} {when(entry['at'])}{error}"


def _checked(found: dict[str, Any]) -> Iterator[str]:
    if (verification := found["verification"]) is None:
        return
    yield f"verified: {verification['outcome'] or 'not known yet'}"
    marks = {True: "ok", False: "no", None: "--"}
    for check in verification["checks"]:
        yield f"{INDENT}{marks[check['ok']]} {check['name']}: {check['detail']}"


def _timeline(found: dict[str, Any]) -> Iterator[str]:
    if found["events"]:
        yield "timeline:"
    for given in found["events"]:
        event = AgentEvent.model_validate(given)
        first, *rest = line_of(event) or [event.name]
        yield f"{INDENT}{event.at:%H:%M:%S} {event.node or '-':<9}{first}"
        yield from (f"{INDENT}{'':18}{line}" for line in rest)
