"""The watch: what no failing task tells of, found by looking at Airflow as a whole every minute or so.

What needs something done becomes an incident through the same door as a failure; what only shows that
trouble is near becomes a finding, told once and closed when it is over.

Requests of one round, however many DAGs there are: 2 for health, 1 for pools, at most 5 pages of running
tasks and 3 histories, at most 10 pages of DAGs, 4 for each of 5 suspects, 3 for each of 5 open questions, 1
for failed runs and 3 for each of 10 of them, 2 for each of 10 that were told, 1 for queued runs and 3 for
each of 5 DAGs that have some.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from graph.domain import AirflowHealth, Severity, TaskSnapshot
from graph.errors import AirflowRefused
from server.watch.findings import Findings, Sight
from server.watch.runs import RunWatch
from server.watch.schedules import ScheduleWatch
from server.watch.store import WatchStore
from server.watch.tasks import PoolWatch, TaskWatch
from server.watch.turns import TurnWatch
from tools.gateway import AirflowGateway

log = structlog.get_logger("watch")

SURE = 2  # rounds in a row: one missed heartbeat is no news
STALE = timedelta(hours=1)  # after which the round before says nothing of now


class Watch:
    """Every job of the watch, one round each time `scan` is called."""

    def __init__(
        self,
        *,
        memory: WatchStore,
        findings: Findings,
        airflow: AirflowGateway,
        schedules: ScheduleWatch,
        tasks: TaskWatch,
        pools: PoolWatch,
        runs: RunWatch,
        turns: TurnWatch,
        ring: Callable[[], None],
        clock: Callable[[], datetime],
        stale_after: timedelta = STALE,
    ) -> None:
        self.memory = memory
        self.findings = findings
        self._airflow = airflow
        self._schedules = schedules
        self._tasks = tasks
        self._pools = pools
        self._runs = runs
        self._turns = turns
        self._ring = ring
        self._clock = clock
        self._ill: dict[str, int] = {}
        self._stale_after = stale_after
        self._last = clock()

    async def learn(self, moved: Sequence[TaskSnapshot]) -> None:
        """What the poll saw move."""
        await self._tasks.learn(moved)

    async def scan(self) -> None:
        """One round. An account that may not see one thing still has the others watched."""
        self._heed_pause()
        health = await self._airflow.health()
        await self._components(health)
        found = 0
        for job in (
            self._pools.scan,
            self._runs.scan,
            lambda: self._turns.scan(scheduler_well=health.scheduler is not False),
            self._tasks.scan,
            lambda: self._schedules.scan(scheduler_well=health.scheduler is not False),
        ):
            try:
                found += await job() or 0
            except AirflowRefused as exc:
                log.warning("watch_refused", error=str(exc))
        if found:
            self._ring()

    def _heed_pause(self) -> None:
        """Whoever takes the watch over after long begins anew, and tells no history."""
        before, self._last = self._last, self._clock()
        if self._last - before > self._stale_after:
            self._ill = {}
            for job in (self._pools, self._runs, self._turns):
                job.begin_anew()

    async def _components(self, health: AirflowHealth) -> None:
        parts = {
            "scheduler": health.scheduler,
            "triggerer": health.triggerer,
            "dag_processor": health.dag_processor,
        }
        self._ill = {name: self._ill.get(name, 0) + 1 for name, well in parts.items() if well is False}
        seen = [
            Sight(
                kind="component_unhealthy",
                subject=name,
                text=f"Airflow's {name} has not given a heartbeat in time",
                severity=Severity.CRITICAL if name == "scheduler" else Severity.HIGH,
            )
            for name, rounds in self._ill.items()
            if rounds >= SURE
        ]
        well = [name for name in parts if name not in self._ill]
        await self.findings.sync(
            "component_unhealthy", seen, looked_at=[*well, *(one.subject for one in seen)]
        )
