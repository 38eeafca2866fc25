"""What a node's update means for the incident's row and for the agent log."""

from __future__ import annotations

from typing import Any

from graph.domain import Decision, Diagnosis, Incident
from graph.state import HealState


def columns_of(update: HealState) -> dict[str, Any]:
    """The row's columns that this update changes."""
    columns: dict[str, Any] = {}
    for name in ("diagnosis", "plan", "decision", "verification"):
        if name in update:
            value = update.get(name)
            # What is as usual is not spelled out: whoever reads the row makes a domain type of it.
            columns[name] = None if value is None else value.model_dump(mode="json", exclude_defaults=True)
    for name in ("attempt", "log", "checklist"):
        if name in update:
            columns[name] = update.get(name)
    if "diagnosis" in update:
        columns["root_cause"] = update["diagnosis"].root_cause.value
        columns["signature"] = update["diagnosis"].signature or None
    if "incident" in update:
        incident: Incident = update["incident"]
        columns |= {"severity": incident.severity.value, "failed_at": incident.failed_at}
    if "failure" in update:
        columns["try_number"] = update["failure"].try_number
    return columns


def events_of(node: str, update: HealState) -> list[dict[str, Any]]:
    """The lines that this update adds to the agent log, in order."""
    return [{"node": node, "name": name, "data": data} for name, data in _lines(node, update)]


def _lines(node: str, update: HealState) -> list[tuple[str, dict[str, Any]]]:
    lines: list[tuple[str, dict[str, Any]]] = []
    if node == "monitor":
        lines.append(_monitored(update))
    if "diagnosis" in update and "ready_at" in update:
        lines.append(("diagnosed", _diagnosed(update["diagnosis"], update)))
    plan, decision = update.get("plan"), update.get("decision")
    if plan is not None and decision is not None and not update.get("approved_by"):
        words = {"plan": plan.summary, "plan_id": plan.id, "diff": plan.diff, "wait": plan.wait}
        lines.append(("decided", words | _decided(decision)))
    if node == "human" and (by := update.get("approved_by")):
        lines.append(("approved", {"by": by}))
    if node == "fix":
        lines += _fixed(update)
    if update.get("release") == "watch" and (group := update.get("group")) is not None and group.size:
        wave = {"wave": group.wave, "task_instances": group.size}
        lines.append(("wave_sent", wave))
    if (found := update.get("verification")) is not None:
        # The last look adds to what was written down when the watch began.
        told = tuple(one for one in found.checks if one.name == "recurrence") or found.checks
        checks = [check.model_dump(mode="json") for check in told]
        lines.append(("checked", {"outcome": found.outcome, "checks": checks}))
    if (stale := update.get("stale")) and node != "fix":
        lines.append(("withdrawn", {"reason": stale}))
    if update.get("outcome") is None and (reason := update.get("reason")):
        lines.append(("noted", {"reason": reason}))
    return lines


def _monitored(update: HealState) -> tuple[str, dict[str, Any]]:
    if (outcome := update.get("outcome")) is not None:
        return "dismissed" if outcome == "dismissed" else "recovered", {"reason": update.get("reason", "")}
    if not update.get("intervene"):
        return "watched", {}
    failure = update["failure"]
    severity = update["incident"].severity.value
    return "intervened", {"severity": severity, "try_number": failure.try_number, "state": failure.state}


def _diagnosed(diagnosis: Diagnosis, update: HealState) -> dict[str, Any]:
    return {
        "root_cause": diagnosis.root_cause.value,
        "transient": diagnosis.transient,
        "confidence": diagnosis.confidence,
        "summary": diagnosis.summary,
        "by": diagnosis.by.value,
        "evidence": [line.model_dump() for line in diagnosis.evidence],
        "ready_at": update["ready_at"].isoformat(),
        "model": None if diagnosis.cost is None else diagnosis.cost.model_dump(),
        "checklist": list(update.get("checklist", [])),
    }


def _decided(decision: Decision) -> dict[str, Any]:
    return {
        "verdict": decision.verdict.value,
        "rule": decision.rule,
        "reasons": list(decision.reasons),
        "policy": decision.policy,
        "shadow": decision.shadow,
    }


def _fixed(update: HealState) -> list[tuple[str, dict[str, Any]]]:
    if update.get("applied"):
        data = {"attempt": update.get("attempt"), "began_at": update["began_at"].isoformat()}
        return [("fix_applied", data)]
    if update.get("undo"):
        return [("fix_stopped", {"reason": update.get("stale", "")})]
    if "undo" in update:
        return [("fix_undone", {"reason": update.get("stale") or update.get("reason", "")})]
    return []
