"""Opens what tells people and keeps the audit trail, and runs it beside the driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.metadata import version

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.errors import AirmedicError, PolicyInvalid
from server.audit.trail import AuditTrail
from server.db.database import open_database
from server.observe.heartbeats import Heartbeats
from server.people.conditions import Conditions
from server.people.looks import Looks
from server.people.outbox import Outbox
from server.people.people import DELIVER_EVERY, LOOK_EVERY, People, audit_keys, warning_of
from server.records import StoreRecords
from server.runner import forever
from server.settings import Settings
from server.store import IncidentStore
from tools.actions import ActionCatalogue
from tools.gateway import AirflowGateway
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
async def open_people(
    settings: Settings,
    engine: AsyncEngine,
    *,
    store: IncidentStore,
    airflow: AirflowGateway,
    policy: Policy,
    outbox: Outbox,
    audit: AuditTrail,
    clock: Callable[[], datetime],
    owner: str,
    is_dead: Callable[[str], bool],
    background: bool,
    beats: Heartbeats | None = None,
) -> AsyncIterator[People]:
    """Record the start; with `background`, deliver notices and look around until closed."""
    await audit.note(
        "started",
        by=owner,
        version=version("airmedic"),
        policy=policy.digest,
        policy_file=str(settings.policy) if settings.policy else "the one that ships",
        healing=settings.healing,
    )
    await outbox.free_claims(dead=is_dead)
    records = StoreRecords(engine, store=store, clock=clock, shadow=settings.healing == "shadow")
    people = People(
        engine=engine,
        outbox=outbox,
        conditions=Conditions(engine, post=outbox, clock=clock, audit=audit),
        looks=Looks(store=store, airflow=airflow, records=records, policy=policy, clock=clock),
        audit=audit,
        clock=clock,
        warning=warning_of(settings),
    )
    jobs = []
    if background:
        jobs = [
            asyncio.create_task(
                forever("deliver", outbox.deliver_due, every=DELIVER_EVERY, beats=beats), name="deliver"
            ),
            asyncio.create_task(
                forever("people", people.round, every=LOOK_EVERY, beats=beats), name="people"
            ),
        ]
    try:
        yield people
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
