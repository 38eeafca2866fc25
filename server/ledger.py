"""The ledger of one drive: it writes before anything is sent to Airflow, and the rest with the drive's draft.

What may wait, and why nothing is lost by it: an intent alone promises nothing (nothing was sent), and what
Airflow answered is read back from Airflow by whoever finds the entry at `sent`. `sent` itself is committed,
together with the intent and everything that led to it, before the write leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Executable, Update, and_, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.domain import Action, LedgerEntry, Step, TaskRef
from graph.errors import LeaseLost
from server.audit.writes import intent_entry, step_entry
from server.db.database import store_errors
from server.db.group_writer import Writing
from server.db.prepared import Prepared
from server.db.rows import ledger_of
from server.db.tables import ActionRow, IncidentRow, table_of
from server.draft import Draft
from server.record import Lease
from tools.ledger import check_same, check_step, ledger_key

WAIT = "wait"  # changes nothing anywhere, so that the audit trail does not speak of it


@dataclass
class _Line:
    """One entry here, and how far the database knows it."""

    entry: LedgerEntry
    stored: Step | None
    times: dict[str, datetime] = field(default_factory=dict)
    moves: list[tuple[LedgerEntry, Step, JsonValue, str]] = field(default_factory=list)
    writing: tuple[Step, int] | None = None  #: the step and the number of moves that are being committed

    @property
    def dirty(self) -> bool:
        return self.stored is None or bool(self.moves)

    def copied(self) -> _Line:
        """This line as it is now, which is what is being committed."""
        self.writing = (self.entry.step, len(self.moves))
        return _Line(self.entry, self.stored, dict(self.times), list(self.moves))


def _moving(_dialect: str, names: tuple[str, ...]) -> Update:
    table = table_of(ActionRow)
    values = {name: bindparam(name, type_=table.c[name].type) for name in names if name in table.c}
    return (
        update(table)
        .where(
            table.c.incident_id == bindparam("b_incident"),
            table.c.attempt == bindparam("b_attempt"),
            table.c.position == bindparam("b_position"),
            table.c.step == bindparam("b_step"),
        )
        .values(values)
    )


ENTRIES = Prepared(lambda _dialect, _names: insert(ActionRow))
MOVE = Prepared(_moving)


def _on_record(_dialect: str, names: tuple[str, ...]) -> Executable:
    """The entries of an incident beside its row under our epoch: no row at all when it is another's."""
    action, incident = table_of(ActionRow), table_of(IncidentRow)
    of_it = action.c.incident_id == incident.c.id
    if "b_attempt" in names:
        of_it = and_(of_it, action.c.attempt == bindparam("b_attempt"))
    return (
        select(action)
        .select_from(incident.outerjoin(action, of_it))
        .where(incident.c.id == bindparam("b_id"), incident.c.epoch == bindparam("b_epoch"))
        .order_by(action.c.attempt, action.c.position)
    )


ON_RECORD = Prepared(_on_record)


async def entries_on_record(
    engine: AsyncEngine, lease: Lease, *, attempt: int | None = None
) -> tuple[LedgerEntry, ...]:
    """The committed entries of a leased incident (of one attempt). Raises `LeaseLost` when it is not ours."""
    given = {"b_id": lease.incident_id, "b_epoch": lease.epoch}
    if attempt is not None:
        given["b_attempt"] = attempt
    with store_errors("reading the ledger"):
        rows = await ON_RECORD.look(engine, given)
    if not rows:
        raise LeaseLost(f"incident {lease.incident_id} is driven by another worker")
    return tuple(ledger_of(row) for row in rows if row.id is not None)


