"""The bench on the in-memory Airflow: the same faults, world, people, checks and oracle, and much faster.

Waits pass ten times faster: seconds measured here say nothing of how fast Airmedic is and are left out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evals.faults.airflow_admin import BenchFailed
from evals.faults.catalogue import FaultRow
from evals.faults.exhibits import exhibits_of
from evals.faults.injections import INJECTIONS
from evals.faults.medics import changes_for
from evals.faults.notebook import Notebook
from evals.faults.people import People
from evals.faults.play import QUIET, play
from evals.faults.playing import Tell, as_writes
from evals.faults.results import Result, result_of
from evals.faults.sandbox import machine_env
from evals.faults.twin_admin import TwinAdmin
from evals.faults.twin_airflow import Engine, Told, TwinAirflow, moving
from evals.faults.world import FEED, PIPELINE, Layout, World
from graph.domain import Door, FailureId, TaskRef
from graph.errors import AirmedicError, SandboxFailed
from server.demo.source import SourceServer, SourceState
from server.people.notifier import SilentNotifier
from server.record import AgentEvent
from server.service import Service, open_service
from server.settings import load_settings

PACE = 10.0  # times faster than real
WATCH = timedelta(seconds=5)
ROUND = 0.05  # seconds between two rounds of Airmedic's own background work
TELL_TRIES = 20
NAME = "twin"


class FastClock:
    """Real time, sped up."""

    def __init__(self, pace: float) -> None:
        self._pace = pace
        self._began = time.monotonic()
        self._start = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self._start + timedelta(seconds=(time.monotonic() - self._began) * self._pace)

    async def sleep(self, seconds: float) -> None:
        """Wait on this clock."""
        await asyncio.sleep(seconds / self._pace)


@dataclass(frozen=True)
class TwinGround:
    """Everything that stays the same from fault to fault."""

    layout: Layout
    world: World
    twin: TwinAirflow
    engine: Engine
    running: asyncio.Task[None]  #: the engine at work
    clock: FastClock


@dataclass(frozen=True)
class TwinStage:
    """What one fault is played on."""

    world: World
    service: Service
    layout: Layout


async def run_on_twin(
    rows: Sequence[FaultRow], *, repeat: int, home: Path, tell: Tell = lambda _: None
) -> list[Result]:
    """Play the rows, one after the other; nothing is kept between two calls but the results of the last."""
    book = Notebook(home / "memory")
    results = []
    async with open_twin(home / "memory") as ground:
        for number in range(1, repeat + 1):
            for row in rows:
                result = await play_on_twin(ground, row, number)
                book.add(result)
                results.append(result)
                told = "ok" if result.right else "WRONG"
                tell(f"[{len(results)}/{len(rows) * repeat}] {row.id}.{number} {told}")
    return results


@asynccontextmanager
async def open_twin(root: Path) -> AsyncIterator[TwinGround]:
    """The demo's world around a twin, its engine running."""
    layout = Layout(await asyncio.to_thread(root.resolve)).make()
    layout.add_bench_dags()
    clock = FastClock(PACE)
    twin = TwinAirflow(clock=clock)
    env = {**machine_env(), **layout.env(), "NO_PROXY": "127.0.0.1,localhost"}
    engine = Engine(twin, layout.dags, _made(layout.root / "tries"), env)
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(SourceServer(SourceState(clock=clock)))
        running = await stack.enter_async_context(moving(engine))
        world = World(layout, source, TwinAdmin(twin), layout.root / "logs")
        world.pace = PACE
        world.remove_departments()  # this twin's own feed makes them
        stack.push_async_callback(world.aclose)
        for dag_id in (PIPELINE, FEED):
            await world.airflow.unpause(dag_id)
        yield TwinGround(layout, world, twin, engine, running, clock)


