"""Remembers for a moment what Airflow says about DAGs, so that one diagnosis asks for it once.

Only a DAG's own description is kept (tags, tasks, source), and a task's past runs until something is written.
Task instances, runs, Variables, Connections and pools are read fresh every time: the guard before a write
depends on them. Only the first look at a new incident's task instance is the one that admission has just had.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from graph.domain import DagInfo, TaskInfo, TaskRef, TaskSnapshot
from tools.gateway import AirflowGateway

T = TypeVar("T")

KEEP = timedelta(seconds=3)
JUST_NOW = timedelta(seconds=1)  # within which what admission has read of a task instance is not read again
PAST = 20  # runs of a task that are asked for at once: whoever wants fewer has them with the others
MOVE_TASKS = frozenset({"clear", "mark_task", "trigger", "backfill"})


class CachedDags:
    """An `AirflowGateway` in front of another one; everything but four reads is passed on as it is."""

    def __init__(
        self, airflow: AirflowGateway, *, clock: Callable[[], datetime], seen: TaskSnapshot | None = None
    ) -> None:
        """`seen`: a task instance as it was read just now; whoever asks for it first is given that."""
        self._airflow = airflow
        self._clock = clock
        self._seen, self._since = seen, clock()
        self._known: dict[tuple[str, ...], tuple[datetime, Any]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if name in MOVE_TASKS:
                self._known = {key: found for key, found in self._known.items() if key[0] != "history"}
            return getattr(self._airflow, name)

    async def task(self, task: TaskRef) -> TaskSnapshot:
        """Once what was seen a moment ago, from then on what Airflow says."""
        seen, self._seen = self._seen, None
        if seen is not None and seen.task == task and abs(self._clock() - self._since) < JUST_NOW:
            return seen
        return await self._airflow.task(task)

    async def dag(self, dag_id: str) -> DagInfo:
        return await self._once("dag", dag_id, read=self._airflow.dag)

    async def dag_tasks(self, dag_id: str) -> tuple[TaskInfo, ...]:
        return await self._once("dag_tasks", dag_id, read=self._airflow.dag_tasks)

    async def history(self, dag_id: str, task_id: str, *, limit: int = PAST) -> tuple[TaskSnapshot, ...]:
        if limit > PAST:
            return await self._airflow.history(dag_id, task_id, limit=limit)
        read = partial(self._airflow.history, limit=PAST)
        return (await self._once("history", dag_id, task_id, read=read))[:limit]

    async def dag_source(self, dag_id: str) -> str:
        return await self._once("dag_source", dag_id, read=self._airflow.dag_source)

    async def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Read back what was written, not what was known before it."""
        try:
            await self._airflow.set_paused(dag_id, paused=paused)
        finally:
            self._known.pop(("dag", dag_id), None)

    async def _once(self, verb: str, *about: str, read: Callable[..., Awaitable[T]]) -> T:
        now = self._clock()
        known = self._known.get((verb, *about))
        if known is None or known[0] + KEEP <= now:
            known = self._known[verb, *about] = (now, await read(*about))
        found: T = known[1]
        return found
