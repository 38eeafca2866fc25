"""Airmedic's terms as people read them, and the colour each is shown in."""

from __future__ import annotations

from graph.domain import DiagnosedBy, Outcome, Severity, Status, Step, Verdict
from server.schemas import IncidentOut
from server.telling import duration as duration
from server.telling import plain as plain

STATUS = {
    Status.OPEN: ("Working on it", "busy"),
    Status.WATCHING: ("Airflow retries", "busy"),
    Status.WAITING_DECISION: ("Needs your decision", "warn"),
    Status.WAITING_TIMER: ("Fix is due later", "busy"),
    Status.WAITING_OUTCOME: ("Fix applied, watching", "busy"),
    Status.ESCALATED: ("With you", "warn"),
    Status.CLOSED: ("Closed", "calm"),
}

OUTCOME = {
    Outcome.HEALED: ("Healed", "good"),
    Outcome.RECOVERED_UNVERIFIED: ("Green again, data unproven", "good"),
    Outcome.SELF_RECOVERED: ("Recovered by itself", "calm"),
    Outcome.NOT_HEALED: ("Not healed", "bad"),
    Outcome.ESCALATED: ("Handed to people", "warn"),
    Outcome.EXPIRED: ("Nobody answered", "bad"),
    Outcome.DISMISSED: ("Dismissed", "calm"),
    Outcome.JOINED: ("Joined another", "calm"),
}

SEVERITY = {
    Severity.CRITICAL: "bad",
    Severity.HIGH: "warn",
    Severity.MEDIUM: "busy",
    Severity.LOW: "calm",
}

STEP = {
    Step.INTENT: ("planned", "calm"),
    Step.SENT: ("sent", "busy"),
    Step.CONFIRMED: ("read back", "good"),
    Step.FAILED: ("refused", "bad"),
    Step.UNDONE: ("taken back", "calm"),
}

VERDICT = {
    Verdict.AUTO: ("Done without asking", "good"),
    Verdict.ASK: ("A person is asked", "warn"),
    Verdict.NEVER: ("Not allowed", "bad"),
}

BY = {
    DiagnosedBy.MEMORY: "seen before",
    DiagnosedBy.KNOWLEDGE: "knowledge base",
    DiagnosedBy.MODEL: "language model",
    DiagnosedBy.PERSON: "a person",
}


def standing(incident: IncidentOut) -> tuple[str, str]:
    """Where an incident stands, in words, and the colour."""
    if incident.status is Status.CLOSED and incident.outcome is not None:
        return OUTCOME[incident.outcome]
    return STATUS[incident.status]


def wanted(incident: IncidentOut) -> str:
    """What is asked of a person; empty when nothing is."""
    if incident.asks:
        return "Approve, edit or reject the plan"
    return "Mend it, then close it" if incident.status is Status.ESCALATED else ""