async def play_on_twin(ground: TwinGround, row: FaultRow, number: int) -> Result:
    """One fault with a fresh Airmedic."""
    at = datetime.now(UTC)
    began = time.monotonic()
    try:
        result = await _unless_it_stops(ground.running, _play(ground, row, number))
    except (BenchFailed, SandboxFailed, TimeoutError) as exc:
        ground.world.source.state.reset()
        return Result(fault=row.id, repetition=number, at=at, failed=str(exc) or type(exc).__name__)
    timed = {"at": at, "own": None, "detect": None, "total": time.monotonic() - began}
    return result.model_copy(update=timed)


async def _unless_it_stops(engine: asyncio.Task[None], playing: Coroutine[Any, Any, Result]) -> Result:
    """Nothing moves any more once the engine has ended: its error is ours."""
    task = asyncio.create_task(playing)
    try:
        await asyncio.wait((task, engine), return_when=asyncio.FIRST_COMPLETED)
        if engine.done():
            await engine
        return await task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _play(ground: TwinGround, row: FaultRow, number: int) -> Result:
    injection, world, twin = INJECTIONS[row.id], ground.world, ground.twin
    await world.reset()
    twin.forget(but=FEED)
    if injection.before is not None:
        await injection.before(world)
    people = People(row)
    async with open_airmedic_on(ground, row, f"{row.id}.{number}") as service:
        stage = TwinStage(world, service, ground.layout)
        played = await play(stage, row, tell=_unheard, ask=people.answer, reset=injection.before is not None)
        if injection.also is not None:
            await injection.also(world)
            await world.sleep(QUIET)
        details = [await service.store.detail(one.id) for one in await service.store.incidents()]
        exhibits = await exhibits_of(stage, played)
    audited = await world.airflow.writes_of("", since=datetime.now(UTC))
    return result_of(
        played,
        repetition=number,
        at=datetime.now(UTC),
        writes=as_writes(audited),
        ledger=[entry for detail in details for entry in detail.ledger],
        incidents=len(details),
        exhibits=exhibits,
    )


@asynccontextmanager
async def open_airmedic_on(ground: TwinGround, row: FaultRow, name: str) -> AsyncIterator[Service]:
    """An Airmedic that knows nothing yet, on the twin and its clock."""
    folder = _made(ground.layout.root / "airmedic")
    database = folder / f"{name}.db"
    for end in ("", "-wal", "-shm"):
        database.with_name(f"{database.name}{end}").unlink(missing_ok=True)
    settings = load_settings(
        {},
        _env_file=None,
        airflow_url="http://127.0.0.1:1",
        airflow_token="unused",
        airflow_id=NAME,
        healing="on",
        environment="demo",
        watch_window=WATCH,
        database_url=f"sqlite:///{database}",
        **changes_for(row, folder),
    )
    async with open_service(
        settings,
        airflow=ground.twin,
        notifier=SilentNotifier(),
        clock=ground.clock,
        sleep=ground.clock.sleep,
        background=False,
    ) as service:
        driving = asyncio.create_task(_drive(service))
        ground.engine.told = _listener(service)
        try:
            yield service
        finally:
            ground.engine.told = None
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)


async def _drive(service: Service) -> None:
    """Airmedic's background work, at the twin's pace."""
    try:
        while True:
            await service.intake.admit()
            await service.intake.poll()
            await service.runner.drive_due()
            await asyncio.sleep(ROUND)
    finally:
        await service.runner.drain()


def _listener(service: Service) -> Told:
    async def told(ref: TaskRef, number: int, error: str) -> None:
        failure = FailureId(airflow=NAME, task=ref, try_number=number)
        for left in reversed(range(TELL_TRIES)):
            try:
                await service.store.accept([failure], door=Door.LISTENER, error=error)
                return
            except AirmedicError:  # as the plugin does: keep it and try again
                if not left:
                    raise
                await asyncio.sleep(ROUND)

    return told


def _unheard(event: AgentEvent) -> None:
    """The live view that nobody watches."""


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
