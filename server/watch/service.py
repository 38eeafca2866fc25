"""Puts the watch together and keeps it going."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncEngine

from server.intake import Intake
from server.observe.heartbeats import Heartbeats
from server.people.notifier import NoticePost
from server.runner import Runner, forever
from server.settings import Settings
from server.store import IncidentStore
from server.watch.findings import Findings
from server.watch.schedules import ScheduleWatch
from server.watch.store import WatchStore
from server.watch.tasks import PoolWatch, TaskWatch
from server.watch.watch import Watch
from tools.gateway import AirflowGateway


@asynccontextmanager
async def open_watch(
    settings: Settings,
    engine: AsyncEngine,
    store: IncidentStore,
    airflow: AirflowGateway,
    intake: Intake,
    runner: Runner,
    *,
    post: NoticePost,
    clock: Callable[[], datetime],
    background: bool,
    beats: Heartbeats | None = None,
    on_duty: Callable[[str], Awaitable[bool]] | None = None,
) -> AsyncIterator[Watch]:
    """The watch; with `background` it looks around until the block is left."""
    watch = _watch(settings, engine, store, airflow, runner, post=post, clock=clock)
    intake.learners.append(watch.learn)
    if not background:
        yield watch
        return
    every = settings.watch_interval.total_seconds()
    watching = forever("watch", watch.scan, every=every, beats=beats, on_duty=on_duty)
    job = asyncio.create_task(watching, name="watch")
    try:
        yield watch
    finally:
        job.cancel()
        await asyncio.gather(job, return_exceptions=True)


def _watch(
    settings: Settings,
    engine: AsyncEngine,
    store: IncidentStore,
    airflow: AirflowGateway,
    runner: Runner,
    *,
    post: NoticePost,
    clock: Callable[[], datetime],
) -> Watch:
    memory = WatchStore(engine, clock=clock)
    findings = Findings(engine, clock=clock, post=post)
    schedules = ScheduleWatch(
        store=store,
        memory=memory,
        airflow=airflow,
        airflow_id=settings.airflow_id,
        late_after=settings.late_after,
        clock=clock,
    )
    tasks = TaskWatch(
        store=store,
        memory=memory,
        findings=findings,
        airflow=airflow,
        airflow_id=settings.airflow_id,
        floor=settings.overrun_after,
        clock=clock,
    )
    return Watch(
        memory=memory,
        findings=findings,
        airflow=airflow,
        schedules=schedules,
        tasks=tasks,
        pools=PoolWatch(findings=findings, airflow=airflow, starved_after=settings.stuck_after, clock=clock),
        ring=runner.ring,
        clock=clock,
    )
