"""What an incident looks like when it opens, or opens again."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Update, update
from sqlmodel import col

from graph.domain import IncidentKind, Status, TaskSnapshot, digest
from server.db.tables import IncidentRow
from server.record import Occurrence
from tools.signature import template

REOPENED = {"reopened": True}  # stands in `answer` until the graph has begun again


def open_key(occurrence: Occurrence) -> str:
    """What one open incident is about, for the unique index: a task, or a mapped task with one error.

    The map indexes of one task that fail with the same error have one cause, and are one incident.
    """
    task = occurrence.task
    error = template(occurrence.error) if task.map_index >= 0 else ""
    return digest(
        [
            occurrence.kind,
            occurrence.airflow,
            task.dag_id,
            task.run_id,
            task.task_id,
            task.map_index >= 0,
            error,
        ]
    )


def opened(occurrence: Occurrence, subject: TaskSnapshot, key: str, now: datetime) -> dict[str, Any]:
    """The row of an incident that is due at once."""
    return {
        "open_key": key,
        "kind": occurrence.kind.value,
        "airflow": occurrence.airflow,
        **occurrence.task.model_dump(),
        "try_number": occurrence.try_number,
        "operator": subject.operator,
        "severity": "medium" if occurrence.kind is IncidentKind.REQUEST else "high",
        "status": Status.OPEN.value,
        "reason": "",
        "version": 1,
        "attempt": 0,
        "failures": 0,
        "epoch": 0,
        "opened_at": now,
        "updated_at": now,
        "wake_at": now,
        "failed_at": subject.end,
    }


def reopening(incident_id: int, now: datetime) -> Update:
    """Gives an escalated incident back: the graph looks at it afresh. Changes nothing of any other."""
    return (
        update(IncidentRow)
        .where(col(IncidentRow.id) == incident_id, col(IncidentRow.status) == Status.ESCALATED.value)
        .values(
            status=Status.OPEN.value,
            outcome=None,
            reason="",
            answer=REOPENED,
            failures=0,
            wake_at=now,
            updated_at=now,
            version=col(IncidentRow.version) + 1,
        )
    )
