"""Is this a failure, is it final, and is it ours to act on?"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from langgraph.runtime import Runtime

from graph.domain import STARTED_STATES, Incident, IncidentKind, Outcome, Status, TaskSnapshot
from graph.errors import NotFound
from graph.state import HealState
from nodes.deps import Deps
from nodes.requests import monitor_request
from nodes.schedules import monitor_schedule
from nodes.waiting import wait_for
from nodes.waves import sweep
from tools.gathering import accepted_by_hand, settled_task
from tools.import_errors import broken_file, present
from tools.triage import triage
from tools.verification import downstream_of

LOOK_AGAIN = timedelta(seconds=60)  # events and the poll wake it sooner
GATHER = timedelta(minutes=2)  # for the other map indexes of a task to come to rest


async def monitor(state: HealState, runtime: Runtime[Deps]) -> HealState:
    """Watch what Airflow repairs by itself; dismiss what is no failure; pass on the rest."""
    found = await _look(state, runtime.context)
    if found.get("outcome") is not None and (await runtime.context.members.counts()).waiting:
        await sweep(runtime.context)
    return found


async def _look(state: HealState, deps: Deps) -> HealState:
    incident = state["incident"]
    if incident.kind is IncidentKind.IMPORT_ERROR:
        return await _broken_file(incident, deps)
    if incident.kind is IncidentKind.MISSED_SCHEDULE:
        return await monitor_schedule(incident, state, deps)
    if incident.kind is IncidentKind.REQUEST:
        return await monitor_request(incident, deps)
    try:
        task = await _worst(incident, deps)
    except NotFound:
        return _ended(Outcome.DISMISSED, "Airflow knows no such task instance any more")
    if incident.kind is IncidentKind.STUCK:
        return await _stuck(state, task, deps)
    if incident.kind is IncidentKind.STUCK_RUNNING:
        return _runs_on(state, task)
    if not task.final:
        wait_for(Status.WATCHING, until=deps.clock() + LOOK_AGAIN)
        return {"intervene": False, "stale": ""}
    if task.state == "success":
        return _ended(Outcome.SELF_RECOVERED, f"succeeded on try {task.try_number} without our doing")
    if task.state != "failed":
        return _ended(Outcome.DISMISSED, f"the task is {task.state}: no failure of its own")
    try:
        if accepted := await accepted_by_hand(deps.airflow, task.task):
            return _ended(Outcome.DISMISSED, accepted)
        return await _weigh(state, task, deps)
    except NotFound as exc:
        return _ended(Outcome.DISMISSED, f"its DAG or its run is gone: {exc}")


async def _worst(incident: Incident, deps: Deps) -> TaskSnapshot:
    """The task instance to look at: of several map indexes one that still runs, else one that failed."""
    members = await deps.records.members(incident.id)
    if len(members) < 2 and incident.task.map_index < 0:
        return await settled_task(deps.airflow, incident.task, deps.sleep)
    every = await deps.airflow.run_tasks(incident.task.dag_id, incident.task.run_id)
    ours = {one.task: one for one in every if one.task in members or one.task == incident.task}
    # Its siblings may fail next of the same cause: they are waited for, but not for ever.
    if deps.clock() < incident.opened_at + GATHER:
        same = (one for one in every if one.task.task_id == incident.task.task_id)
        if (moving := next((one for one in same if not one.final), None)) is not None:
            return moving
    by_need = sorted(ours.values(), key=lambda one: (one.final, one.state != "failed", one.task.map_index))
    if not by_need:
        raise NotFound("none of the incident's task instances is left")
    return by_need[0]


async def _broken_file(incident: Incident, deps: Deps) -> HealState:
    if await present(deps.airflow, incident.task) is None:
        return _ended(Outcome.SELF_RECOVERED, "the file imports again, or is gone, or has another error")
    return {"incident": incident, "failure": broken_file(incident.task), "intervene": True, "stale": ""}


async def _stuck(state: HealState, task: TaskSnapshot, deps: Deps) -> HealState:
    if task.state not in {"scheduled", "queued"}:
        return _ended(Outcome.SELF_RECOVERED, f"the task is {task.state}: it started without our doing")
    return {"incident": state["incident"], "failure": task, "intervene": True, "stale": ""}


def _runs_on(state: HealState, task: TaskSnapshot) -> HealState:
    if task.state not in STARTED_STATES or task.try_number != state["incident"].try_number:
        return _ended(Outcome.SELF_RECOVERED, f"the task is {task.state}: that try has ended by itself")
    return {"incident": state["incident"], "failure": task, "intervene": True, "stale": ""}


async def _weigh(state: HealState, task: TaskSnapshot, deps: Deps) -> HealState:
    ref = task.task
    dag, history, infos = await asyncio.gather(
        deps.airflow.dag(ref.dag_id),
        deps.airflow.history(ref.dag_id, ref.task_id, limit=10),
        deps.airflow.dag_tasks(ref.dag_id),
    )
    held_back = len(downstream_of(ref.task_id, infos))
    found = triage(task, dag=dag, history=history, held_back=held_back)
    if not found.intervene and await deps.requests.of(state["incident"].id) is None:
        return _ended(Outcome.DISMISSED, found.why)
    incident = state["incident"].model_copy(update={"severity": found.severity, "failed_at": task.end})
    return {"incident": incident, "failure": task, "intervene": True, "stale": ""}


def _ended(outcome: Outcome, reason: str) -> HealState:
    return {"outcome": outcome, "reason": reason, "plan": None}
