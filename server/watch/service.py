"""Puts the watch together and keeps it going."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from server.background import beside, forever
from server.ground import Ground
from server.intake import Intake
from server.runner import Runner
from server.watch.findings import Findings
from server.watch.runs import RunWatch
from server.watch.schedules import ScheduleWatch
from server.watch.store import WatchStore
from server.watch.tasks import PoolWatch, TaskWatch
from server.watch.turns import TurnWatch
from server.watch.watch import STALE, Watch


@asynccontextmanager
async def open_watch(
    ground: Ground, intake: Intake, runner: Runner, *, on_duty: Callable[[str], Awaitable[bool]]
) -> AsyncIterator[Watch]:
    """The watch; in the background it looks around until the block is left."""
    watch = _watch(ground, runner)
    intake.learners.append(watch.learn)
    if not ground.background:
        yield watch
        return
    every = ground.settings.watch_interval.total_seconds()
    async with beside(watch=forever("watch", watch.scan, every=every, beats=ground.beats, on_duty=on_duty)):
        yield watch


def _watch(ground: Ground, runner: Runner) -> Watch:
    settings, clock = ground.settings, ground.clock
    memory = WatchStore(ground.engine, clock=clock)
    findings = Findings(ground.engine, clock=clock, post=ground.outbox)
    schedules = ScheduleWatch(
        store=ground.store,
        memory=memory,
        airflow=ground.airflow,
        airflow_id=settings.airflow_id,
        late_after=settings.late_after,
        clock=clock,
    )
    tasks = TaskWatch(
        store=ground.store,
        memory=memory,
        findings=findings,
        airflow=ground.airflow,
        airflow_id=settings.airflow_id,
        floor=settings.overrun_after,
        clock=clock,
    )
    return Watch(
        memory=memory,
        findings=findings,
        airflow=ground.airflow,
        schedules=schedules,
        tasks=tasks,
        pools=PoolWatch(
            findings=findings, airflow=ground.airflow, starved_after=settings.stuck_after, clock=clock
        ),
        runs=RunWatch(
            memory=memory,
            findings=findings,
            airflow=ground.airflow,
            airflow_id=settings.airflow_id,
            clock=clock,
        ),
        turns=TurnWatch(
            findings=findings, airflow=ground.airflow, stuck_after=settings.stuck_after, clock=clock
        ),
        ring=runner.ring,
        clock=clock,
        stale_after=max(STALE, 2 * settings.watch_interval),
    )
