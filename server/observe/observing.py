"""Puts together what watches over the service itself, and runs it beside the driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy.ext.asyncio import AsyncEngine

from server.audit.trail import AuditTrail
from server.backlog import Backlog
from server.db.retention import AFTER_START, ROUND_EVERY, Keep, Retention
from server.observe.heartbeats import Heartbeats
from server.observe.tally import Tally
from server.observe.vitals import LINE_EVERY, Vitals
from server.people.outbox import Outbox
from server.runner import forever
from server.settings import Settings
from server.store import IncidentStore

KEEP_TALLY_EVERY = 30.0  # seconds; a restart reads on from there


@dataclass(frozen=True)
class Observing:
    """What is known of the service itself."""

    beats: Heartbeats
    backlog: Backlog
    vitals: Vitals
    tally: Tally
    retention: Retention


@asynccontextmanager
async def open_observing(
    settings: Settings,
    engine: AsyncEngine,
    *,
    store: IncidentStore,
    saver: BaseCheckpointSaver[str],
    outbox: Outbox,
    audit: AuditTrail,
    beats: Heartbeats,
    clock: Callable[[], datetime],
    background: bool,
) -> AsyncIterator[Observing]:
    """All of it; with `background`, log lines, counts and retention come round until closed."""
    backlog = Backlog(engine, store=store, clock=clock)
    tally = Tally(engine, store=store, clock=clock, dags=settings.metrics_dags)
    observing = Observing(
        beats=beats,
        backlog=backlog,
        vitals=Vitals(settings, store=store, backlog=backlog, clock=clock),
        tally=tally,
        retention=Retention(
            engine,
            keep=Keep.of(settings),
            saver=saver,
            outbox=outbox,
            audit=audit,
            clock=clock,
            before=tally.keep,
        ),
    )
    if not background:
        yield observing
        return

    async def prune() -> None:
        await asyncio.sleep(AFTER_START)
        await forever("retention", observing.retention.round, every=ROUND_EVERY, beats=beats)

    jobs = [
        asyncio.create_task(observing.vitals.listen(), name="listen"),
        asyncio.create_task(
            forever("system", observing.vitals.line, every=LINE_EVERY, beats=beats), name="system"
        ),
        asyncio.create_task(forever("tally", tally.keep, every=KEEP_TALLY_EVERY, beats=beats), name="tally"),
        asyncio.create_task(prune(), name="retention"),
    ]
    try:
        yield observing
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
