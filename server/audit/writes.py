"""What the audit trail says of each write to Airflow: its evidence, its rule, and who allowed it."""

from __future__ import annotations

from pydantic import JsonValue
from sqlalchemy import Executable, bindparam, select
from sqlmodel import col

from graph.domain import Action, AnswerKind, LedgerEntry, Step, Verdict
from server.audit.chain import AuditEntry
from server.audit.trail import evidence_of, write_entry
from server.db.group_writer import Writing
from server.db.prepared import Prepared
from server.db.tables import DecisionRow, IncidentRow

YES = (AnswerKind.APPROVE.value, AnswerKind.EDIT.value)


def _allowed_by(_dialect: str, _names: tuple[str, ...]) -> Executable:
    row = IncidentRow
    query = select(col(row.diagnosis), col(row.decision), col(row.plan))
    return query.where(col(row.id) == bindparam("b_id"))


ALLOWED_BY = Prepared(_allowed_by)


async def intent_entry(
    writing: Writing, incident_id: int, *, key: str, action: Action, before: JsonValue
) -> AuditEntry:
    """The entry of a write that is about to be sent, read in the transaction that records the intent."""
    ((diagnosis, decision, plan),) = await ALLOWED_BY.fetch(writing.connection, {"b_id": incident_id})
    ruled = decision if isinstance(decision, dict) else {}
    person = await _person(writing, incident_id, asked=ruled.get("verdict") == Verdict.ASK.value)
    rule = str(ruled.get("rule") or "none recorded")
    return write_entry(
        "intent",
        key=key,
        incident_id=incident_id,
        by=person or f"policy rule {rule}",
        action=action.name,
        target=action.target,
        args=action.args,
        before=before,
        evidence=evidence_of(diagnosis),
        root_cause=diagnosis.get("root_cause") if isinstance(diagnosis, dict) else None,
        rule=rule,
        reasons=ruled.get("reasons"),
        policy=ruled.get("policy"),
        plan=plan.get("summary") if isinstance(plan, dict) else None,
    )


async def _person(writing: Writing, incident_id: int, *, asked: bool) -> str | None:
    """Who said yes last, when policy had asked."""
    if not asked:
        return None
    row = DecisionRow
    query = select(col(row.by)).where(col(row.incident_id) == incident_id, col(row.kind).in_(YES))
    found = (await writing.execute(query.order_by(col(row.version).desc()).limit(1))).first()
    return None if found is None else str(found[0])


def step_entry(entry: LedgerEntry, step: Step, *, after: JsonValue, error: str) -> AuditEntry:
    """The entry of a later step; its key leads to the intent, and so to evidence and rule."""
    return write_entry(
        step.value if step is not Step.INTENT else "never_arrived",
        key=entry.key,
        incident_id=entry.incident_id,
        by="airmedic",
        action=entry.action.name,
        after=after,
        error=error,
    )
