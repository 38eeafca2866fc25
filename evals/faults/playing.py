"""One fault played once: first its symptom without Airmedic, then with a fresh one, then the record of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from evals.faults.airflow_admin import BenchFailed
from evals.faults.catalogue import FaultRow
from evals.faults.exhibits import exhibits_of
from evals.faults.ground import MEDIC, Ground
from evals.faults.injections import INJECTIONS
from evals.faults.medics import open_medic
from evals.faults.people import People
from evals.faults.play import QUIET, play
from evals.faults.results import Result, Write, result_of
from graph.domain import DomainType, IncidentKind
from graph.errors import SandboxFailed
from server.record import AgentEvent, IncidentRecord

SYMPTOM_WITHIN = 180.0  # seconds
SETTLE = timedelta(seconds=1)  # by which Airflow's and our clock may differ

Tell = Callable[[str], None]


class Order(DomainType):
    """What is to be played."""

    fault: str
    repetition: int
    prove: bool = True  #: show the symptom first, with Airmedic off
    verbose: bool = False


async def play_once(
    ground: Ground, row: FaultRow, order: Order, *, shown: Callable[[str], None], tell: Tell
) -> Result:
    """Prove the symptom when nobody has yet, then play the fault with a fresh Airmedic."""
    at = datetime.now(UTC)
    try:
        if order.prove:
            await prove(ground, row)
            shown(row.id)
        return await _with_airmedic(ground, row, order, tell=tell)
    except (BenchFailed, SandboxFailed, TimeoutError, httpx.TransportError) as exc:
        ground.world.source.state.reset()
        told = str(exc) or type(exc).__name__
        return Result(fault=row.id, repetition=order.repetition, at=at, failed=told)


async def prove(ground: Ground, row: FaultRow) -> None:
    """The fault shows what the row says while no Airmedic is there. Raises `BenchFailed` when it does not."""
    injection, world = INJECTIONS[row.id], ground.world
    await world.reset()
    await injection.inject(world)
    try:
        name = f"proof_{row.id.lower()}"
        run_id = await world.trigger(name, dag_id=injection.dag_id) if injection.triggers else ""
        async with asyncio.timeout(SYMPTOM_WITHIN):
            await (injection.symptom or injection.play)(world, run_id)
    finally:
        await injection.lift(world)


async def _with_airmedic(ground: Ground, row: FaultRow, order: Order, *, tell: Tell) -> Result:
    injection = INJECTIONS[row.id]
    await ground.world.reset()
    if injection.before is not None:
        await injection.before(ground.world)
    since = datetime.now(UTC) - SETTLE
    people = People(row)

    def show(event: AgentEvent) -> None:
        tell(f"    {event.at:%H:%M:%S} {event.node or '-'}: {event.name} {event.data}")

    async with open_medic(ground, row, name=f"{row.id}.{order.repetition}") as stage:
        played = await play(stage, row, tell=show, ask=people.answer, reset=injection.before is not None)
        if injection.also is not None:
            await injection.also(ground.world)
            await ground.world.sleep(QUIET)
        store = stage.service.store
        dags = ground.world.layout.dags
        ours = [one for one in await store.incidents() if not is_left_over(one, since, dags)]
        details = [await store.detail(one.id) for one in ours]
        exhibits = await exhibits_of(stage, played)
    # Airflow tells the time by the same clock; a second more would take in the row before.
    audited = await ground.world.airflow.writes_of(MEDIC, since=since + SETTLE)
    return result_of(
        played,
        repetition=order.repetition,
        at=since,
        writes=as_writes(audited),
        ledger=[entry for detail in details for entry in detail.ledger],
        incidents=len(details),
        exhibits=exhibits,
    )


def is_left_over(incident: IncidentRecord, since: datetime, dags: Path) -> bool:
    """Whether the failure is an earlier row's: the listener keeps what it could not tell between two rows,
    and Airflow the error of a file that was taken away."""
    if incident.kind is IncidentKind.IMPORT_ERROR:
        return not (dags / incident.task.task_id).exists()
    return incident.failed_at is not None and incident.failed_at < since


def as_writes(audited: Sequence[dict[str, Any]]) -> list[Write]:
    """The writes of an audit log; Airflow lists a change that it refused for want of the thing, too."""
    made = {one["event"].removeprefix("post_") for one in audited if one["event"].startswith("post_")}
    return [
        Write(event=one["event"], dag_id=one["dag_id"], run_id=one["run_id"], at=one["when"])
        for one in audited
        if not (one["event"].startswith("patch_") and one["event"].removeprefix("patch_") in made)
    ]
