"""Counters that survive a restart: counted from the agent log and the audit trail, line by line, once.

What was counted so far stands in the store beside the line it reached. Whoever reads on from there arrives at
the same numbers, so servers that share a database tell the same, and pruned incidents stay counted.
"""

from __future__ import annotations

import asyncio
import json
from bisect import bisect_left
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import Door, IncidentKind, Step
from server.db.database import store_errors
from server.db.packed import asked_of, entry_of
from server.db.tables import EventRow, IncidentRow
from server.db.tables_people import AuditRow
from server.observe.figures import HELPED
from server.store import IncidentStore

STORED_AS = "metrics_tally"  # the setting that holds it
PAGE = 2000  # lines read at a time
# Postgres numbers lines before they are committed: a younger number can be seen first.
SETTLED = timedelta(seconds=10)
BOUNDS = (1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0)  # seconds
MOST_DAGS = 200  # that are told apart by name; the others are "other"
ENDS = {f"write_{one}": one for one in (Step.CONFIRMED.value, Step.FAILED.value, "never_arrived")}
UNDONE = f"write_{Step.UNDONE.value}"
COUNTED = (
    "opened", "joined", "gathered", "diagnosed", "decided", "asked", "answered", "checked", "fix_undone",
    "ended", "step_failed", "early_warning", "events_dropped",
)  # fmt: skip


class Spread(BaseModel):
    """How long something took, in the buckets of a histogram; seconds."""

    buckets: list[int] = Field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """One more; a clock that ran ahead is no negative time."""
        seconds = max(0.0, seconds)
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds


class Counts(BaseModel):
    """Everything counted so far, and up to which line."""

    event: int = 0
    audit: int = 0
    totals: dict[str, dict[str, float]] = Field(default_factory=dict)  #: by name, then by its labels as JSON
    spreads: dict[str, Spread] = Field(default_factory=dict)
    asked: dict[int, datetime] = Field(default_factory=dict)  #: open questions
    modes: dict[str, str] = Field(default_factory=dict)  #: who allowed the writes that are on their way

    def add(self, name: str, *labels: str, amount: float = 1) -> None:
        """Count one more of these."""
        held = self.totals.setdefault(name, {})
        key = json.dumps(labels)
        held[key] = held.get(key, 0) + amount

    def took(self, name: str, began: datetime | None, ended: datetime) -> None:
        """Note how long it took, when it is known when it began."""
        if began is not None:
            self.spreads.setdefault(name, Spread()).add((ended - began).total_seconds())


