"""The running service: everything opened once, in the order in which it depends on one another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import cast

from graph.builder import build_graph
from graph.checkpoint import CarriedSaver
from graph.domain import TaskSnapshot
from nodes.deps import Deps, Limits, Pace
from server.access.kept_answers import KeptAnswers
from server.access.tokens import TokenStore
from server.audit.trail import AuditTrail
from server.background import beside, forever
from server.correlation import CauseLook, ReadOnce
from server.crew import Crew, open_crew
from server.diagnosing import open_diagnostician
from server.draft import Draft
from server.ground import Ground, open_ground
from server.intake import Intake
from server.ledger import StoreLedger
from server.members import StoreMembers
from server.observe.observing import Observing, open_observing
from server.people.notifier import LogNotifier, Notifier
from server.people.outbox import Outbox
from server.people.people import People
from server.people.service import load_policy_audited, open_people
from server.record import IncidentRecord
from server.records import StoreRecords
from server.requests import Requests
from server.runner import MakeDeps, Runner
from server.rush import Rush
from server.settings import Settings
from server.store import IncidentStore
from server.watch.service import open_watch
from server.watch.watch import Watch
from tools.actions import ActionCatalogue
from tools.airflow_around import SharedAround
from tools.airflow_cached import CachedDags
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
    async with (
        open_ground(settings, policy, airflow=airflow, clock=clock, background=background) as ground,
        _open_reading(ground, diagnostician, knowledge) as reading,
    ):
        requests = _requests(ground)
        make_deps = _deps_maker(ground, reading, catalogue, requests, sleep)
        await ground.store.free_leases(dead=ground.is_dead)
        driver = _driver(ground, reading, make_deps, notifier or LogNotifier())
        async with (
            _on_duty(ground, driver) as crew,
            open_watch(ground, driver.intake, driver.runner, on_duty=crew.on_duty) as watch,
            open_people(ground) as people,
            open_observing(ground) as observing,
        ):
            yield _service(
                ground,
                driver,
                catalogue=catalogue,
                diagnostician=reading.diagnostician,
                requests=requests,
                watch=watch,
                people=people,
                observing=observing,
            )


def _service(
    ground: Ground,
    driver: Driver,
    *,
    catalogue: ActionCatalogue,
    diagnostician: Diagnostician,
    requests: Requests,
    watch: Watch,
    people: People,
    observing: Observing,
) -> Service:
    return Service(
        settings=ground.settings,
        store=ground.store,
        airflow=ground.airflow,
        intake=driver.intake,
        runner=driver.runner,
        policy=ground.policy,
        catalogue=catalogue,
        clock=ground.clock,
        tokens=TokenStore(ground.engine, clock=ground.clock, audit=ground.audit),
        kept_answers=KeptAnswers(ground.engine, clock=ground.clock),
        watch=watch,
        audit=ground.audit,
        outbox=ground.outbox,
        people=people,
        diagnostician=diagnostician,
        requests=requests,
        observing=observing,
    )


@dataclass(frozen=True)
class Reading:
    """What names causes: of one failure, and of many at once when failures correlate."""

    diagnostician: Diagnostician
    look: CauseLook | None


@asynccontextmanager
async def _open_reading(
    ground: Ground, diagnostician: Diagnostician | None, knowledge: KnowledgeBase | None
) -> AsyncIterator[Reading]:
    settings = ground.settings
    if diagnostician is None:
        knowledge = knowledge or KnowledgeBase.load(settings.knowledge)
    reader = ReadOnce(knowledge) if knowledge is not None else None
    look = None
    if reader is not None and settings.correlate:
        look = CauseLook(reader, loopback=settings.correlate_loopback)
    async with AsyncExitStack() as stack:
        if diagnostician is None:
            opened = open_diagnostician(
                settings, memory=ground.store, airflow=ground.airflow, knowledge=reader
            )
            diagnostician = await stack.enter_async_context(opened)
        yield Reading(diagnostician, look)


@dataclass(frozen=True)
class Driver:
    """What takes failures in and what drives them; each rings for the other."""

    intake: Intake
    runner: Runner

    def ring(self) -> None:
        """Something is due: look now."""
        self.intake.bell.set()
        self.runner.ring()


def _driver(ground: Ground, reading: Reading, make_deps: MakeDeps, notifier: Notifier) -> Driver:
    rush = Rush()
    runner = Runner(
        store=ground.store,
        graph=build_graph().compile(checkpointer=CarriedSaver(), name="airmedic"),
        make_deps=make_deps,
        notifier=notifier,
        clock=ground.clock,
        owner=ground.owner,
        beats=ground.beats,
        callbacks=ground.telemetry.callbacks,
        rush=rush,
        shared=ground.engine.dialect.name == "postgresql",
    )
    intake = Intake(
        store=ground.store,
        airflow=ground.airflow,
        airflow_id=ground.settings.airflow_id,
        stuck_after=ground.settings.stuck_after,
        ring=runner.ring,
        taker=runner.taker,
        clock=ground.clock,
        rush=rush,
        look=reading.look,
    )
    intake.openers.append(ground.telemetry.opened)
    return Driver(intake, runner)


@asynccontextmanager
async def _on_duty(ground: Ground, driver: Driver) -> AsyncIterator[Crew]:
    """This process among those that share the store; in the background it drives and polls with them."""
    crew = Crew(ground.engine, owner=ground.owner, is_dead=ground.is_dead)
    if not ground.background:
        yield crew
        return
    url, poll_every = ground.settings.database_url, ground.settings.poll_interval.total_seconds()
    intake, beats, on_duty = driver.intake, ground.beats, crew.on_duty
    async with (
        open_crew(crew, url, ring=driver.ring, beats=beats),
        beside(
            runner=driver.runner.run(),
            admit=forever(
                "admit", intake.admit, every=ADMIT_EVERY, beats=beats, bell=intake.bell, on_duty=on_duty
            ),
            poll=forever("poll", intake.poll, every=poll_every, beats=beats, on_duty=on_duty),
        ),
    ):
        yield crew


def _requests(ground: Ground) -> Requests:
    return Requests(
        ground.engine,
        store=ground.store,
        airflow_id=ground.settings.airflow_id,
        clock=ground.clock,
        audit=ground.audit,
    )


def _deps_maker(
    ground: Ground,
    reading: Reading,
    catalogue: ActionCatalogue,
    requests: Requests,
    sleep: Callable[[float], Awaitable[None]],
) -> MakeDeps:
    settings, engine, store, clock = ground.settings, ground.engine, ground.store, ground.clock
    limits = Limits(watch_window=settings.watch_window, approval_timeout=settings.approval_timeout)
    probes = Probes(parse_probes(settings.probes))
    pace = Pace(first=settings.wave_first, largest=settings.wave_largest, per_minute=settings.wave_per_minute)

    around = SharedAround(ground.airflow)

    def make_deps(draft: Draft, record: IncidentRecord, seen: TaskSnapshot | None) -> Deps:
        return Deps(
            airflow=cast(AirflowGateway, CachedDags(ground.airflow, clock=clock, seen=seen)),
            ledger=StoreLedger(engine, draft, record.task, clock=clock, quiet=QUIET),
            diagnostician=reading.diagnostician,
            catalogue=catalogue,
            policy=ground.policy,
            archive=draft,
            records=StoreRecords(engine, store=store, clock=clock, shadow=settings.healing == "shadow"),
            clock=clock,
            sleep=sleep,
            limits=limits,
            environment=settings.environment,
            probes=probes,
            requests=requests,
            members=StoreMembers(engine, store, draft, record, look=reading.look, clock=clock),
            pace=pace,
            around=around,
        )

    return make_deps
