"""The running service: everything opened once, in the order in which it depends on one another."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from sqlalchemy.ext.asyncio import AsyncEngine

from graph.builder import build_graph
from graph.checkpoint import CarriedSaver, open_saver
from nodes.deps import Deps, Limits, Pace
from server.access.kept_answers import KeptAnswers
from server.access.tokens import TokenStore
from server.audit.trail import AuditTrail
from server.correlation import CauseLook, ReadOnce
from server.crew import Crew, open_crew
from server.db.database import open_database
from server.diagnosing import open_diagnostician
from server.draft import Draft
from server.intake import Intake
from server.ledger import StoreLedger
from server.members import StoreMembers
from server.observe.heartbeats import Heartbeats
from server.observe.observing import Observing, open_observing
from server.observe.telemetry import open_telemetry
from server.people.notifier import LogNotifier, Notifier
from server.people.outbox import Outbox
from server.people.people import People, audit_keys, make_outbox
from server.people.service import load_policy_audited, open_people
from server.record import IncidentRecord
from server.records import StoreRecords
from server.requests import Requests
from server.runner import MakeDeps, Runner, forever
from server.rush import Rush
from server.settings import Settings
from server.store import IncidentStore
from server.watch.service import open_watch
from server.watch.watch import Watch
from tools.actions import ActionCatalogue
from tools.airflow_cached import CachedDags
from tools.airflow_rest import open_airflow
from tools.diagnosis import Diagnostician
from tools.gateway import AirflowGateway
from tools.knowledge import KnowledgeBase
from tools.policy import Policy
from tools.probes import Probes, parse_probes

# Of the actions that ship, these send nothing: they need not be on the record before they happen.
QUIET = frozenset({"wait", "notify"})
ADMIT_EVERY = 1.0  # seconds; the bell rings for what this process took in, others' is seen by looking


def utc_now() -> datetime:
    """The clock of the running service."""
    return datetime.now(UTC)


def owner_name() -> str:
    """Names this process: machine, process namespace (containers count their own processes), number."""
    try:
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        space = ""
    return f"{socket.gethostname()}:{space}:{os.getpid()}"


def is_gone(other: str, ours: str) -> bool:
    """Whether a lease's owner was a process beside us that is no more.

    Our own name on a lease at start is that of a former life: a restarted container counts from one again.
    """
    place, _, number = other.rpartition(":")
    if other == ours:
        return True
    if place != ours.rpartition(":")[0] or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


@dataclass(frozen=True)
class Service:
    """What routes and commands use."""

    settings: Settings
    store: IncidentStore
    airflow: AirflowGateway
    intake: Intake
    runner: Runner
    policy: Policy
    catalogue: ActionCatalogue
    clock: Callable[[], datetime]
    tokens: TokenStore
    kept_answers: KeptAnswers
    watch: Watch
    audit: AuditTrail
    outbox: Outbox
    people: People
    diagnostician: Diagnostician
    requests: Requests
    observing: Observing


@asynccontextmanager
async def open_service(
    settings: Settings,
    *,
    airflow: AirflowGateway | None = None,
    diagnostician: Diagnostician | None = None,
    notifier: Notifier | None = None,
    clock: Callable[[], datetime] = utc_now,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    background: bool = True,
    knowledge: KnowledgeBase | None = None,
) -> AsyncIterator[Service]:
    """Open database, checkpoints, Airflow and knowledge; with `background`, drive and poll until closed.

    With a `diagnostician` of the caller's, failures correlate only when `knowledge` is given too.
    """
    catalogue = ActionCatalogue.default()
    policy = await load_policy_audited(settings, catalogue, clock=clock)
    owner = owner_name()
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_database(settings.database_url))
        saver = await stack.enter_async_context(open_saver(settings.database_url))
        gateway = airflow
        if gateway is None:
            gateway = await stack.enter_async_context(connect(settings))
        telemetry, beats = await stack.enter_async_context(open_telemetry(settings)), Heartbeats()
        gateway = telemetry.watch_airflow(gateway)
        audit = AuditTrail(engine, keys=audit_keys(settings), clock=clock)
        await audit.check_key()
        outbox = make_outbox(settings, engine, airflow=gateway, clock=clock, owner=owner, audit=audit)
        store = IncidentStore(engine, clock=clock, audit=audit, post=outbox)
        if diagnostician is None:
            knowledge = knowledge or KnowledgeBase.load(settings.knowledge)
        reader = ReadOnce(knowledge) if knowledge is not None else None
        look = None
        if reader is not None and settings.correlate:
            look = CauseLook(reader, loopback=settings.correlate_loopback)
        if diagnostician is None:
            diagnostician = await stack.enter_async_context(
                open_diagnostician(settings, memory=store, airflow=gateway, knowledge=reader)
            )
        requests = Requests(engine, store=store, airflow_id=settings.airflow_id, clock=clock, audit=audit)
        deps = _deps_maker(
            settings,
            engine=engine,
            store=store,
            airflow=gateway,
            diagnostician=diagnostician,
            catalogue=catalogue,
            policy=policy,
            clock=clock,
            sleep=sleep,
            requests=requests,
            look=look,
        )
        await store.free_leases(dead=lambda other: is_gone(other, owner))
        rush = Rush()
        runner = Runner(
            store=store,
            graph=build_graph().compile(checkpointer=CarriedSaver(), name="airmedic"),
            make_deps=deps,
            notifier=notifier or LogNotifier(),
            clock=clock,
            owner=owner,
            beats=beats,
            callbacks=telemetry.callbacks,
            rush=rush,
        )
        intake = Intake(
            store=store,
            airflow=gateway,
            airflow_id=settings.airflow_id,
            stuck_after=settings.stuck_after,
            ring=runner.ring,
            clock=clock,
            rush=rush,
            look=look,
        )
        intake.openers.append(telemetry.opened)
        crew = Crew(engine, owner=owner, is_dead=lambda other: is_gone(other, owner))
        if background:

            def ring() -> None:
                intake.bell.set()
                runner.ring()

            await stack.enter_async_context(open_crew(crew, settings.database_url, ring=ring, beats=beats))
            await stack.enter_async_context(_background(settings, intake, runner, beats, crew))
        watch = await stack.enter_async_context(
            open_watch(
                settings,
                engine,
                store,
                gateway,
                intake,
                runner,
                post=outbox,
                clock=clock,
                background=background,
                beats=beats,
                on_duty=crew.on_duty,
            )
        )
        people = await stack.enter_async_context(
            open_people(
                settings,
                engine,
                store=store,
                airflow=gateway,
                policy=policy,
                outbox=outbox,
                audit=audit,
                clock=clock,
                owner=owner,
                is_dead=lambda other: is_gone(other, owner),
                background=background,
                beats=beats,
            )
        )
        observing = await stack.enter_async_context(
            open_observing(
                settings,
                engine,
                store=store,
                saver=saver,
                outbox=outbox,
                audit=audit,
                beats=beats,
                clock=clock,
                background=background,
            )
        )
        tokens, kept = TokenStore(engine, clock=clock, audit=audit), KeptAnswers(engine, clock=clock)
        yield Service(
            settings,
            store,
            gateway,
            intake,
            runner,
            policy,
            catalogue,
            clock,
            tokens,
            kept,
            watch=watch,
            audit=audit,
            outbox=outbox,
            people=people,
            diagnostician=diagnostician,
            requests=requests,
            observing=observing,
        )


def _deps_maker(
    settings: Settings,
    *,
    engine: AsyncEngine,
    store: IncidentStore,
    airflow: AirflowGateway,
    diagnostician: Diagnostician,
    catalogue: ActionCatalogue,
    policy: Policy,
    clock: Callable[[], datetime],
    sleep: Callable[[float], Awaitable[None]],
    requests: Requests,
    look: CauseLook | None,
) -> MakeDeps:
    limits = Limits(watch_window=settings.watch_window, approval_timeout=settings.approval_timeout)
    probes = Probes(parse_probes(settings.probes))
    pace = Pace(first=settings.wave_first, largest=settings.wave_largest, per_minute=settings.wave_per_minute)

    def make_deps(draft: Draft, record: IncidentRecord) -> Deps:
        return Deps(
            airflow=cast(AirflowGateway, CachedDags(airflow, clock=clock)),
            ledger=StoreLedger(engine, draft, record.task, clock=clock, quiet=QUIET),
            diagnostician=diagnostician,
            catalogue=catalogue,
            policy=policy,
            archive=draft,
            records=StoreRecords(engine, store=store, clock=clock, shadow=settings.healing == "shadow"),
            clock=clock,
            sleep=sleep,
            limits=limits,
            environment=settings.environment,
            probes=probes,
            requests=requests,
            members=StoreMembers(engine, store, draft, record, look=look, clock=clock),
            pace=pace,
        )

    return make_deps


def connect(settings: Settings) -> AbstractAsyncContextManager[AirflowGateway]:
    """The gateway to the configured Airflow."""
    verify: bool | str = str(settings.airflow_ca_cert or "") or settings.airflow_verify_ssl
    return open_airflow(
        str(settings.airflow_url).rstrip("/"),
        token=settings.airflow_token.get_secret_value() if settings.airflow_token else None,
        username=settings.airflow_username,
        password=settings.airflow_password.get_secret_value() if settings.airflow_password else None,
        verify=verify,
    )


@asynccontextmanager
async def _background(
    settings: Settings, intake: Intake, runner: Runner, beats: Heartbeats, crew: Crew
) -> AsyncIterator[None]:
    jobs = [
        asyncio.create_task(runner.run(), name="runner"),
        asyncio.create_task(
            forever(
                "admit",
                intake.admit,
                every=ADMIT_EVERY,
                beats=beats,
                bell=intake.bell,
                on_duty=crew.on_duty,
            ),
            name="admit",
        ),
        asyncio.create_task(
            forever(
                "poll",
                intake.poll,
                every=settings.poll_interval.total_seconds(),
                beats=beats,
                on_duty=crew.on_duty,
            ),
            name="poll",
        ),
    ]
    try:
        yield
    finally:
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
