"""The pipelines that this Airflow runs, as far as it was asked: looked up at most every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from graph.domain import DagInfo, DomainType, RunSnapshot
from graph.errors import AirflowRefused, AirmedicError
from server.listing import IncidentQuery
from server.store import IncidentStore
from tools.gateway import AirflowGateway

FRESH = timedelta(seconds=15)
LOOKED_BACK = timedelta(hours=24)
RUNS = 5  # of each pipeline
MOST = 50  # pipelines
AT_ONCE = 4  # questions to Airflow
PATIENCE = 10.0  # seconds for all of them


class Pipeline(DomainType):
    """One DAG and its last runs, newest first."""

    dag_id: str
    is_paused: bool
    tags: tuple[str, ...]
    next_run: datetime | None
    runs: tuple[RunSnapshot, ...]


class Pipelines:
    """Airflow's DAGs and how their last runs ended."""

    def __init__(
        self, *, store: IncidentStore, airflow: AirflowGateway, clock: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._airflow = airflow
        self._clock = clock
        self._lock = asyncio.Lock()
        self._known: tuple[datetime, tuple[Pipeline, ...]] | None = None

    async def read(self, *, ask: bool = True) -> tuple[Pipeline, ...]:
        """What was read last, while it is fresh or Airflow is not to be asked or does not answer."""
        async with self._lock:
            now = self._clock()
            if not ask:
                return self._known[1] if self._known is not None else ()
            if self._known is None or now - self._known[0] > FRESH:
                before = self._known[1] if self._known is not None else ()
                self._known = (now, await self._ask(now, before))
            return self._known[1]

    async def _ask(self, now: datetime, before: tuple[Pipeline, ...]) -> tuple[Pipeline, ...]:
        try:
            async with asyncio.timeout(PATIENCE):
                dags = await self._dags(now)
                slots = asyncio.Semaphore(AT_ONCE)
                found = await asyncio.gather(*(self._one(dag, slots) for dag in dags))
        except (TimeoutError, AirmedicError):
            return before
        return tuple(one for one in found if one is not None)

    async def _dags(self, now: datetime) -> list[DagInfo]:
        """The first page of DAGs, those in which something happened before the others."""
        known = await self._airflow.dags(limit=100)
        moved = await self._airflow.updates_since(now - LOOKED_BACK, limit=1000)
        lines = await self._store.listing.page(IncidentQuery(), cursor=None, limit=200)
        busy = {one.task.dag_id for one in moved} | {one.task.dag_id for one in lines.items}
        chosen = sorted(known, key=lambda dag: (dag.dag_id not in busy, dag.dag_id))[:MOST]
        return sorted(chosen, key=lambda dag: dag.dag_id)

    async def _one(self, dag: DagInfo, slots: asyncio.Semaphore) -> Pipeline | None:
        async with slots:
            try:
                runs = await self._airflow.recent_runs(dag.dag_id, limit=RUNS)
            except AirflowRefused:
                return None  # gone meanwhile, or not ours to read
        return Pipeline(
            dag_id=dag.dag_id, is_paused=dag.is_paused, tags=dag.tags, next_run=dag.next_run, runs=runs
        )


def success_rate(pipelines: Iterable[Pipeline]) -> float | None:
    """The share of ended runs that succeeded; None when none has ended."""
    states = [run.state for one in pipelines for run in one.runs if run.state in {"success", "failed"}]
    return round(states.count("success") / len(states), 4) if states else None
