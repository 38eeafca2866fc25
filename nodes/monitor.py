"""Is this a failure, is it final, and is it ours to act on?"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from langgraph.runtime import Runtime

from graph.domain import Outcome, Status, TaskSnapshot
from graph.errors import NotFound
from graph.state import HealState
from nodes.deps import Deps
from nodes.waiting import wait_for
from tools.gathering import settled_task
from tools.triage import triage
from tools.verification import downstream_of

LOOK_AGAIN = timedelta(seconds=60)  # events and the poll wake it sooner


async def monitor(state: HealState, runtime: Runtime[Deps]) -> HealState:
    """Watch what Airflow repairs by itself; dismiss what is no failure; pass on the rest."""
    deps = runtime.context
    incident = state["incident"]
    try:
        task = await settled_task(deps.airflow, incident.task, deps.sleep)
    except NotFound:
        return _ended(Outcome.DISMISSED, "Airflow knows no such task instance any more")
    if not task.final:
        wait_for(Status.WATCHING, until=deps.clock() + LOOK_AGAIN)
        return {"intervene": False, "stale": ""}
    if task.state == "success":
        return _ended(Outcome.SELF_RECOVERED, f"succeeded on try {task.try_number} without our doing")
    if task.state != "failed":
        return _ended(Outcome.DISMISSED, f"the task is {task.state}: no failure of its own")
    return await _weigh(state, task, deps)


async def _weigh(state: HealState, task: TaskSnapshot, deps: Deps) -> HealState:
    ref = task.task
    dag, history, infos = await asyncio.gather(
        deps.airflow.dag(ref.dag_id),
        deps.airflow.history(ref.dag_id, ref.task_id, limit=10),
        deps.airflow.dag_tasks(ref.dag_id),
    )
    held_back = len(downstream_of(ref.task_id, infos))
    found = triage(task, dag=dag, history=history, held_back=held_back)
    if not found.intervene:
        return _ended(Outcome.DISMISSED, found.why)
    incident = state["incident"].model_copy(update={"severity": found.severity, "failed_at": task.end})
    return {"incident": incident, "failure": task, "intervene": True, "stale": ""}


def _ended(outcome: Outcome, reason: str) -> HealState:
    return {"outcome": outcome, "reason": reason, "plan": None}
