"""How much a failure matters, and whether it is ours to act on."""

from __future__ import annotations

from collections.abc import Sequence

from graph.domain import DagInfo, DomainType, Severity, TaskSnapshot

SEVERITY_TAG = "airmedic:severity="
IGNORE_TAG = "airmedic:ignore"
PATTERN = 3  # recent failures of one task that make a pattern
WIDE = 5  # tasks held back that make a failure critical


class Triage(DomainType):
    """Severity, and what follows from it."""

    severity: Severity
    intervene: bool
    why: str


def triage(task: TaskSnapshot, *, dag: DagInfo, history: Sequence[TaskSnapshot], held_back: int) -> Triage:
    """Severity of a final failure: declared by a DAG tag, else from weight and pattern.

    Critical: always acted on. High: unless the DAG is tagged `airmedic:ignore`. Medium: when a pattern
    shows. Low: recorded only.
    """
    failed = sum(one.state == "failed" for one in history[:10])
    severity = _declared(dag.tags) or _weighed(held_back, failed)
    if severity is Severity.CRITICAL:
        return Triage(severity=severity, intervene=True, why=f"critical: {held_back} tasks wait for it")
    if IGNORE_TAG in dag.tags:
        return Triage(severity=severity, intervene=False, why=f"the DAG is tagged {IGNORE_TAG}")
    if severity is Severity.LOW:
        return Triage(severity=severity, intervene=False, why="low: recorded only")
    if severity is Severity.MEDIUM and failed < PATTERN:
        return Triage(severity=severity, intervene=False, why=f"medium: {failed} recent failures, no pattern")
    return Triage(severity=severity, intervene=True, why=f"{severity}: try {task.try_number} was the last")


def _declared(tags: Sequence[str]) -> Severity | None:
    for tag in tags:
        name = tag.removeprefix(SEVERITY_TAG)
        if tag.startswith(SEVERITY_TAG) and name in set(Severity):
            return Severity(name)
    return None


def _weighed(held_back: int, failed: int) -> Severity:
    return Severity.CRITICAL if held_back >= WIDE or failed >= 2 * PATTERN else Severity.HIGH
