"""The agent log in words, for the console and the terminal alike: every value is told as data.

Nothing here trusts that a value is there: lines of older versions are told as well.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

Data = Mapping[str, JsonValue]

TITLES = {
    "opened": "Incident opened",
    "joined": "Another report of the same failure",
    "gathered": "Others failed of the same cause",
    "let_go": "The others go their own way",
    "wave_sent": "The next wave runs again",
    "intervened": "Taken up",
    "watched": "Airflow still works on it; watching",
    "recovered": "It recovered by itself",
    "dismissed": "Nothing to do",
    "diagnosed": "Cause named",
    "decided": "Policy decided",
    "asked": "A person is asked",
    "answered": "A person answered",
    "answer_refused": "An answer was refused",
    "approved": "Approved",
    "waiting": "Waiting",
    "fix_applied": "Fix applied",
    "fix_stopped": "Fix stopped half way",
    "fix_undone": "Fix given up",
    "checked": "Result checked",
    "withdrawn": "Plan withdrawn",
    "noted": "Noted",
    "ended": "Ended",
    "closed": "Closed by a person",
    "reopened": "Given back by a person",
    "feedback": "A person rated it",
    "control": "The switches were set",
    "step_failed": "A step failed; it is tried again",
    "early_warning": "Early warning",
    "warning_over": "A warning is over",
}
VERDICTS = {"auto": "to be done without asking", "ask": "a person is asked", "never": "not allowed"}
ANSWERS = {
    "approve": "approved",
    "edit": "approved with changes",
    "reject": "rejected",
    "respond": "answered",
}
STANDING = (
    ("healed", "healed"),
    ("released", "running again"),
    ("waiting", "waiting for their wave"),
    ("ask", "for a person to decide"),
    ("failed", "failed again"),
    ("left", "left to others"),
    ("never", "not allowed"),
    ("declined", "declined"),
    ("given_up", "given up"),
)
UNTOLD = frozenset({"plan_id", "policy", "began_at", "ready_at", "diff", "version", "key", "finding"})


def title(name: str) -> str:
    """What a line is about."""
    return TITLES.get(name, plain(name))


def plain(term: str) -> str:
    """`lock_contention` as `Lock contention`."""
    return term.replace("_", " ").capitalize()


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def data_of(value: JsonValue) -> Data:
    """A line's values; nothing when it has none."""
    return value if isinstance(value, dict) else {}


def sentence(name: str, data: Data) -> str:
    """One line of the agent log as one sentence; empty when its title says all."""
    match name:
        case "opened" | "joined":
            return f"try {_of(data, 'try_number')} is {_of(data, 'state')}; told by the {_of(data, 'door')}"
        case "gathered" if "incident" in data:
            return f"incident {_of(data, 'incident')} had the same cause; its failures are here now"
        case "gathered":
            return f"{_of(data, 'so_far')} so far"
        case "let_go":
            return f"{_of(data, 'failures')} failures are looked at afresh: {_of(data, 'why')}"
        case "wave_sent":
            return f"wave {_of(data, 'wave')}: {_of(data, 'task_instances')} task instances"
        case "intervened":
            last = f"Airflow will not retry, try {_of(data, 'try_number')} was the last"
            return f"{last}; severity {_of(data, 'severity')}"
        case "diagnosed":
            return _diagnosed(data)
        case "decided":
            return _decided(data)
        case "answered":
            kind = ANSWERS.get(str(data.get("kind")), _of(data, "kind"))
            return f"{kind} by {_of(data, 'by')}" + _after(": ", data.get("message"))
        case "approved":
            return f"by {_of(data, 'by')}"
        case "fix_applied":
            return f"attempt {_of(data, 'attempt')}"
        case "checked":
            return _checked(data)
        case "control":
            return _switches(data)
        case "feedback":
            return _rated(data)
        case "ended":
            return plain(_of(data, "outcome")) + _after(": ", data.get("reason"))
        case _:
            return "; ".join(_told(value) for key, value in data.items() if key not in UNTOLD and value)


def together(group: Mapping[str, int]) -> str:
    """How many task instances failed of one cause, and how far they are (`GroupOut`)."""
    told = [f"{group[name]:,} {words}" for name, words in STANDING if group.get(name)]
    own = f"{group['task_instances']:,} task instances in {group['dags']:,} DAGs failed of this cause"
    return f"{own}: {', '.join(told)}" if told else own


def details(name: str, data: Data) -> list[str]:
    """What else a terminal shows under a line: evidence, reasons, what changes."""
    match name:
        case "diagnosed":
            proof = [f"{_of(one, 'line'):>5} | {_of(one, 'text')[:160]}" for one in rows(data, "evidence")]
            return [*proof, *(f"to do: {one}" for one in _list(data, "checklist"))]
        case "decided":
            reasons = [f"because {one}" for one in _list(data, "reasons")]
            return [*reasons, *str(data.get("diff") or "").splitlines()]
        case "checked":
            return [_check(one) for one in rows(data, "checks")]
        case _:
            return []


def rows(data: Data, name: str) -> list[dict[str, JsonValue]]:
    """The objects in a list; none when it is no list."""
    return [one for one in _list(data, name) if isinstance(one, dict)]


def _list(data: Data, name: str) -> list[JsonValue]:
    given = data.get(name)
    return given if isinstance(given, list) else []


def _of(data: Data, name: str) -> str:
    value = data.get(name)
    return "?" if value is None else str(value)


def _after(mark: str, value: JsonValue) -> str:
    return f"{mark}{value}" if value else ""


def _told(value: JsonValue) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items() if inner)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _diagnosed(data: Data) -> str:
    confidence = data.get("confidence")
    sure = f", {confidence:.0%} sure" if isinstance(confidence, int | float) else ""
    return f"{plain(_of(data, 'root_cause'))}{sure}: {_of(data, 'summary')}"


def _decided(data: Data) -> str:
    wait = data.get("wait")
    plan = _of(data, "plan")
    after = f", after {duration(wait)}" if isinstance(wait, int | float) and wait > 0 else ""
    if plan.startswith("after "):
        after = ""  # the plan says it itself
    shadow = " (shadow mode: nothing is touched)" if data.get("shadow") else ""
    verdict = VERDICTS.get(str(data.get("verdict")), _of(data, "verdict"))
    return f"{verdict}, by rule {_of(data, 'rule')}{after}{shadow}: {plan}"


def _checked(data: Data) -> str:
    checks = rows(data, "checks")
    good = sum(one.get("ok") is True for one in checks)
    bad = [_check(one) for one in checks if one.get("ok") is False]
    return "; ".join([f"{good} of {len(checks)} ok", *bad])


def _check(check: Data) -> str:
    ok = check.get("ok")
    mark = ("ok" if ok else "NOT OK") if isinstance(ok, bool) else "-"
    return f"{_of(check, 'name')}: {mark}" + _after(", ", check.get("detail"))


def _switches(data: Data) -> str:
    stopped = "nothing is written to Airflow" if data.get("paused") else "writing is allowed"
    shadow = "shadow mode" if data.get("shadow") else "healing is on"
    return f"{stopped}, {shadow}; by {_of(data, 'by')}"


def _rated(data: Data) -> str:
    cause = {True: ", the cause was right", False: ", the cause was wrong"}
    right = data.get("cause_right")
    words = cause[right] if isinstance(right, bool) else ""
    return f"{_of(data, 'rating')} of 5 by {_of(data, 'by')}{words}" + _after(": it was ", data.get("cause"))
