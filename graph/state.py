"""What travels between nodes: few keys, domain types only, logs by digest."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, TypedDict

from graph.domain import (
    Decision,
    Diagnosis,
    FixPlan,
    Group,
    Incident,
    Note,
    Outcome,
    Role,
    TaskSnapshot,
    Verification,
)

# What is to be done next about the members: send a wave, see what became of it, ask a person.
Release = Literal["", "send", "watch", "ask"]


class HealState(TypedDict, total=False):
    """One incident on its way through the graph. Keys are absent until a node has set them."""

    incident: Incident

    intervene: bool  #: monitor found a final failure that is ours to act on
    failure: TaskSnapshot  #: the failed task instance as it was when diagnosed
    ready_at: datetime  #: when state and log were final: our own time is counted from here
    log: str  #: digest of the log in the archive
    diagnosis: Diagnosis
    notes: list[Note]  #: words of people; the next diagnosis reads them
    rethink: bool  #: a person said something: diagnose again

    plan: FixPlan | None  #: the plan in hand
    decision: Decision | None  #: policy's word on it
    spent: list[str]  #: ids of plans tried or rejected; never proposed again
    checklist: list[str]  #: what a person should look at when there is no plan
    asked: bool  #: a person is to be asked about the plan in hand
    approved_by: str  #: who approved the plan in hand; empty when policy alone did
    approved_role: Role  #: what who approved may do; policy may ask for more by the time of the write

    attempt: int  #: plans applied so far
    due: datetime | None  #: the plan in hand begins at or after this
    began_at: datetime  #: when the plan's time had come and the fix began
    applied_at: datetime
    applied: bool  #: the plan's writes are confirmed; verification runs
    undo: bool  #: the applied plan did not help and is to be taken back
    taken_back: bool  #: settings were put back: the newest failure tells of a world that is gone
    stale: str  #: why the plan was withdrawn; empty when it was not
    watch_until: datetime | None  #: healed so far; recurrence is watched until then
    looked_at: datetime | None  #: when it was found healed and the watch began

    group: Group  #: the others that failed of the same cause
    gathered: bool  #: there was time for others of the same cause to come in
    release: Release

    verification: Verification
    outcome: Outcome | None  #: how it ended; None while it goes on
    reason: str  #: why it ended so, in a sentence