class StoreLedger:
    """`tools.ledger.ActionLedger` on the store; its steps are committed with the drive's draft."""

    def __init__(
        self,
        engine: AsyncEngine,
        draft: Draft,
        task: TaskRef,
        *,
        clock: Callable[[], datetime],
        quiet: frozenset[str],
    ) -> None:
        """`quiet`: actions that send nothing, so that nothing must be on the record before them."""
        self._engine = engine
        self._draft = draft
        self._task = task
        self._clock = clock
        self._quiet = quiet
        self._lines: dict[tuple[int, int], _Line] = {}
        self._read: set[int | None] = set()
        draft.parts.append(self)

    async def entries(self, *, attempt: int | None = None) -> tuple[LedgerEntry, ...]:
        if not self._read & {attempt, None}:
            for entry in await entries_on_record(self._engine, self._draft.lease, attempt=attempt):
                self._lines.setdefault((entry.attempt, entry.position), _Line(entry, entry.step))
            self._read.add(attempt)
        return tuple(
            line.entry for key, line in sorted(self._lines.items()) if attempt is None or key[0] == attempt
        )

    async def intend(self, attempt: int, position: int, action: Action, before: JsonValue) -> LedgerEntry:
        await self.entries(attempt=attempt)
        if (known := self._lines.get((attempt, position))) is not None:
            check_same(known.entry, action)
            return known.entry
        now, number = self._clock(), self._draft.lease.incident_id
        entry = LedgerEntry(
            incident_id=number,
            attempt=attempt,
            position=position,
            action=action,
            step=Step.INTENT,
            key=ledger_key(number, attempt, position),
            before=before,
            at=now,
        )
        self._lines[attempt, position] = _Line(entry, None, {"intended_at": now})
        self._draft.touch()
        return entry

    async def advance(
        self, entry: LedgerEntry, step: Step, *, after: JsonValue = None, error: str = ""
    ) -> LedgerEntry:
        check_step(entry, step)
        line = self._lines[entry.attempt, entry.position]
        if line.entry.step is not entry.step:
            raise LeaseLost(f"ledger {entry.key} was moved on by another worker")
        now = self._clock()
        line.times["sent_at" if step is Step.SENT else "ended_at"] = now
        line.moves.append((entry, step, after, error))
        changed = {"step": step, "after": after, "error": error, "at": now}
        line.entry = entry.model_copy(update=changed | ({"sent_at": now} if step is Step.SENT else {}))
        if step is Step.SENT and entry.action.name not in self._quiet:
            await self._draft.flush()
        else:
            self._draft.touch()
        return line.entry

    async def write(self, writing: Writing) -> None:
        """See `server.draft.Part`. The draft has locked the incident under our epoch."""
        # As they stand now: the drive goes on while this is written, and what it adds comes with the next.
        lines = [line.copied() for _, line in sorted(self._lines.items()) if line.dirty]
        if fresh := [self._row(line) for line in lines if line.stored is None]:
            await ENTRIES.run_many(writing.connection, fresh)
        for line in lines:
            entry = line.entry
            if entry.action.name == WAIT:
                if line.stored is not None:
                    await self._move(writing, line, line.stored)
                continue  # nothing that anybody could want accounted for
            if line.stored is None:
                writing.entries.append(
                    await intent_entry(
                        writing,
                        entry.incident_id,
                        key=entry.key,
                        action=entry.action,
                        before=entry.before,
                    )
                )
            else:
                await self._move(writing, line, line.stored)
            writing.entries += [
                step_entry(old, step, after=after, error=error) for old, step, after, error in line.moves
            ]

    def written(self) -> None:
        """See `server.draft.Part`."""
        for line in self._lines.values():
            if line.writing is not None:
                line.stored, done = line.writing
                line.moves = line.moves[done:]
                line.writing = None

    async def _move(self, writing: Writing, line: _Line, known: Step) -> None:
        entry = line.entry
        place = {"b_incident": entry.incident_id, "b_attempt": entry.attempt, "b_position": entry.position}
        if await MOVE.run(writing.connection, self._changing(line) | place | {"b_step": known.value}) != 1:
            raise LeaseLost(f"ledger {entry.key} was moved on by another worker")

    def _changing(self, line: _Line) -> dict[str, Any]:
        entry, epoch = line.entry, self._draft.lease.epoch
        words = {"step": entry.step.value, "after": entry.after, "error": entry.error, "epoch": epoch}
        return words | line.times

    def _row(self, line: _Line) -> dict[str, Any]:
        entry = line.entry
        return {
            "incident_id": entry.incident_id,
            "attempt": entry.attempt,
            "position": entry.position,
            "key": entry.key,
            "name": entry.action.name,
            "dag_id": self._task.dag_id,
            "task_id": self._task.task_id,
            "target": entry.action.target,
            "args": entry.action.args,
            "before": entry.before,
            **dict.fromkeys(("sent_at", "ended_at")),
            **self._changing(line),
        }
