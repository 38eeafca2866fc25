"""The agent log in words: what Airmedic saw, thought and did, one line each."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import JsonValue

from gradio_ui.markup import Html, el, empty, join, moment
from gradio_ui.wording import duration, plain
from server.schemas import AgentEventOut

Data = dict[str, JsonValue]

# What a line says about its event; what is not named here is spelled from its values.
TITLES = {
    "opened": "Incident opened",
    "joined": "Another report of the same failure",
    "intervened": "Airflow will not retry: this is for Airmedic",
    "watched": "Airflow still retries; watching",
    "recovered": "It recovered",
    "dismissed": "Nothing to do",
    "diagnosed": "Cause named",
    "decided": "Policy decided",
    "asked": "A person is asked",
    "answered": "A person answered",
    "approved": "Approved",
    "fix_applied": "Fix applied",
    "fix_stopped": "Fix stopped half way",
    "fix_undone": "Fix taken back",
    "checked": "Checked the result",
    "withdrawn": "Question withdrawn",
    "noted": "Noted",
    "ended": "Ended",
    "closed": "Closed by a person",
    "step_failed": "A step failed",
}

VERDICTS = {"auto": "to be done without asking", "ask": "a person is asked", "never": "not allowed"}


def sentence(event: AgentEventOut) -> str:
    """One event as one line; every value in it is data, not markup."""
    data = event.data if isinstance(event.data, dict) else {}
    match event.name:
        case "opened" | "joined":
            return f"try {data.get('try_number')} is {data.get('state')}; reported by the {data.get('door')}"
        case "intervened":
            return f"severity {data.get('severity')}; try {data.get('try_number')} was the last"
        case "diagnosed":
            return _diagnosed(data)
        case "decided":
            return _decided(data)
        case "answered":
            message = f": {data['message']}" if data.get("message") else ""
            return f"{data.get('kind')} by {data.get('by')}{message}"
        case "fix_applied":
            return f"attempt {data.get('attempt')}"
        case "checked":
            return _checked(data)
        case "ended":
            return f"{plain(str(data.get('outcome'))).lower()}; {data.get('reason')}"
        case _:
            return "; ".join(str(value) for value in data.values() if value not in (None, "", []))


def _diagnosed(data: Data) -> str:
    confidence = data.get("confidence")
    sure = f", {confidence:.0%} sure" if isinstance(confidence, int | float) else ""
    return f"{plain(str(data.get('root_cause'))).lower()}{sure}: {data.get('summary')}"


def _decided(data: Data) -> str:
    wait = data.get("wait")
    after = f", after {duration(wait)}" if isinstance(wait, int | float) and wait > 0 else ""
    shadow = " (shadow: nothing is touched)" if data.get("shadow") else ""
    verdict = VERDICTS.get(str(data.get("verdict")), str(data.get("verdict")))
    return f"{verdict}, by rule {data.get('rule')}{after}{shadow}: {data.get('plan')}"


def _checked(data: Data) -> str:
    given = data.get("checks")
    checks = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    good = sum(one.get("ok") is True for one in checks)
    rest = [f"{one.get('name')}: {one.get('detail')}" for one in checks if one.get("ok") is not True]
    return "; ".join([f"{good} of {len(checks)} ok", *rest])


def timeline(events: Iterable[AgentEventOut]) -> Html:
    """The life of one incident, first thing first."""
    rows = [_row(event, numbered=False) for event in events]
    return el("ol", *rows, cls="am-timeline") if rows else Html("")


def log_list(events: Iterable[AgentEventOut], *, words: str, level: str) -> Html:
    """The agent log, newest first, of what matches every word."""
    wanted = words.casefold().split()
    found = [
        event
        for event in events
        if (level == "All" or event.level == level.lower())
        and all(word in searched(event) for word in wanted)
    ]
    if not found:
        if wanted or level != "All":
            return empty("No line matches", "Fewer words find more; the search looks at every value.")
        return empty("The agent log is empty", "Every step Airmedic takes is written here.")
    return el("ol", *(_row(event, numbered=True) for event in reversed(found)), cls="am-timeline am-log")


def searched(event: AgentEventOut) -> str:
    """What a search looks at."""
    title = TITLES.get(event.name, plain(event.name))
    number = f"#{event.incident_id}" if event.incident_id is not None else ""
    return f"{number} {event.node} {event.name} {title} {sentence(event)}".casefold()


def _row(event: AgentEventOut, *, numbered: bool) -> Html:
    head = [el("strong", TITLES.get(event.name, plain(event.name)))]
    if numbered and event.incident_id is not None:
        link = {"type": "button", "data_incident": event.incident_id}
        head.append(el("button", f"#{event.incident_id}", cls="am-link", **link))
    head.append(el("small", event.node or "runner"))
    body = sentence(event)
    return el(
        "li",
        el("span", moment(event.at, form="clock"), cls="am-at"),
        el("div", el("div", join(head, " "), cls="am-event-head"), el("p", body) if body else None),
        cls=f"am-level-{event.level if event.level in {'warning', 'error'} else 'info'}",
    )
