"""What policy counts, from the ledger and from how incidents ended; and the switches that people set."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import Connection, Outcome, TaskRef
from nodes.deps import Control
from server.database import store_errors
from server.snapshots import read_snapshots
from server.store import IncidentStore
from server.tables import ActionRow, IncidentRow
from tools.policy import Counters

CONTROL = "control"  # the setting that holds {"paused": bool, "shadow": bool}
LOOKED_BACK = 50  # ended incidents with a fix; more in a row than any breaker counts
PASSIVE = ("wait", "notify", "add_note")  # no budget is spent on these
HELPED = (Outcome.HEALED, Outcome.RECOVERED_UNVERIFIED)


class StoreRecords:
    """`nodes.deps.Records` on the store."""

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
        return await self._store.members(incident_id)

    async def last_good(self, dag_id: str) -> Mapping[str, Connection]:
        """The DAG's Connections as they were when a run of it last succeeded."""
        return await read_snapshots(self._store, dag_id)

    async def counters(self, task: TaskRef) -> Counters:
        """Attempts, actions and failed heals in a row, as of now."""
        now = self._clock()
        with store_errors("counting for policy"):
            async with self._engine.connect() as connection:
                hour = now - timedelta(hours=1)
                ended = await self._ended(connection)
                return Counters(
                    attempts_today=await self._attempts(connection, task, now - timedelta(days=1)),
                    actions_last_hour=await self._actions(connection, hour),
                    actions_last_hour_dag=await self._actions(connection, hour, task.dag_id),
                    **_in_a_row(ended, ""),
                    **_in_a_row([one for one in ended if one[0] == task.dag_id], "_dag"),
                )

    async def _attempts(self, connection: AsyncConnection, task: TaskRef, since: datetime) -> int:
        tried = (
            select(col(ActionRow.incident_id), col(ActionRow.attempt))
            .where(
                col(ActionRow.dag_id) == task.dag_id,
                col(ActionRow.task_id) == task.task_id,
                col(ActionRow.sent_at) >= since,
                col(ActionRow.name).not_in(PASSIVE),
            )
            .distinct()
            .subquery()
        )
        return int((await connection.execute(select(func.count()).select_from(tried))).scalar_one())

    async def _actions(self, connection: AsyncConnection, since: datetime, dag_id: str | None = None) -> int:
        query = select(func.count(col(ActionRow.id))).where(
            col(ActionRow.sent_at) >= since, col(ActionRow.name).not_in(PASSIVE)
        )
        if dag_id is not None:
            query = query.where(col(ActionRow.dag_id) == dag_id)
        return int((await connection.execute(query)).scalar_one())

    async def _ended(self, connection: AsyncConnection) -> list[tuple[str, str, datetime]]:
        """(dag, outcome, when) of the last incidents on which a fix was tried, newest first."""
        query = (
            select(col(IncidentRow.dag_id), col(IncidentRow.outcome), col(IncidentRow.updated_at))
            .where(col(IncidentRow.attempt) > 0, col(IncidentRow.outcome).is_not(None))
            .order_by(col(IncidentRow.updated_at).desc())
            .limit(LOOKED_BACK)
        )
        return [(dag, str(outcome), at) for dag, outcome, at in (await connection.execute(query)).all()]


def _in_a_row(ended: list[tuple[str, str, datetime]], suffix: str) -> dict[str, int | datetime | None]:
    """Failed heals since the last one that helped; what repaired itself neither helps nor counts."""
    failed = 0
    last: datetime | None = None
    for _, outcome, at in ended:
        if outcome in HELPED:
            break
        if outcome in (Outcome.ESCALATED, Outcome.NOT_HEALED):
            failed += 1
            last = last or at
    return {f"failed_heals{suffix}": failed, f"last_failed_heal{suffix}": last}