class Tally:
    """Reads what is new in the log and the trail, and counts it."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        store: IncidentStore,
        clock: Callable[[], datetime],
        dags: bool = False,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._dags = dags
        self._lock = asyncio.Lock()
        self._counts: Counts | None = None
        self._stored = (0, 0)

    async def read(self) -> Counts:
        """The counts as of now."""
        async with self._lock:
            counts = self._counts if self._counts is not None else await self._load()
            fresh = counts.model_copy(deep=True)
            with store_errors("counting"):
                async with self._engine.connect() as connection:
                    while await self._log_page(connection, fresh):
                        pass
                    while await self._trail_page(connection, fresh):
                        pass
            self._counts = fresh
            return fresh

    async def keep(self) -> None:
        """Count, and store the counts when they changed."""
        counts = await self.read()
        if (place := (counts.event, counts.audit)) != self._stored:
            await self._store.remember(STORED_AS, counts.model_dump(mode="json"))
            self._stored = place

    async def _load(self) -> Counts:
        known = await self._store.setting(STORED_AS)
        return Counts.model_validate(known) if isinstance(known, dict) else Counts()

    # --- the agent log ---

    async def _log_page(self, connection: AsyncConnection, counts: Counts) -> bool:
        """One page; True when there may be more."""
        newest = select(col(EventRow.id)).order_by(col(EventRow.id).desc()).limit(1)
        if self._engine.dialect.name != "sqlite":
            newest = newest.where(col(EventRow.at) <= self._clock() - SETTLED)
        upto = (await connection.execute(newest)).scalar_one_or_none()
        if upto is None or upto <= counts.event:
            return False
        about = IncidentRow
        query = (
            select(
                col(EventRow.id), col(EventRow.at), col(EventRow.incident_id), col(EventRow.name),
                col(EventRow.data), col(about.root_cause), col(about.failed_at), col(about.opened_at),
                col(about.dag_id), col(about.kind),
            )
            .outerjoin_from(EventRow, about, col(about.id) == col(EventRow.incident_id))
            .where(
                col(EventRow.id) > counts.event, col(EventRow.id) <= upto, col(EventRow.name).in_(COUNTED)
            )
            .order_by(col(EventRow.id))
            .limit(PAGE)
        )  # fmt: skip
        rows = (await connection.execute(query)).all()
        first = await self._first_recoveries(connection, rows)
        for row in rows:
            self._count(counts, row, row.data if isinstance(row.data, dict) else {}, first)
        full = len(rows) == PAGE
        counts.event = rows[-1].id if full else upto
        return full

    @staticmethod
    async def _first_recoveries(connection: AsyncConnection, rows: Any) -> set[int]:
        """Of the checks that found all well, the first of each incident."""
        helped = [one.value for one in HELPED]
        well = [row for row in rows if row.name == "checked" and (row.data or {}).get("outcome") in helped]
        data = asked_of(col(EventRow.data), sqlite=connection.dialect.name == "sqlite")
        number, outcome = col(EventRow.incident_id), data["outcome"].as_string()
        wanted = sorted({row.incident_id for row in well})
        if not wanted:
            return set()
        query = select(func.min(col(EventRow.id))).where(
            number.in_(wanted), col(EventRow.name) == "checked", outcome.in_(helped)
        )
        found = (await connection.execute(query.group_by(number))).scalars()
        return {one for one in found if one is not None}

    def _count(self, counts: Counts, row: Any, data: dict[str, Any], recoveries: set[int]) -> None:
        match row.name:
            case "opened" | "joined":
                self._count_failure(counts, row, data)
            case "gathered":
                for door, number in dict(data.get("doors") or {}).items():
                    counts.add("occurrences", str(door), IncidentKind.FAILURE.value, amount=float(number))
            case "diagnosed":
                _count_model(counts, data.get("model"))
                counts.took("time_to_diagnose", row.opened_at, row.at)
            case "decided":
                counts.add("decisions", str(data.get("verdict")), "shadow" if data.get("shadow") else "on")
            case "asked":
                counts.asked[row.incident_id] = row.at
            case "answered":
                counts.took("approval_wait", counts.asked.pop(row.incident_id, None), row.at)
            case "checked":
                counts.add("verifications", str(data.get("outcome") or "not_known_yet"))
                if row.id in recoveries:
                    counts.took("time_to_recover", row.failed_at or row.opened_at, row.at)
            case "fix_undone":
                counts.add("rollbacks")
            case "ended":
                counts.asked.pop(row.incident_id, None)
                outcome = str(data.get("outcome"))
                counts.add("incidents", row.root_cause or "none", outcome)
                if self._dags:
                    counts.add("dag_incidents", _dag_label(counts, row.dag_id or ""), outcome)
            case "step_failed":
                counts.add("step_failures")
            case "early_warning":
                counts.add("early_warnings", str(data.get("kind")))
            case "events_dropped":
                counts.add("events_dropped", amount=float(data.get("number") or 0))

    @staticmethod
    def _count_failure(counts: Counts, row: Any, data: dict[str, Any]) -> None:
        door, kind = str(data.get("door")), str(data.get("kind"))
        counts.add("occurrences", door, kind)
        if door == Door.POLL.value and kind == IncidentKind.FAILURE.value:
            counts.add("reconcile_missed")
        if isinstance(failed := data.get("failed_at"), str):
            counts.took("time_to_detect", datetime.fromisoformat(failed), row.at)

    # --- the audit trail: its numbers have no gaps ---

    @staticmethod
    async def _trail_page(connection: AsyncConnection, counts: Counts) -> bool:
        body = entry_of(col(AuditRow.body), sqlite=connection.dialect.name == "sqlite")
        query = (
            select(col(AuditRow.seq), col(AuditRow.kind), body.label("body"))
            .where(col(AuditRow.seq) > counts.audit)
            .order_by(col(AuditRow.seq))
            .limit(PAGE)
        )
        rows = (await connection.execute(query)).all()
        for row in rows:
            if row.kind.startswith("write_") and (told := _told(row.body)) is not None:
                _count_write(counts, row.kind, told)
            counts.audit = row.seq
        return len(rows) == PAGE


def _told(body: str) -> dict[str, Any] | None:
    """What an entry says. One that was tampered with is not counted: `airmedic audit verify` names it."""
    try:
        told = json.loads(body)
    except ValueError:
        return None
    return told if isinstance(told, dict) and isinstance(told.get("data"), dict) else None


def _count_write(counts: Counts, kind: str, entry: dict[str, Any]) -> None:
    data = entry["data"]
    key, action = str(data.get("key")), str(data.get("action"))
    if kind == "write_intent":
        counts.modes[key] = "auto" if str(entry.get("by")).startswith("policy rule ") else "approved"
    elif kind in ENDS:
        counts.add("actions", action, counts.modes.pop(key, "unknown"), ENDS[kind])
    elif kind == UNDONE:
        counts.modes.pop(key, None)
        counts.add("actions", action, "undo", Step.UNDONE.value)


def _count_model(counts: Counts, used: Any) -> None:
    if not isinstance(used, dict):
        return
    model = str(used.get("model"))
    counts.add("llm_requests", model, str(used.get("outcome")), amount=float(used.get("calls") or 0))
    counts.add("llm_tokens", model, "input", amount=float(used.get("input_tokens") or 0))
    counts.add("llm_tokens", model, "output", amount=float(used.get("output_tokens") or 0))
    counts.add("llm_cost_usd", model, amount=float(used.get("cost_usd") or 0.0))


def _dag_label(counts: Counts, dag_id: str) -> str:
    known = {json.loads(key)[0] for key in counts.totals.get("dag_incidents", {})}
    return dag_id if dag_id in known or len(known) < MOST_DAGS else "other"
