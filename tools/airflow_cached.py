"""Remembers for a moment what Airflow says about DAGs, so that one diagnosis asks for it once.

Only a DAG's own description is kept (tags, tasks, source). Task instances, runs, Variables, Connections and
pools are read fresh every time: the guard before a write depends on them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from graph.domain import DagInfo, TaskInfo
from tools.gateway import AirflowGateway

T = TypeVar("T")

KEEP = timedelta(seconds=3)


class CachedDags:
    """An `AirflowGateway` in front of another one; everything but three reads is passed on as it is."""

    def __init__(self, airflow: AirflowGateway, *, clock: Callable[[], datetime]) -> None:
        self._airflow = airflow
        self._clock = clock
        self._known: dict[tuple[str, str], tuple[datetime, Any]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            return getattr(self._airflow, name)

    async def dag(self, dag_id: str) -> DagInfo:
        return await self._once("dag", dag_id, self._airflow.dag)

    async def dag_tasks(self, dag_id: str) -> tuple[TaskInfo, ...]:
        return await self._once("dag_tasks", dag_id, self._airflow.dag_tasks)

    async def dag_source(self, dag_id: str) -> str:
        return await self._once("dag_source", dag_id, self._airflow.dag_source)

    async def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Read back what was written, not what was known before it."""
        try:
            await self._airflow.set_paused(dag_id, paused=paused)
        finally:
            self._known.pop(("dag", dag_id), None)

    async def _once(self, verb: str, dag_id: str, read: Callable[[str], Awaitable[T]]) -> T:
        now = self._clock()
        known = self._known.get((verb, dag_id))
        if known is None or known[0] + KEEP <= now:
            known = self._known[verb, dag_id] = (now, await read(dag_id))
        found: T = known[1]
        return found
