"""Tasks that run for too long, tasks that grow slower, pools that starve.

How long a task usually takes is learned from what the poll lists anyway, without a request of its own. Only a
task that runs for minutes and was never seen to end is asked about, a few in each round.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import structlog

from graph.domain import Door, FailureId, IncidentKind, Pool, TaskSnapshot
from graph.errors import AirflowRefused
from server.store import IncidentStore
from server.watch.findings import Findings, Sight
from server.watch.store import KEPT, Durations, TaskName, WatchStore
from tools.durations import GOOD_RUNS, drift, in_words, too_long, usual
from tools.gateway import AirflowGateway

log = structlog.get_logger("watch")

HISTORIES = 3  # tasks in one round whose past is asked of Airflow
ASK_AGAIN = timedelta(minutes=30)  # about a task whose past says too little
MOST = 20  # new incidents of one round: what hits more at once has one cause, and a person sees it by then


def name_of(task: TaskSnapshot) -> TaskName:
    """All instances of a task share their past."""
    return task.task.dag_id, task.task.task_id


class TaskWatch:
    """Running tasks and what good runs took."""

    def __init__(
        self,
        *,
        store: IncidentStore,
        memory: WatchStore,
        findings: Findings,
        airflow: AirflowGateway,
        airflow_id: str,
        floor: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._memory = memory
        self._findings = findings
        self._airflow = airflow
        self._airflow_id = airflow_id
        self._floor = floor
        self._clock = clock
        self._asked: dict[TaskName, datetime] = {}

    async def learn(self, moved: Sequence[TaskSnapshot]) -> None:
        """Take note of good runs that ended, and whether their tasks grow slower."""
        ended = [one for one in moved if one.state == "success" and one.duration and one.end]
        if not ended:
            return
        known = await self._memory.durations({name_of(one) for one in ended})
        changed: dict[TaskName, Durations] = {}
        for one in _slowest_of_each(ended):
            name = name_of(one)
            before = changed.get(name) or known.get(name)
            assert one.end is not None
            assert one.duration is not None
            if before is not None and one.end <= before.until:
                continue  # listed again
            seconds = (*(before.seconds if before else ()), one.duration)[-KEPT:]
            changed[name] = Durations(seconds=seconds, until=one.end)
        await self._memory.put_durations(changed)
        await self._warn_of_drift(changed)

    async def _warn_of_drift(self, changed: dict[TaskName, Durations]) -> None:
        seen = []
        for (dag_id, task_id), known in changed.items():
            if (slower := drift(known.seconds)) is None:
                continue
            before = slower.before
            text = (
                f"{dag_id}.{task_id} took {in_words(slower.now)} (median of its last runs), "
                f"{slower.factor:.1f} times the {in_words(before.median)} of the {before.runs} runs before"
            )
            numbers = {"now": slower.now, "before": before.median, "spread": before.spread}
            seen.append(
                Sight(kind="duration_drift", subject=f"{dag_id}.{task_id}", text=text, numbers=dict(numbers))
            )
        subjects = [f"{dag_id}.{task_id}" for dag_id, task_id in changed]
        await self._findings.sync("duration_drift", seen, looked_at=subjects)

    async def scan(self) -> int:
        """Find tasks that run far longer than they ever did; how many are new."""
        now = self._clock()
        running = await self._airflow.running_tasks()
        slow = [one for one in running if one.start is not None and now - one.start > self._floor]
        if not slow:
            return 0
        known = await self._known({name_of(one) for one in slow})
        found = []
        for one in slow:
            past = usual(known[name_of(one)].seconds) if name_of(one) in known else None
            assert one.start is not None
            if past is None:
                continue
            limit = too_long(past, floor=self._floor.total_seconds())
            if (now - one.start).total_seconds() > limit:
                found.append(one)
        return await self._report(found[:MOST])

    async def _known(self, names: set[TaskName]) -> dict[TaskName, Durations]:
        """What is remembered, and for a few tasks of which that is too little, what Airflow remembers."""
        now, known = self._clock(), await self._memory.durations(names)
        little = [name for name in sorted(names) if name not in known or len(known[name].seconds) < GOOD_RUNS]
        ask = [name for name in little if self._asked.get(name, now - ASK_AGAIN) <= now - ASK_AGAIN]
        learned: dict[TaskName, Durations] = {}
        for name in ask[:HISTORIES]:
            self._asked[name] = now
            try:
                past = await self._airflow.history(*name, limit=KEPT)
            except AirflowRefused:
                continue
            good = [one for one in past if one.state == "success" and one.duration and one.end]
            if good:
                ordered = sorted(_slowest_of_each(good), key=lambda one: one.end or now)
                seconds = tuple(one.duration or 0.0 for one in ordered)
                learned[name] = Durations(seconds=seconds, until=ordered[-1].end or now)
        await self._memory.put_durations(learned)
        return {**known, **learned}

    async def _report(self, found: Sequence[TaskSnapshot]) -> int:
        failures = [
            FailureId(
                airflow=self._airflow_id,
                task=one.task,
                try_number=one.try_number,
                kind=IncidentKind.STUCK_RUNNING,
            )
            for one in found
        ]
        new = await self._store.accept(failures, door=Door.POLL) if failures else 0
        if new:
            log.info("tasks_run_on", tasks=new)
        return new


def _slowest_of_each(ended: Iterable[TaskSnapshot]) -> list[TaskSnapshot]:
    """One for each task of each run, the slowest map index for all, by the time they ended."""
    slowest: dict[tuple[str, str, str], TaskSnapshot] = {}
    for one in ended:
        key = (one.task.dag_id, one.task.run_id, one.task.task_id)
        known = slowest.get(key)
        if known is None or (one.duration or 0.0) > (known.duration or 0.0):
            slowest[key] = one
    return sorted(slowest.values(), key=lambda one: one.end.timestamp() if one.end else 0.0)


class PoolWatch:
    """Pools that have been full for long while tasks wait for them."""

    def __init__(
        self,
        *,
        findings: Findings,
        airflow: AirflowGateway,
        starved_after: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._findings = findings
        self._airflow = airflow
        self._starved_after = starved_after
        self._clock = clock
        self._since: dict[str, datetime] = {}

    def begin_anew(self) -> None:
        """Others had the watch for long, or nobody: how long a pool has been full is not known."""
        self._since = {}

    async def scan(self) -> None:
        """One request."""
        now = self._clock()
        full = {one.name: one for one in await self._airflow.pools() if is_starved(one)}
        self._since = {name: self._since.get(name, now) for name in full}
        seen = [
            _starved(full[name], since, now)
            for name, since in self._since.items()
            if now - since >= self._starved_after
        ]
        # What was found before a restart goes on while the pool is full, though we count anew.
        over = None if not full else await self._not_full(full)
        await self._findings.sync("pool_starvation", seen, looked_at=over)

    async def _not_full(self, full: dict[str, Pool]) -> list[str]:
        lasting = await self._findings.listed(lasting=True, kind="pool_starvation", limit=1000)
        return [one.subject for one in lasting if one.subject not in full]


def is_starved(pool: Pool) -> bool:
    """Tasks wait, and no slot is free; -1 slots are without end."""
    return pool.scheduled > 0 and 0 <= pool.slots <= pool.occupied


def _starved(pool: Pool, since: datetime, now: datetime) -> Sight:
    lasting = in_words((now - since).total_seconds())
    taken = f"its {pool.slots} slots have been taken for {lasting}"
    return Sight(
        kind="pool_starvation",
        subject=pool.name,
        text=f"{pool.scheduled} tasks wait for pool {pool.name!r}; {taken}",
        numbers={"slots": pool.slots, "occupied": pool.occupied, "waiting": pool.scheduled},
        since=since,
    )
