"""Names the root cause from evidence, and puts the first plan that policy does not forbid in hand."""

from __future__ import annotations

import asyncio
from datetime import datetime

from langgraph.runtime import Runtime

from graph.domain import Diagnosis, Group, IncidentKind, Outcome, TaskLog, TaskRef, TaskSnapshot
from graph.errors import NotFound
from graph.state import HealState
from nodes.choosing import choose
from nodes.deps import Deps
from nodes.requests import diagnose_request
from nodes.schedules import diagnose_schedule
from tools.diagnosis import Case, Context
from tools.durations import in_words, usual
from tools.gathering import gather_context, lost_heartbeat, settled_log
from tools.import_errors import present
from tools.missed import as_now


async def diagnose(state: HealState, runtime: Runtime[Deps]) -> HealState:
    """Read the log and the context, name the cause, plan, and ask policy."""
    try:
        return await _diagnose(state, runtime.context)
    except NotFound as exc:
        if not await _is_gone(state["failure"].task, runtime.context):
            raise
        return {"plan": None, "outcome": Outcome.DISMISSED, "reason": f"its DAG or its run is gone: {exc}"}


async def _is_gone(ref: TaskRef, deps: Deps) -> bool:
    """Whether somebody deleted what this is about, since it was looked at."""
    try:
        await as_now(deps.airflow, ref)
    except NotFound:
        return True
    return False


async def _diagnose(state: HealState, deps: Deps) -> HealState:
    failure = state["failure"]
    if state.get("taken_back") and not state.get("rethink"):
        # The last try ran with settings that are no longer there; what was true before them is true again.
        known = state["diagnosis"]
        chosen = await choose(deps, failure=failure, diagnosis=known, state=state)
        return {"ready_at": deps.clock(), "taken_back": False, **chosen}
    if state["incident"].kind is IncidentKind.MISSED_SCHEDULE:
        return await diagnose_schedule(state, deps)
    if state["incident"].kind is IncidentKind.REQUEST:
        return await diagnose_request(state, deps)
    log, ready_at, context = await _evidence(state, deps)
    case = Case(log=log, task=failure, context=context)
    if not state.get("attempt") and not context.notes and (joined := await deps.members.join(case)):
        told = (
            f"the same cause as incident {joined.incident_id} ({joined.resource}), which has its failures now"
        )
        return {"outcome": Outcome.JOINED, "reason": told, "plan": None}
    parted = bool(state.get("attempt")) and await deps.members.part(case) > 0
    diagnosis = await deps.diagnostician.diagnose(case)
    if state["incident"].kind is IncidentKind.STUCK_RUNNING:
        diagnosis = _with_numbers(diagnosis, failure, context, now=ready_at)
    return {
        "log": await deps.archive.put_log(log.text),
        "ready_at": ready_at,
        "diagnosis": diagnosis,
        "rethink": False,
        "taken_back": False,
        **({"group": Group()} if parted else {}),
        **await choose(deps, failure=failure, diagnosis=diagnosis, state=state),
    }


async def _log(state: HealState, deps: Deps) -> TaskLog:
    failure = state["failure"]
    match state["incident"].kind:
        case IncidentKind.FAILURE:
            return await settled_log(deps.airflow, failure.task, failure.try_number, deps.sleep)
        case IncidentKind.STUCK | IncidentKind.MISSED_SCHEDULE | IncidentKind.REQUEST:
            return TaskLog(text="")  # it never started
        case IncidentKind.STUCK_RUNNING:
            return await deps.airflow.log(failure.task, failure.try_number)  # so far
        case IncidentKind.IMPORT_ERROR:
            found = await present(deps.airflow, failure.task)
            return TaskLog(text=found.stacktrace if found is not None else "")


async def _evidence(state: HealState, deps: Deps) -> tuple[TaskLog, datetime, Context]:
    """The log, when it was whole, and the context: neither waits for the other."""
    notes = tuple(state.get("notes", []))
    if state["incident"].kind is IncidentKind.IMPORT_ERROR:
        log = await _log(state, deps)
        return log, deps.clock(), Context(import_failure=log.text, notes=notes)

    async def whole() -> tuple[TaskLog, datetime]:
        return await _log(state, deps), deps.clock()

    (log, ready_at), context = await asyncio.gather(
        whole(), gather_context(deps.airflow, state["failure"], notes, around=deps.around)
    )
    lost = await lost_heartbeat(deps.airflow, state["failure"], log)
    return log, ready_at, context.model_copy(update={"lost_heartbeat": lost}) if lost else context


def _with_numbers(diagnosis: Diagnosis, task: TaskSnapshot, context: Context, *, now: datetime) -> Diagnosis:
    """A log that is not finished says little; how long the task usually takes says more."""
    past = usual([one.duration for one in context.history if one.state == "success" and one.duration])
    if task.start is None or past is None:
        return diagnosis
    told = f"it has run for {in_words((now - task.start).total_seconds())}"
    told += f"; its last {past.runs} good runs took {in_words(past.median)} (median)"
    return diagnosis.model_copy(update={"summary": f"{told}. {diagnosis.summary}".rstrip()})
