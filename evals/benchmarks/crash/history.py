"""Were there ever two who drove one incident? Checks what the processes wrote down, as a linear history.

An incident is a register with a fence: a claim raises the epoch, a write succeeds only under the newest one.
Such a history can be put in one order that respects real time exactly when the order of epochs does (within
an epoch the claim comes first): no operation ended before another began that the fence puts in front of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

CLAIM, WRITE, SENT = "claim", "write", "sent"


@dataclass(frozen=True)
class Operation:
    """Something that succeeded, and between which two moments: all processes read one clock."""

    kind: str
    incident: int
    epoch: int
    begin: float
    end: float
    key: str = ""  #: of the ledger, when it recorded that a write leaves

    @property
    def place(self) -> tuple[int, bool]:
        """Where the fence puts it."""
        return self.epoch, self.kind != CLAIM


@dataclass(frozen=True)
class Arrival:
    """A write that reached Airflow."""

    key: str
    at: float
    applied: bool


def violations(operations: Iterable[Operation]) -> list[str]:
    """What no linear history can explain, in words; empty when all of it can."""
    found: list[str] = []
    by_incident: dict[int, list[Operation]] = defaultdict(list)
    for one in operations:
        by_incident[one.incident].append(one)
    for incident, several in sorted(by_incident.items()):
        claims = [one.epoch for one in several if one.kind == CLAIM]
        found += [
            f"incident {incident}: epoch {epoch} was claimed twice"
            for epoch in sorted({epoch for epoch in claims if claims.count(epoch) > 1})
        ]
        found += _out_of_order(incident, several)
    return found


def _out_of_order(incident: int, several: list[Operation]) -> list[str]:
    found = []
    latest: Operation | None = None  # the one that began last, of all that the fence puts in front
    group: list[Operation] = []
    for one in sorted(several, key=lambda each: each.place):
        if group and group[-1].place != one.place:
            latest = max([*group, *([latest] if latest else [])], key=lambda each: each.begin)
            group = []
        group.append(one)
        if latest is not None and one.end < latest.begin:
            found.append(
                f"incident {incident}: a {latest.kind} of epoch {latest.epoch} began after a {one.kind} of "
                f"epoch {one.epoch} had ended"
            )
    return found


def unannounced(operations: Iterable[Operation], arrivals: Iterable[Arrival]) -> list[str]:
    """Writes that reached Airflow before the ledger had `sent` on the disk."""
    sent: dict[str, list[float]] = defaultdict(list)
    for one in operations:
        if one.kind == SENT:
            sent[one.key].append(one.end)
    return [
        f"{one.key}: reached Airflow and was not committed as sent"
        for one in arrivals
        if not any(end <= one.at for end in sent[one.key])
    ]


def repeated(arrivals: Iterable[Arrival]) -> list[str]:
    """Entries of the ledger that were sent again after Airflow had applied them, whatever became of it."""
    applied: set[str] = set()
    found = []
    for one in sorted(arrivals, key=lambda each: each.at):
        if one.key in applied:
            found.append(f"{one.key}: sent again after it was applied{', and applied' * one.applied}")
        if one.applied:
            applied.add(one.key)
    return found
