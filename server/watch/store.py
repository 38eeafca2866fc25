"""What the watch remembers: DAGs that may have missed runs, and how long good runs took."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

from sqlalchemy import and_, delete, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import DomainType, Part, Step
from server.db.database import store_errors
from server.db.tables import ActionRow, IncidentRow, OccurrenceRow, table_of
from server.db.tables_watch import DurationRow, SuspectRow
from server.store import insert_once

KEPT = 30  # good runs of one task
AT_ONCE = 200  # names in one query
DONE = (Part.HEALED.value, Part.LEFT.value, Part.AGAIN.value)  # members that are nobody's work any more


class Suspect(DomainType):
    """A DAG that may have missed runs."""

    dag_id: str
    due: datetime
    paused: bool
    check_at: datetime
    reason: str = ""


TaskName = tuple[str, str]  #: DAG and task
RunName = tuple[str, str]  #: DAG and run


class Durations(DomainType):
    """How long the last good runs of one task took, oldest first, and when the newest ended."""

    seconds: tuple[float, ...]
    until: datetime


class WatchStore:
    """The watch's tables."""

    def __init__(self, engine: AsyncEngine, *, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._clock = clock

    # --- schedules ---

    async def suspects(self) -> dict[str, Suspect]:
        """All of them, by DAG."""
        with store_errors("reading suspects"):
            async with self._engine.connect() as connection:
                rows = (await connection.execute(select(table_of(SuspectRow)))).mappings()
                return {str(row["dag_id"]): Suspect.model_validate(dict(row)) for row in rows}

    async def put_suspects(self, changed: Iterable[Suspect], *, gone: Collection[str] = ()) -> None:
        """Store these, forget those."""
        with store_errors("storing suspects"):
            async with self._engine.begin() as connection:
                for one in changed:
                    values = one.model_dump()
                    await connection.execute(insert_once(self._engine, SuspectRow, values))
                    mine = update(SuspectRow).where(col(SuspectRow.dag_id) == one.dag_id)
                    await connection.execute(mine.values(**values))
                for names in _chunks(sorted(gone)):
                    await connection.execute(delete(SuspectRow).where(col(SuspectRow.dag_id).in_(names)))

    async def paused_by_us(self, dag_id: str) -> bool:
        """Whether our own ledger's last word on this DAG is a pause: it is meant to stand still."""
        query = (
            select(col(ActionRow.name))
            .where(
                col(ActionRow.dag_id) == dag_id,
                col(ActionRow.name).in_(("pause_dag", "unpause_dag")),
                col(ActionRow.step) == Step.CONFIRMED.value,
            )
            .order_by(col(ActionRow.id).desc())
            .limit(1)
        )
        with store_errors("reading the ledger"):
            async with self._engine.connect() as connection:
                return (await connection.execute(query)).scalar_one_or_none() == "pause_dag"

    # --- runs ---

    async def in_hand(self, airflow_id: str, runs: Collection[RunName]) -> set[RunName]:
        """Those of these runs with a failure that an incident has in hand: one that is over tells no more."""
        found: set[RunName] = set()
        key = tuple_(col(OccurrenceRow.dag_id), col(OccurrenceRow.run_id))
        at_work = select(col(IncidentRow.id)).where(
            col(IncidentRow.id) == col(OccurrenceRow.incident_id), col(IncidentRow.open_key).is_not(None)
        )
        held = and_(at_work.exists(), col(OccurrenceRow.part).not_in(DONE))
        pending = or_(col(OccurrenceRow.status) == "new", held)
        with store_errors("reading failures"):
            async with self._engine.connect() as connection:
                for names in _chunks(sorted(runs)):
                    mine = and_(col(OccurrenceRow.airflow) == airflow_id, key.in_(names), pending)
                    query = select(col(OccurrenceRow.dag_id), col(OccurrenceRow.run_id)).where(mine)
                    rows = (await connection.execute(query.distinct())).all()
                    found |= {(dag, run) for dag, run in rows}
        return found

    # --- durations ---

    async def durations(self, tasks: Collection[TaskName]) -> dict[TaskName, Durations]:
        """What is known of these tasks."""
        found: dict[TaskName, Durations] = {}
        with store_errors("reading durations"):
            async with self._engine.connect() as connection:
                for names in _chunks(sorted(tasks)):
                    key = tuple_(col(DurationRow.dag_id), col(DurationRow.task_id))
                    query = select(table_of(DurationRow)).where(key.in_(names))
                    for row in (await connection.execute(query)).mappings():
                        name = (str(row["dag_id"]), str(row["task_id"]))
                        found[name] = Durations(seconds=tuple(row["seconds"] or ()), until=row["updated_at"])
        return found

    async def put_durations(self, known: dict[TaskName, Durations]) -> None:
        """Store what is known of these tasks now; the newest runs only."""
        with store_errors("storing durations"):
            async with self._engine.begin() as connection:
                for (dag_id, task_id), one in known.items():
                    kept = [round(seconds, 3) for seconds in one.seconds[-KEPT:]]
                    values = {"seconds": kept, "count": len(kept), "updated_at": one.until}
                    row = {"dag_id": dag_id, "task_id": task_id, **values}
                    await connection.execute(insert_once(self._engine, DurationRow, row))
                    mine = update(DurationRow).where(
                        col(DurationRow.dag_id) == dag_id, col(DurationRow.task_id) == task_id
                    )
                    await connection.execute(mine.values(**values))


_T = TypeVar("_T")


def _chunks(names: Sequence[_T]) -> list[Sequence[_T]]:
    return [names[at : at + AT_ONCE] for at in range(0, len(names), AT_ONCE)]
