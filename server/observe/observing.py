"""Puts together what watches over the service itself, and runs it beside the driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from server.background import beside, forever
from server.backlog import Backlog
from server.db.retention import AFTER_START, ROUND_EVERY, Keep, Retention
from server.ground import Ground
from server.observe.heartbeats import Heartbeats
from server.observe.tally import Tally
from server.observe.vitals import LINE_EVERY, Vitals

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
async def open_observing(ground: Ground) -> AsyncIterator[Observing]:
    """All of it; in the background, log lines, counts and retention come round until closed."""
    observing, beats = _observing(ground), ground.beats
    if not ground.background:
        yield observing
        return

    async def prune() -> None:
        await asyncio.sleep(AFTER_START)
        await forever("retention", observing.retention.round, every=ROUND_EVERY, beats=beats)

    async with beside(
        listen=observing.vitals.listen(),
        system=forever("system", observing.vitals.line, every=LINE_EVERY, beats=beats),
        tally=forever("tally", observing.tally.keep, every=KEEP_TALLY_EVERY, beats=beats),
        retention=prune(),
    ):
        yield observing


def _observing(ground: Ground) -> Observing:
    settings, engine, store, clock = ground.settings, ground.engine, ground.store, ground.clock
    backlog = Backlog(engine, store=store, clock=clock)
    tally = Tally(engine, store=store, clock=clock, dags=settings.metrics_dags)
    retention = Retention(
        engine,
        keep=Keep.of(settings),
        saver=ground.saver,
        outbox=ground.outbox,
        audit=ground.audit,
        clock=clock,
        before=tally.keep,
    )
    return Observing(
        beats=ground.beats,
        backlog=backlog,
        vitals=Vitals(settings, store=store, backlog=backlog, clock=clock),
        tally=tally,
        retention=retention,
    )
