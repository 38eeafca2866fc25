"""Plays one fault of the catalogue on the stage and says how it went, judged at the warehouse."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from evals.faults.catalogue import FaultRow, Mode, causes
from evals.faults.checks import more_to_say
from evals.faults.injections import INJECTIONS, Injection
from evals.faults.oracle import DataVerdict, judge
from evals.faults.stage import Arena
from graph.domain import LedgerEntry, Outcome, Status, Step
from graph.errors import SandboxFailed
from server.record import AgentEvent, IncidentDetail, IncidentRecord

BEFORE = "before"
PICTURED = frozenset({"F35", "F36"})  # rows whose world is compared with what it was
LOOK = 0.2  # seconds between two looks at the incident
QUIET = 6.0  # seconds after a healthy run in which no incident may appear: three polls
ALWAYS_RIGHT = frozenset({"add_note", "notify"})

Tell = Callable[[AgentEvent], None]
Ask = Callable[[Arena, IncidentRecord], Awaitable[None]]


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
    events: tuple[AgentEvent, ...] = ()

    @property
    def right(self) -> bool:
        """Everything as the catalogue says, and the warehouse agrees."""
        return not self.objections


async def play(stage: Arena, row: FaultRow, *, tell: Tell, ask: Ask, reset: bool = True) -> Played:
    """Inject, run, watch Airmedic, lift, judge. Raises `SandboxFailed` when the stage itself fails."""
    injection = INJECTIONS[row.id]
    if reset:  # else nothing has happened since the caller's own
        await stage.world.reset()
    if injection.past is not None:
        await injection.past(stage.world)
    if injection.seen_before:
        await _once(stage, row, injection, tell=tell, ask=ask)
    return await _once(stage, row, injection, tell=tell, ask=ask)


async def _once(stage: Arena, row: FaultRow, injection: Injection, *, tell: Tell, ask: Ask) -> Played:
    world = stage.world
    await injection.inject(world)
    sent = world.source.state.faults
    if row.id in PICTURED:
        await world.picture(BEFORE)
    began = stage.service.clock()
    run_id = await world.trigger(row.id.lower(), dag_id=injection.dag_id) if injection.triggers else ""
    acting = asyncio.create_task(injection.play(world, run_id))
    try:
        async with asyncio.timeout(injection.within) as limit:
            unhurried = _unhurried(ask, limit, injection.within)
            detail = await _follow(stage, row, run_id, acting, tell=tell, ask=unhurried)
            if detail and detail.incident.outcome is Outcome.SELF_RECOVERED:
                # The task is green; what comes after it still runs, and nobody at Airmedic waits for it.
                await world.airflow.wait_run(injection.dag_id, run_id, within=injection.within)
    except TimeoutError as exc:
        raise SandboxFailed(f"{row.id} did not end within {injection.within:.0f} s") from exc
    finally:
        acting.cancel()
        await asyncio.gather(acting, return_exceptions=True)
    found = await more_to_say(stage, row, run_id, detail)
    await injection.lift(world)
    data = judge(stage.layout, run_id, row.data, sent)
    total = (stage.service.clock() - began).total_seconds()
    incident = detail.incident if detail else None
    ledger = detail.ledger if detail else ()
    events = detail.events if detail else ()
    objections = (*object_to(row, incident, ledger, data), *object_to_asking(row, events, ledger), *found)
    return Played(row, incident, ledger, data, measure(detail, total), objections, events)


def _unhurried(ask: Ask, limit: asyncio.Timeout, within: float) -> Ask:
    """The time in which a person reads and answers is nobody's delay."""

    async def patient(stage: Arena, incident: IncidentRecord) -> None:
        limit.reschedule(None)
        await ask(stage, incident)
        limit.reschedule(asyncio.get_running_loop().time() + within)

    return patient


async def _follow(
    stage: Arena, row: FaultRow, run_id: str, acting: asyncio.Task[None], *, tell: Tell, ask: Ask
) -> IncidentDetail | None:
    """Tell what happens until the incident has ended, or for a while after a run without one."""
    store = stage.service.store
    told, asked = 0, 0
    quiet_since: datetime | None = None
    while True:
        if acting.done():
            await acting  # a fault that could not be played says nothing of Airmedic
        incident = await _incident(stage, run_id)
        if incident is None:
            if acting.done():
                now = stage.service.clock()
                quiet_since = quiet_since or now
                if not row.ends_as and (now - quiet_since).total_seconds() > QUIET:
                    return None
            await asyncio.sleep(LOOK)
            continue
        for event in await store.events(incident_id=incident.id, after=told):
            told = event.id
            tell(event)
        if incident.status in (Status.CLOSED, Status.ESCALATED):
            return await store.detail(incident.id)
        if incident.status is Status.WAITING_DECISION and incident.version != asked:
            asked = incident.version
            await ask(stage, incident)
        await asyncio.sleep(LOOK)


async def _incident(stage: Arena, run_id: str) -> IncidentRecord | None:
    """The run's first incident; without a run the first there is."""
    found = await stage.service.store.incidents()
    return next((one for one in reversed(found) if not run_id or one.task.run_id == run_id), None)


def measure(detail: IncidentDetail | None, total: float) -> Timings:
    """Times from the incident's own agent log and ledger."""
    if detail is None:
        return Timings(total=total)
    named = {event.name: event for event in reversed(detail.events)}
    opened = named.get("opened")
    failed_at = opened.data.get("failed_at") if opened and isinstance(opened.data, dict) else None
    ended = datetime.fromisoformat(failed_at) if isinstance(failed_at, str) else None
    detect = (opened.at - ended).total_seconds() if opened and ended else None
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


def object_to_asking(row: FaultRow, events: Sequence[AgentEvent], ledger: Sequence[LedgerEntry]) -> list[str]:
    """Who was asked before the first write, against the row's mode."""
    asked = any(event.name == "asked" for event in events)
    written = [entry for entry in ledger if entry.sent_at is not None]
    if row.mode is Mode.AUTO and asked:
        return ["asked a person where it should act by itself"]
    if row.mode is Mode.ASK and written and not asked:
        return ["wrote without asking where a person decides"]
    return []
