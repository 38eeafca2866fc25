"""Opens what tells people and keeps the audit trail, and runs it beside the driver."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version

import structlog

from graph.errors import AirmedicError, PolicyInvalid
from server.audit.trail import AuditTrail
from server.background import beside, forever
from server.db.database import open_database
from server.ground import Ground
from server.people.conditions import Conditions
from server.people.looks import Looks
from server.people.people import DELIVER_EVERY, LOOK_EVERY, People, audit_keys, warning_of
from server.records import StoreRecords
from server.settings import Settings
from tools.actions import ActionCatalogue
from tools.policy import Policy
from tools.policy_file import load_policy

log = structlog.get_logger("people")


async def load_policy_audited(
    settings: Settings, catalogue: ActionCatalogue, *, clock: Callable[[], datetime]
) -> Policy:
    """The policy; one that does not load leaves an entry in the audit trail before the start is refused."""
    try:
        return load_policy(settings.policy, catalogue=catalogue)
    except PolicyInvalid as exc:
        try:
            async with open_database(settings.database_url) as engine:
                trail = AuditTrail(engine, keys=audit_keys(settings), clock=clock)
                await trail.check_key()
                await trail.note("refused", by="airmedic", what="policy", why=str(exc))
        except AirmedicError as again:
            log.warning("refusal_unrecorded", error=str(again))
        raise


@asynccontextmanager
async def open_people(ground: Ground) -> AsyncIterator[People]:
    """Record the start; in the background, deliver notices and look around until closed."""
    settings, outbox, beats = ground.settings, ground.outbox, ground.beats
    await ground.audit.note(
        "started",
        by=ground.owner,
        version=version("airmedic"),
        policy=ground.policy.digest,
        policy_file=str(settings.policy) if settings.policy else "the one that ships",
        healing=settings.healing,
    )
    await outbox.free_claims(dead=ground.is_dead)
    people = _people(ground)
    if not ground.background:
        yield people
        return
    async with beside(
        deliver=forever("deliver", outbox.deliver_due, every=DELIVER_EVERY, beats=beats),
        people=forever("people", people.round, every=LOOK_EVERY, beats=beats),
    ):
        yield people


def _people(ground: Ground) -> People:
    engine, store, clock = ground.engine, ground.store, ground.clock
    records = StoreRecords(engine, store=store, clock=clock, shadow=ground.settings.healing == "shadow")
    return People(
        engine=engine,
        outbox=ground.outbox,
        conditions=Conditions(engine, post=ground.outbox, clock=clock, audit=ground.audit),
        looks=Looks(store=store, airflow=ground.airflow, records=records, policy=ground.policy, clock=clock),
        audit=ground.audit,
        clock=clock,
        warning=warning_of(ground.settings),
    )
