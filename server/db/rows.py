"""Turns table rows into the types the store gives back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from graph.domain import (
    Action,
    Decision,
    Diagnosis,
    FixPlan,
    LedgerEntry,
    TaskRef,
    Verification,
)
from server.db.tables import ActionRow, DecisionRow, EventRow, IncidentRow, OccurrenceRow
from server.record import AgentEvent, AnswerGiven, IncidentRecord, Occurrence

# A query for a table's columns gives rows that read like the table's own.
Columns = Row[Any]


def task_of(row: IncidentRow | OccurrenceRow | Columns) -> TaskRef:
    return TaskRef(dag_id=row.dag_id, run_id=row.run_id, task_id=row.task_id, map_index=row.map_index)


def incident_of(row: IncidentRow | Columns) -> IncidentRecord:
    given = {
        name: getattr(row, name)
        for name in IncidentRecord.model_fields
        if name not in {"task", "diagnosis", "plan", "decision", "verification", "checklist"}
    }
    return IncidentRecord(
        task=task_of(row),
        diagnosis=None if row.diagnosis is None else Diagnosis.model_validate(row.diagnosis),
        plan=None if row.plan is None else FixPlan.model_validate(row.plan),
        decision=None if row.decision is None else Decision.model_validate(row.decision),
        verification=None if row.verification is None else Verification.model_validate(row.verification),
        checklist=tuple(str(item) for item in row.checklist) if isinstance(row.checklist, list) else (),
        **given,
    )


def opened_record(given: Mapping[str, Any]) -> IncidentRecord:
    """The incident of a row that was just written with these values; of the rest nothing is known yet."""
    values = {name: given.get(name) for name in IncidentRecord.model_fields}
    ref = {name: given[name] for name in TaskRef.model_fields}
    return IncidentRecord.model_validate(values | {"task": ref, "checklist": ()})


def occurrence_of(row: OccurrenceRow) -> Occurrence:
    given = {name: getattr(row, name) for name in Occurrence.model_fields if name != "task"}
    return Occurrence(task=task_of(row), **given)


def event_of(row: EventRow) -> AgentEvent:
    return AgentEvent(**{name: getattr(row, name) for name in AgentEvent.model_fields})


def answer_of(row: DecisionRow) -> AnswerGiven:
    return AnswerGiven(**{name: getattr(row, name) for name in AnswerGiven.model_fields})


def ledger_of(row: ActionRow | Columns) -> LedgerEntry:
    return LedgerEntry.model_validate(
        {
            "incident_id": row.incident_id,
            "attempt": row.attempt,
            "position": row.position,
            "action": Action.model_validate(
                {"name": row.name, "target": row.target or {}, "args": row.args or {}}
            ),
            "step": row.step,
            "key": row.key,
            "before": row.before,
            "after": row.after,
            "error": row.error,
            "sent_at": row.sent_at,
            "at": row.ended_at or row.sent_at or row.intended_at,
        }
    )
