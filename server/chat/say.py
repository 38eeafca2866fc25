"""What the chat says: text without markup, links to incidents, and questions that a person may answer."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from graph.domain import Decision, FixPlan, Outcome, Status
from server.record import IncidentLine, IncidentRecord

STATES = {
    Status.OPEN: "Airmedic works on it",
    Status.WATCHING: "Airflow still retries; watching",
    Status.WAITING_DECISION: "asks for a decision",
    Status.WAITING_TIMER: "waits for its time",
    Status.WAITING_OUTCOME: "the fix is applied, Airflow works",
    Status.ESCALATED: "with people",
    Status.CLOSED: "closed",
}


class Said:
    """One answer: its text, the incidents it is about, and those whose question is put to the person."""

    def __init__(
        self,
        text: str,
        *,
        links: Sequence[int] = (),
        asks: Sequence[int] = (),
        focus: int | None = None,
    ) -> None:
        self.text = text
        self.links = tuple(dict.fromkeys(links))
        self.asks = tuple(asks)
        self.focus = focus if focus is not None else (self.links[0] if len(self.links) == 1 else None)


class Unclear(Exception):
    """The words do not name one thing; `said` tells what they could mean."""

    def __init__(self, text: str, *, links: Sequence[int] = ()) -> None:
        super().__init__(text)
        self.said = Said(text, links=links)


def clean(text: str) -> str:
    """Untrusted text without what a terminal or a page would act on: control and direction characters."""
    return "".join(
        one if one == "\n" or not unicodedata.category(one).startswith("C") else " " for one in text
    )


def line(text: str, *, longest: int = 300) -> str:
    """The same on one line, and not at any length."""
    flat = " ".join(clean(text).split())
    return flat if len(flat) <= longest else flat[: longest - 1].rstrip() + "…"


def clock(at: datetime, zone: ZoneInfo) -> str:
    """A moment as the person's clock shows it."""
    return f"{at.astimezone(zone):%a %d %b %H:%M}"


def one_line(record: IncidentRecord | IncidentLine, zone: ZoneInfo) -> str:
    """An incident in a list."""
    cause = record.root_cause.value if record.root_cause is not None else "no cause named yet"
    state = ended(record.outcome) if record.outcome is not None else STATES[record.status]
    return line(f"#{record.id} {record.task.dag_id}.{record.task.task_id}: {cause}; {state}") + (
        f" ({clock(record.opened_at, zone)})"
    )


def ended(outcome: Outcome) -> str:
    """An outcome in words."""
    return outcome.value.replace("_", " ")


def plan_words(plan: FixPlan, decision: Decision | None) -> list[str]:
    """A plan, and policy's word on it."""
    lines = [f"plan: {line(plan.summary)}"]
    if plan.wait:
        lines.append(f"it begins after {plan.wait:g} s")
    if plan.diff:
        lines += ["what changes:", *(f"  {line(one)}" for one in plan.diff.splitlines()[:40])]
    if decision is not None:
        who = f", {decision.approvers.value} or more may approve" if decision.verdict == "ask" else ""
        shadow = "; shadow mode: nothing is touched" if decision.shadow else ""
        lines.append(f"policy: {decision.verdict.value} by rule {decision.rule!r}{who}{shadow}")
        lines += [f"  because {line(one)}" for one in decision.reasons]
    return lines
