"""What policy counts, from the ledger and from how incidents ended; and the switches that people set."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

from sqlalchemy import ColumnElement, Executable, and_, bindparam, case, func, not_, select
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import col

from graph.domain import Connection, Outcome, RootCause, Status, TaskRef
from nodes.deps import Control
from server.db.database import store_errors
from server.db.prepared import Prepared
from server.db.tables import ActionRow, EventRow, IncidentRow, UtcDateTime
from server.snapshots import read_snapshots
from server.store import IncidentStore
from tools.ledger import WAVES
from tools.policy import Counters

CONTROL = "control"  # the setting that holds {"paused": bool, "shadow": bool}
LOOKED_BACK = 50  # incidents with a fix; more in a row than any breaker counts
PASSIVE = ("wait", "notify", "add_note")  # no budget is spent on these
HELPED = (Outcome.HEALED, Outcome.RECOVERED_UNVERIFIED)


class StoreRecords:
    """`nodes.deps.Records` on the store, for one drive of one incident."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        store: IncidentStore,
        clock: Callable[[], datetime],
        shadow: bool,
    ) -> None:
        self._engine = engine
        self._store = store
        self._clock = clock
        self._shadow = shadow
        self._members: dict[int, tuple[TaskRef, ...]] = {}

    async def control(self) -> Control:
        """The kill switch and shadow mode: what people set last, else what the settings say."""
        given = await self._store.setting(CONTROL)
        known = given if isinstance(given, dict) else {}
        shadow = known.get("shadow")
        return Control(
            paused=known.get("paused") is True, shadow=self._shadow if shadow is None else shadow is True
        )

    async def members(self, incident_id: int) -> tuple[TaskRef, ...]:
        """The task instances whose failures an incident holds."""
        if incident_id not in self._members:
            # Who joins while it is driven rings: the next drive looks again.
            self._members[incident_id] = await self._store.members(incident_id)
        return self._members[incident_id]

    async def last_good(self, dag_id: str) -> Mapping[str, Connection]:
        """The DAG's Connections as they were when a run of it last succeeded."""
        return await read_snapshots(self._store, dag_id)

    async def causes(self, task: TaskRef, runs: Sequence[str]) -> Mapping[str, frozenset[RootCause | None]]:
        """By run, of the incidents of any of the task's map indexes."""
        row = IncidentRow
        query = select(col(row.run_id), col(row.root_cause)).where(
            col(row.dag_id) == task.dag_id, col(row.task_id) == task.task_id, col(row.run_id).in_(runs)
        )
        with store_errors("reading what failed since"):
            async with self._engine.connect() as connection:
                found = (await connection.execute(query)).all()
        causes: dict[str, set[RootCause | None]] = {}
        for run, cause in found:
            causes.setdefault(run, set()).add(None if cause is None else RootCause(cause))
        return {run: frozenset(some) for run, some in causes.items()}

    async def counters(self, task: TaskRef) -> Counters:
        """Attempts, actions and failed heals in a row, as of now."""
        now = self._clock()
        given = {
            "b_dag": task.dag_id,
            "b_task": task.task_id,
            "b_day": now - timedelta(days=1),
            "b_hour": now - timedelta(hours=1),
        }
        with store_errors("counting for policy"):
            ((attempts, actions, of_dag),) = await COUNTED.look(self._engine, given)
            ended = await ENDED.look(self._engine, {})
            of_this = await ENDED.look(self._engine, {"b_dag": task.dag_id})
            failed, last = _in_a_row(ended)
            failed_dag, last_dag = _in_a_row(of_this)
            trials = await self._trials(task, {}, last)
            trials_dag = await self._trials(task, {"b_dag": task.dag_id}, last_dag)
        return Counters(
            attempts_today=attempts,
            actions_last_hour=actions,
            actions_last_hour_dag=of_dag,
            failed_heals=failed,
            failed_heals_dag=failed_dag,
            last_failed_heal=last,
            last_failed_heal_dag=last_dag,
            trials=trials,
            trials_dag=trials_dag,
        )

    async def _trials(self, own: TaskRef, scope: dict[str, Any], since: datetime | None) -> int:
        if since is None:
            return 0
        ref = {"b_own_dag": own.dag_id, "b_own_run": own.run_id, "b_own_task": own.task_id}
        ((count,),) = await TRIALS.look(self._engine, {"b_since": since, **ref, **scope})
        return int(count)


