"""Remembers for a moment what Airflow says about DAGs, so that one diagnosis asks for it once.

Only a DAG's own description is kept (tags, tasks, source), and a task's past runs until something is written.
Task instances, runs, Variables, Connections and pools are read fresh every time: the guard before a write
depends on them. One exception: what intake has just read of the failed task opens its incident's first drive.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from graph.domain import DagInfo, TaskInfo, TaskRef, TaskSnapshot
from tools.gateway import AirflowGateway

T = TypeVar("T")

KEEP = timedelta(seconds=3)
PAST = 20  # runs of a task that are asked for at once: whoever wants fewer has them with the others
MOVE_TASKS = frozenset({"clear", "mark_task", "trigger", "backfill"})
LATELY = timedelta(seconds=1)
HANDED_OVER = 1000  # task instances


class JustSeen:
    """Task instances that intake has confirmed, until the drives of their incidents begin."""

    def __init__(self, *, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._seen: OrderedDict[TaskRef, tuple[datetime, TaskSnapshot]] = OrderedDict()

    def put(self, snapshot: TaskSnapshot) -> None:
        """Airflow has just said so."""
        self._seen[snapshot.task] = (self._clock(), snapshot)
        if len(self._seen) > HANDED_OVER:
            self._seen.popitem(last=False)

    def take(self, task: TaskRef) -> TaskSnapshot | None:
        """What was seen of it a moment ago; once."""
        at, snapshot = self._seen.pop(task, (None, None))
        return snapshot if at is not None and at <= self._clock() < at + LATELY else None


class CachedDags:
    """An `AirflowGateway` in front of another one; everything but five reads is passed on as it is."""

    def __init__(
        self, airflow: AirflowGateway, *, clock: Callable[[], datetime], seen: TaskSnapshot | None = None
    ) -> None:
        """`seen`: answers the first question, when that is about this task instance."""
        self._airflow = airflow
        self._clock = clock
        self._seen = seen
        self._known: dict[tuple[str, ...], tuple[datetime, Any]] = {}

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            self._seen = None
            if name in MOVE_TASKS:
                self._known = {key: found for key, found in self._known.items() if key[0] != "history"}
            return getattr(self._airflow, name)

    async def task(self, task: TaskRef) -> TaskSnapshot:
        seen, self._seen = self._seen, None
        return seen if seen is not None and seen.task == task else await self._airflow.task(task)

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
        now, self._seen = self._clock(), None
        known = self._known.get((verb, *about))
        if known is None or known[0] + KEEP <= now:
            known = self._known[verb, *about] = (now, await read(*about))
        found: T = known[1]
        return found
