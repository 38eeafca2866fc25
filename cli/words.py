"""The agent log in words, for the terminal."""

from __future__ import annotations

from pydantic import JsonValue

from server.record import AgentEvent

COLOURS = {
    "intake": "cyan",
    "monitor": "blue",
    "diagnose": "magenta",
    "human": "yellow",
    "fix": "green",
    "verify": "green",
}


def line_of(event: AgentEvent) -> list[str]:
    """One event as one or more plain lines."""
    data = event.data if isinstance(event.data, dict) else {}
    match event.name:
        case "opened" | "joined":
            return [f"{event.name} by the {data['door']}: try {data['try_number']} is {data['state']}"]
        case "intervened":
            return [f"severity {data['severity']}: try {data['try_number']} was the last"]
        case "watched":
            return ["Airflow still works on it; watching"]
        case "diagnosed":
            return _diagnosed(data)
        case "decided":
            return _decided(data)
        case "asked":
            return [f"waiting for a person: {data['summary']}"]
        case "approved":
            return [f"approved by {data['by']}"]
        case "fix_applied":
            return [f"applied, attempt {data['attempt']}"]
        case "checked":
            return [_checked(one) for one in _rows(data.get("checks"))]
        case "ended":
            return [f"{data['outcome']}: {data['reason']}"]
        case _:
            words = "; ".join(str(value) for value in data.values() if value not in (None, ""))
            return [f"{event.name.replace('_', ' ')}{': ' if words else ''}{words}"]


def _rows(value: JsonValue) -> list[dict[str, JsonValue]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _diagnosed(data: dict[str, JsonValue]) -> list[str]:
    kind = "transient" if data.get("transient") else "not transient"
    confidence = data.get("confidence")
    sure = f"{confidence:.0%}" if isinstance(confidence, int | float) else "?"
    lines = [f"{data['root_cause']} ({kind}, {sure} sure, by {data['by']}): {data['summary']}"]
    lines += [f"  {one['line']:>5} | {str(one['text'])[:160]}" for one in _rows(data.get("evidence"))]
    checklist = data.get("checklist")
    if isinstance(checklist, list):
        lines += [f"  to do: {one}" for one in checklist]
    return lines


def _decided(data: dict[str, JsonValue]) -> list[str]:
    reasons = data.get("reasons")
    why = "; ".join(str(one) for one in reasons) if isinstance(reasons, list) else ""
    lines = [f"{data['verdict']} by rule {data['rule']!r}: {data['plan']}", f"  because {why}"]
    wait = data.get("wait")
    if isinstance(wait, int | float) and wait > 0:
        lines.append(f"  after waiting {wait:g} s")
    lines += [f"  {one}" for one in str(data.get("diff") or "").splitlines()]
    return lines


def _checked(check: dict[str, JsonValue]) -> str:
    mark = {True: "ok", False: "NOT OK", None: "-"}[check["ok"] if isinstance(check["ok"], bool) else None]
    return f"{check['name']}: {mark}, {check['detail']}"