def _counted(_dialect: str, _names: tuple[str, ...]) -> Executable:
    """Attempts on the task in a day, actions in an hour, and those of them on the DAG."""
    row = ActionRow
    day, hour = (bindparam(name, type_=UtcDateTime()) for name in ("b_day", "b_hour"))
    active = _active()
    of_dag = col(row.dag_id) == bindparam("b_dag")
    tried = (
        select(col(row.incident_id), col(row.attempt))
        .where(of_dag, col(row.task_id) == bindparam("b_task"), col(row.sent_at) >= day, active)
        .distinct()
        .subquery()
    )
    lately = select(func.count()).select_from(row).where(col(row.sent_at) >= hour, active)
    return select(
        select(func.count()).select_from(tried).scalar_subquery(),
        lately.scalar_subquery(),
        lately.where(of_dag).scalar_subquery(),
    )


def _active() -> ColumnElement[bool]:
    """What budgets and breakers are about: waves have a pace of their own."""
    names = (col(ActionRow.name) != name for name in PASSIVE)
    return and_(*names, col(ActionRow.attempt) < WAVES)


def _ended(_dialect: str, names: tuple[str, ...]) -> Executable:
    """(outcome, when) of the incidents whose fixes were sent last, to all DAGs or to one."""
    row, line, sent = IncidentRow, EventRow, ActionRow
    chosen = and_(_active(), col(sent.sent_at).is_not(None))
    over = select(func.max(col(line.at))).where(col(line.incident_id) == row.id, col(line.name) == "ended")
    if "b_dag" in names:
        chosen = and_(chosen, col(sent.dag_id) == bindparam("b_dag"))
    # By their fixes, not by when they changed last: old ones may all be closed by a person today.
    last = (
        select(col(sent.incident_id)).where(chosen).order_by(col(sent.sent_at).desc()).limit(2 * LOOKED_BACK)
    )
    # It ended when it was handed over, not when a person closed it, which may be days later.
    closed = and_(col(row.status) == Status.CLOSED.value, col(row.outcome) == Outcome.ESCALATED.value)
    when = func.coalesce(over.scalar_subquery(), col(row.updated_at))
    return select(col(row.outcome), case((closed, when), else_=col(row.updated_at))).where(
        col(row.outcome).is_not(None), col(row.id).in_(select(last.subquery().c.incident_id))
    )


def _trials(_dialect: str, names: tuple[str, ...]) -> Executable:
    """Incidents of other tasks whose fixes were sent since, and which are not over."""
    row, fix = IncidentRow, ActionRow
    own = and_(
        col(row.dag_id) == bindparam("b_own_dag"),
        col(row.run_id) == bindparam("b_own_run"),
        col(row.task_id) == bindparam("b_own_task"),
    )
    chosen = and_(_active(), col(fix.sent_at) > bindparam("b_since", type_=UtcDateTime()))
    if "b_dag" in names:
        chosen = and_(chosen, col(fix.dag_id) == bindparam("b_dag"))
    return (
        select(func.count(col(fix.incident_id).distinct()))
        .join(row, col(row.id) == col(fix.incident_id))
        .where(chosen, col(row.outcome).is_(None), not_(own))
    )


COUNTED, ENDED, TRIALS = Prepared(_counted), Prepared(_ended), Prepared(_trials)


def _in_a_row(ended: Sequence[tuple[Any, ...]]) -> tuple[int, datetime | None]:
    """Failed heals since the last one that helped; what repaired itself neither helps nor counts."""
    failed = 0
    last: datetime | None = None
    for outcome, at in sorted(ended, key=itemgetter(1), reverse=True):
        if outcome in HELPED:
            break
        if outcome in (Outcome.ESCALATED, Outcome.NOT_HEALED):
            failed += 1
            last = last or at
    return failed, last
