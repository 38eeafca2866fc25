"""What became of everything: the promises, each held against the judge's Airflow and the database."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from evals.benchmarks.crash.history import Arrival, Operation, repeated, unannounced, violations
from graph.domain import Outcome, Step
from server.audit.trail import AuditTrail
from server.people.people import audit_keys
from server.record import IncidentDetail
from server.service import utc_now
from server.settings import Settings
from server.store import IncidentStore

GOOD = frozenset({Outcome.HEALED, Outcome.RECOVERED_UNVERIFIED, Outcome.SELF_RECOVERED})
DUPLICATE, LOST, STUCK, FALSE, LEDGER, HISTORY, AUDIT, REFUSAL = (
    "duplicate write",
    "lost",
    "stuck",
    "falsely finished",
    "ledger",
    "history",
    "audit trail",
    "refusal",
)
PROMISES = (DUPLICATE, LOST, STUCK, FALSE, LEDGER, HISTORY, AUDIT, REFUSAL)


@dataclass(frozen=True)
class Broken:
    """A promise that did not hold, and where to look."""

    promise: str
    words: str
    dag: str = ""
    look: str = ""  #: the incident's ledger and what Airflow saw of it


@dataclass
class Findings:
    """What the judge says of one campaign."""

    broken: list[Broken] = field(default_factory=list)
    incidents: int = 0
    writes: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    operations: int = 0

    def count(self, promise: str) -> int:
        """How often this promise was broken."""
        return sum(one.promise == promise for one in self.broken)


Event = tuple[str, int]  # DAG and try


class Judging:
    """One campaign's evidence."""

    def __init__(self, truth: dict[str, Any], details: Sequence[IncidentDetail], history: Path) -> None:
        self._tasks: dict[str, dict[str, Any]] = truth["tasks"]
        self._seen: list[dict[str, Any]] = truth["arrivals"]
        self._details = details
        self._operations = list(read_history(history))
        self._arrivals = [Arrival("".join(one["key"]), one["at"], one["applied"]) for one in self._seen]

    def find(self, *, accepted: Sequence[Event], late: Sequence[Event]) -> Findings:
        """All of it. `late`: events that had no outcome in time, after the faults had stopped."""
        found = Findings(
            incidents=len(self._details),
            writes=sum(one.applied for one in self._arrivals),
            outcomes=Counter(str(one.incident.outcome) for one in self._details),
            operations=len(self._operations),
        )
        applied = {one.key for one in self._arrivals if one.applied}
        found.broken += self._duplicates()
        found.broken += self._ended(accepted, late)
        found.broken += self._ledgers(applied)
        words = violations(self._operations) + unannounced(self._operations, self._arrivals)
        found.broken += [Broken(HISTORY, one) for one in words]
        return found

    def _duplicates(self) -> Iterator[Broken]:
        for words in repeated(self._arrivals):
            key = words.partition(": ")[0]
            dag = next(one["dag"] for one in self._seen if "".join(one["key"]) == key)
            yield self._broken(DUPLICATE, words, dag)
        tries = Counter((one["dag"], one["try"]) for one in self._seen if one["applied"])
        for (dag, number), count in tries.items():
            if count > 1:
                yield self._broken(DUPLICATE, f"try {number} was cleared {count} times", dag)

    def _ended(self, accepted: Sequence[Event], late: Sequence[Event]) -> Iterator[Broken]:
        held = {(one.task.dag_id, one.try_number) for each in self._details for one in each.occurrences}
        for dag, number in accepted:
            if (dag, number) not in held:
                yield self._broken(LOST, f"the failure of try {number} was answered 202: no incident", dag)
        for dag, number in late:
            yield self._broken(STUCK, f"the failure of try {number} has no outcome in time", dag)
        for detail in self._details:
            one = detail.incident
            truth = self._tasks[one.task.dag_id]
            if one.outcome in {Outcome.EXPIRED, Outcome.DISMISSED}:
                yield self._broken(FALSE, f"incident {one.id} ended {one.outcome}", one.task.dag_id)
            ours = any(entry.action.name == "clear_task" for entry in detail.ledger)
            if one.outcome is Outcome.SELF_RECOVERED and ours:
                words = f"incident {one.id} ended {one.outcome}, and we cleared it"
                yield self._broken(FALSE, words, one.task.dag_id)
            if one.outcome in GOOD and truth["state"] != "success":
                words = f"incident {one.id} ended {one.outcome}, Airflow says {truth['state']}"
                yield self._broken(FALSE, words, one.task.dag_id)

    def _ledgers(self, applied: set[str]) -> Iterator[Broken]:
        steps = {entry.key: entry.step for one in self._details for entry in one.ledger}
        for key in sorted(applied - {key for key, step in steps.items() if step is Step.CONFIRMED}):
            dag = next(one["dag"] for one in self._seen if "".join(one["key"]) == key)
            stands = steps.get(key)
            yield self._broken(LEDGER, f"{key}: Airflow applied it, the ledger says {stands}", dag)
        for detail in self._details:
            for entry in detail.ledger:
                if entry.action.name in {"wait", "notify"}:
                    continue
                if detail.incident.outcome is not None and entry.step in {Step.SENT, Step.INTENT}:
                    words = f"{entry.key}: the incident ended, the entry stands at {entry.step}"
                    yield self._broken(LEDGER, words, detail.incident.task.dag_id)
                if entry.step is Step.CONFIRMED and entry.key not in applied:
                    words = f"{entry.key}: confirmed, and Airflow never applied it"
                    yield self._broken(LEDGER, words, detail.incident.task.dag_id)

    def _broken(self, promise: str, words: str, dag: str) -> Broken:
        """With everything that is known of the DAG."""
        lines = [f"Airflow now: {self._tasks.get(dag)}"]
        lines += [f"arrived: {one}" for one in self._seen if one["dag"] == dag]
        for detail in self._details:
            if detail.incident.task.dag_id == dag:
                one = detail.incident
                lines.append(f"incident {one.id}: {one.status}, {one.outcome}, {one.reason}")
                lines += [f"  ledger: {entry.key} {entry.step} {entry.error}" for entry in detail.ledger]
                lines += [f"  {event.at:%H:%M:%S.%f} {event.name} {event.data}" for event in detail.events]
        return Broken(promise, words, dag, "\n".join(lines))


def read_history(file: Path) -> Iterator[Operation]:
    """What the processes wrote down; a line that was being written when one died is left out."""
    for line in file.read_text().splitlines():
        try:
            yield Operation(**json.loads(line))
        except ValueError:
            continue


async def details_of(store: IncidentStore, engine: AsyncEngine) -> list[IncidentDetail]:
    """Every incident, with all that hangs on it."""
    async with engine.connect() as connection:
        ids = (await connection.execute(text("SELECT id FROM incident ORDER BY id"))).scalars().all()
    return [await store.detail(number) for number in ids]


async def audit_break(engine: AsyncEngine, settings: Settings) -> list[Broken]:
    """The audit trail is whole."""
    trail = AuditTrail(engine, keys=audit_keys(settings), clock=utc_now)
    _, broken = await trail.verify()
    return [] if broken is None else [Broken(AUDIT, str(broken))]
