"""Plays one fault of the catalogue on the stage and says how it went, judged at the warehouse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime

from evals.faults.catalogue import FaultRow, Mode, causes
from evals.faults.injections import INJECTIONS, Injection
from evals.faults.oracle import DataVerdict, judge
from evals.faults.stage import Stage
from evals.faults.world import PIPELINE
from graph.domain import LedgerEntry, Outcome, Status, Step
from graph.errors import SandboxFailed
from server.record import AgentEvent, IncidentDetail, IncidentRecord

LOOK = 0.2  # seconds between two looks at the incident
QUIET = 6.0  # seconds after a healthy run in which no incident may appear: three polls
TIMEOUT = 240.0  # seconds for one fault
ALWAYS_RIGHT = frozenset({"add_note", "notify"})

Tell = Callable[[AgentEvent], None]
Ask = Callable[[Stage, IncidentRecord], Awaitable[None]]


@dataclass(frozen=True)
class Timings:
    """Seconds. Ours are told apart from waits for Airflow, for the plan's time and for people."""

    detect: float | None = None  #: task failed in Airflow → first line of the incident
    own: float | None = None  #: final state and complete log → call of the fix
    total: float = 0.0


@dataclass(frozen=True)
class Played:
    """How one fault ended."""

    row: FaultRow
    incident: IncidentRecord | None
    ledger: tuple[LedgerEntry, ...]
    data: DataVerdict
    timings: Timings
    objections: tuple[str, ...] = field(default=())

    @property
    def right(self) -> bool:
        """Everything as the catalogue says, and the warehouse agrees."""
        return not self.objections


async def play(stage: Stage, row: FaultRow, *, tell: Tell, ask: Ask) -> Played:
    """Inject, run, watch Airmedic, lift, judge. Raises `SandboxFailed` when the stage itself fails."""
    injection = INJECTIONS[row.id]
    world = stage.world
    await world.reset()
    await injection.inject(world)
    sent = world.source.state.faults
    began = stage.service.clock()
    run_id = await world.trigger(row.id.lower())
    acting = asyncio.create_task(injection.play(world, run_id))
    try:
        async with asyncio.timeout(TIMEOUT):
            detail = await _follow(stage, row, run_id, acting, tell=tell, ask=ask)
    except TimeoutError as exc:
        raise SandboxFailed(f"{row.id} did not end within {TIMEOUT:.0f} s") from exc
    finally:
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)
    data = judge(stage.layout, run_id, row.data, sent)
    await _lift(injection, stage)
    total = (stage.service.clock() - began).total_seconds()
    incident = detail.incident if detail else None
    ledger = detail.ledger if detail else ()
    timings = measure(detail, total)
    return Played(row, incident, ledger, data, timings, tuple(object_to(row, incident, ledger, data)))


async def _lift(injection: Injection, stage: Stage) -> None:
    await injection.lift(stage.world)


async def _follow(
    stage: Stage, row: FaultRow, run_id: str, acting: asyncio.Task[None], *, tell: Tell, ask: Ask
) -> IncidentDetail | None:
    """Tell what happens until the incident has ended, or for a while after a run without one."""
    store = stage.service.store
    told, asked = 0, 0
    quiet_since: datetime | None = None
    while True:
        found = [one for one in await store.incidents(dag_id=PIPELINE) if one.task.run_id == run_id]
        if not found:
            if acting.done():
                await acting
                now = stage.service.clock()
                quiet_since = quiet_since or now
                if not row.ends_as and (now - quiet_since).total_seconds() > QUIET:
                    return None
            await asyncio.sleep(LOOK)
            continue
        incident = found[-1]
        for event in await store.events(incident_id=incident.id, after=told):
            told = event.id
            tell(event)
        if incident.status in (Status.CLOSED, Status.ESCALATED):
            return await store.detail(incident.id)
        if incident.status is Status.WAITING_DECISION and incident.version != asked:
            asked = incident.version
            await ask(stage, incident)
        await asyncio.sleep(LOOK)


def measure(detail: IncidentDetail | None, total: float) -> Timings:
    """Times from the incident's own agent log and ledger."""
    if detail is None:
        return Timings(total=total)
    named = {event.name: event for event in reversed(detail.events)}
    opened = named["opened"]
    failed_at = opened.data.get("failed_at") if isinstance(opened.data, dict) else None
    ended = datetime.fromisoformat(failed_at) if isinstance(failed_at, str) else None
    detect = (opened.at - ended).total_seconds() if ended else None
    return Timings(detect=detect, own=_own(detail), total=total)


def _own(detail: IncidentDetail) -> float | None:
    """Our share between the complete log and the first write of the first attempt."""
    writes = [entry for entry in detail.ledger if entry.action.name != "wait"]
    first = next((entry for entry in writes if entry.sent_at is not None), None)
    diagnosed = next((event for event in detail.events if event.name == "diagnosed"), None)
    if first is None or first.sent_at is None or diagnosed is None or not isinstance(diagnosed.data, dict):
        return None
    thinking = (diagnosed.at - datetime.fromisoformat(str(diagnosed.data["ready_at"]))).total_seconds()
    applied = next((event for event in detail.events if event.name == "fix_applied"), None)
    if applied is None or not isinstance(applied.data, dict):
        return thinking
    began = datetime.fromisoformat(str(applied.data["began_at"]))
    return thinking + max(0.0, (first.sent_at - began).total_seconds())


def object_to(
    row: FaultRow, incident: IncidentRecord | None, ledger: tuple[LedgerEntry, ...], data: DataVerdict
) -> list[str]:
    """What is not as the catalogue says; empty when everything is."""
    wrong = []
    if incident is None:
        return [] if not row.ends_as and data.agrees else ["no incident was opened"]
    outcome = incident.outcome
    if outcome not in row.ends_as:
        wrong.append(f"ended as {outcome}, not {' or '.join(row.ends_as) or 'nothing'}")
    if (wanted := causes(row)) and incident.root_cause not in (*wanted, None):
        wrong.append(f"diagnosed {incident.root_cause}, not {' or '.join(wanted)}")
    written = {entry.action.name for entry in ledger if entry.step is not Step.INTENT}
    if strange := written - set(row.actions) - ALWAYS_RIGHT - {"wait"}:
        wrong.append(f"did {', '.join(sorted(strange))}")
    if row.mode is Mode.ESCALATE and written - ALWAYS_RIGHT:
        wrong.append("wrote to Airflow where it must not")
    if not data.agrees:
        wrong.append(f"the warehouse disagrees: {'; '.join(data.differences)}")
        if outcome is Outcome.HEALED:
            wrong.append("claimed healed while the data say otherwise")
    return wrong
