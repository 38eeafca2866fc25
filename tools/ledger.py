"""The port through which every write to Airflow is recorded: intent, sent, then confirmed, failed or undone.

The store's ledger (`server.ledger`) writes each step in a transaction of its own, fenced by the incident's
epoch; `MemoryLedger` below is its twin for tests of nodes and actions. The key of an entry is
(incident, attempt, position).
"""

from __future__ import annotations

from typing import Protocol

from pydantic import JsonValue

from graph.domain import Action, LedgerEntry, Step, digest
from graph.errors import ActionRefused, LeaseLost

WAVES = 10_000  # attempts from here on are waves of an incident's members, apart from its own plans
WRITTEN = frozenset({Step.SENT, Step.CONFIRMED})  # Airflow may have it, or has


def ledger_key(incident_id: int, attempt: int, position: int) -> str:
    """The token that goes into Airflow's `note`, so that a read-back finds our own write."""
    return f"airmedic:{incident_id}.{attempt}.{position}"


class ActionLedger(Protocol):
    """The writes of one incident; every method raises `LeaseLost` when the epoch is no longer ours."""

    async def entries(self, *, attempt: int | None = None) -> tuple[LedgerEntry, ...]:
        """All writes of the incident (of one attempt), in order."""

    async def intend(self, attempt: int, position: int, action: Action, before: JsonValue) -> LedgerEntry:
        """Record what will be written and what was there. A repeat returns the first record unchanged.

        Raises `ActionRefused` when the place is taken by another action: a re-run may not change its mind.
        """

    async def advance(
        self, entry: LedgerEntry, step: Step, *, after: JsonValue = None, error: str = ""
    ) -> LedgerEntry:
        """Move an entry on: intent → sent → confirmed | failed; confirmed → undone; else refused."""


ALLOWED_STEPS: dict[Step, frozenset[Step]] = {
    Step.INTENT: frozenset({Step.SENT, Step.FAILED, Step.CONFIRMED}),
    # back to intent: read back after doubt, and Airflow shows that the write never happened
    Step.SENT: frozenset({Step.CONFIRMED, Step.FAILED, Step.INTENT}),
    Step.CONFIRMED: frozenset({Step.UNDONE}),
    Step.FAILED: frozenset(),
    Step.UNDONE: frozenset(),
}


def check_step(entry: LedgerEntry, step: Step) -> None:
    """Refuse a move that the ledger does not know."""
    if step not in ALLOWED_STEPS[entry.step]:
        raise ActionRefused(f"ledger {entry.key}: {entry.step} does not go to {step}")


def check_same(entry: LedgerEntry, action: Action) -> None:
    """Refuse a second, different action in the same place."""
    if digest(entry.action.model_dump(mode="json")) != digest(action.model_dump(mode="json")):
        raise ActionRefused(
            f"ledger {entry.key} holds {entry.action.name!r} and cannot become another action"
        )


class MemoryLedger:
    """The twin: a dict. `fence` set to True plays a lost lease."""

    def __init__(self, incident_id: int) -> None:
        self.incident_id = incident_id
        self.fence = False
        self._entries: dict[tuple[int, int], LedgerEntry] = {}

    def _fenced(self) -> None:
        if self.fence:
            raise LeaseLost(f"incident {self.incident_id} is driven by another worker")

    async def entries(self, *, attempt: int | None = None) -> tuple[LedgerEntry, ...]:
        self._fenced()
        keys = sorted(key for key in self._entries if attempt is None or key[0] == attempt)
        return tuple(self._entries[key] for key in keys)

    async def intend(self, attempt: int, position: int, action: Action, before: JsonValue) -> LedgerEntry:
        self._fenced()
        if (known := self._entries.get((attempt, position))) is not None:
            check_same(known, action)
            return known
        entry = LedgerEntry(
            incident_id=self.incident_id,
            attempt=attempt,
            position=position,
            action=action,
            step=Step.INTENT,
            key=ledger_key(self.incident_id, attempt, position),
            before=before,
        )
        self._entries[attempt, position] = entry
        return entry

    async def advance(
        self, entry: LedgerEntry, step: Step, *, after: JsonValue = None, error: str = ""
    ) -> LedgerEntry:
        self._fenced()
        current = self._entries[entry.attempt, entry.position]
        check_step(current, step)
        moved = current.model_copy(update={"step": step, "after": after, "error": error})
        self._entries[entry.attempt, entry.position] = moved
        return moved
