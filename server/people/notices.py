"""What people are told about an incident, in words that are safe to send."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from graph.domain import Outcome, Severity
from server.people.inert import inert, inert_line
from server.people.notifier import Notice
from server.record import IncidentRecord


@dataclass(frozen=True)
class Event:
    """A kind of notice: how it is called, and whether it can wait for the digest."""

    words: str
    digest: bool = False


EVENTS: Mapping[str, Event] = {
    "approval_asked": Event("approval asked"),
    "expiring": Event("approval expires soon"),
    "expired": Event("approval expired, nothing was done"),
    "escalated": Event("a person must look"),
    "healed": Event("healed", digest=True),
    "breaker_open": Event("circuit breaker open"),
    "breaker_closed": Event("circuit breaker closed again"),
    "unwell": Event("unwell"),
    "well_again": Event("well again"),
    "performance_degraded": Event("performance degraded"),
    "performance_restored": Event("performance as before"),
    "early_warning": Event("early warning", digest=True),
    "warning_over": Event("early warning is over", digest=True),
}

_OUTCOMES = {
    Outcome.ESCALATED: "escalated",
    Outcome.EXPIRED: "expired",
    Outcome.HEALED: "healed",
    Outcome.RECOVERED_UNVERIFIED: "healed",
}


def of_question(record: IncidentRecord, question: Mapping[str, Any], *, until: datetime | None) -> Notice:
    """A person is asked: what, why, and until when."""
    version = record.version + 1
    why = [str(one) for one in question.get("why") or ()]
    cause = str(question.get("root_cause") or "")
    lines = [
        f"what: {question.get('summary', '')}",
        *([f"cause: {cause}"] if cause else []),
        *([f"why it asks: {'; '.join(why)}"] if why else []),
        *([f"until: {_time(until)}"] if until is not None else []),
        f"who may approve: {question.get('approvers', 'operator')}",
    ]
    return _notice("approval_asked", record, version=version, lines=lines)


def of_expiry(record: IncidentRecord, *, left: timedelta) -> Notice:
    """The question is still open and its time is nearly over."""
    question = record.question if isinstance(record.question, dict) else {}
    minutes = max(1, round(left.total_seconds() / 60))
    lines = [
        f"what: {question.get('summary', '')}",
        f"until: {_time(record.expires_at)}, in about {minutes} min; then it expires and nothing is done",
    ]
    return _notice("expiring", record, version=record.version, lines=lines)


def of_outcome(record: IncidentRecord, outcome: Outcome, reason: str) -> Notice | None:
    """An incident ended; None when nobody needs to know."""
    event = _OUTCOMES.get(outcome)
    if event is None:
        return None
    lines = [f"outcome: {outcome.value}", *([f"why: {reason}"] if reason else [])]
    if record.root_cause is not None:
        lines.append(f"cause: {record.root_cause.value}")
    notice = _notice(event, record, version=record.version + 1, lines=lines)
    # Its version names the question that was open; an end has none.
    return notice.model_copy(update={"version": None})


def of_condition(name: str, event: str, *, number: int, detail: str, severity: Severity) -> Notice:
    """Something Airmedic depends on changed for worse or better."""
    return Notice(
        event=event,
        key=f"{event}:{name}:{number}",
        severity=severity,
        title=inert_line(f"{name} {EVENTS[event].words}" if event in ("unwell", "well_again") else name),
        body=inert(detail),
    )


def _notice(event: str, record: IncidentRecord, *, version: int, lines: list[str]) -> Notice:
    task = record.task
    mapped = f"[{task.map_index}]" if task.map_index >= 0 else ""
    title = f"{task.dag_id}.{task.task_id}{mapped}, run {task.run_id}"
    return Notice(
        event=event,
        key=f"{event}:{record.id}:{version}",
        incident_id=record.id,
        severity=record.severity,
        dag_id=record.task.dag_id,
        version=version,
        title=inert_line(title),
        body=inert("\n".join(" ".join(line.split()) for line in lines)),
    )


def _time(moment: datetime | None) -> str:
    return "no end" if moment is None else moment.strftime("%Y-%m-%d %H:%M UTC")
