"""The steps of an incident that a person opened by asking for something."""

from __future__ import annotations

from graph.domain import Check, Incident, Outcome, Severity, Status, Verification
from graph.errors import NotFound
from graph.state import HealState
from nodes.choosing import choose
from nodes.deps import Deps
from nodes.waiting import wait_for
from tools.requested import asked_for, diagnosis_of, wants_pause


async def monitor_request(incident: Incident, deps: Deps) -> HealState:
    """Whether it is still to be done."""
    request = await deps.requests.of(incident.id)
    if request is None:
        return _ended("nobody asks for it any more")
    try:
        dag = await deps.airflow.dag(incident.task.dag_id)
    except NotFound:
        return _ended("Airflow knows no such DAG any more")
    if dag.is_paused is wants_pause(request, now=deps.clock()):
        return _ended(f"the DAG is {'paused' if dag.is_paused else 'not paused'}, as asked")
    return {
        "incident": incident.model_copy(update={"severity": Severity.MEDIUM}),
        "failure": asked_for(incident.task, paused=dag.is_paused),
        "intervene": True,
        "stale": "",
    }


async def diagnose_request(state: HealState, deps: Deps) -> HealState:
    """The plan that was asked for, with policy's word on it."""
    request = await deps.requests.of(state["incident"].id)
    assert request is not None, "monitor saw it"
    now, failure = deps.clock(), state["failure"]
    diagnosis = diagnosis_of(request, failure.task.dag_id, now=now)
    chosen = await choose(deps, failure=failure, diagnosis=diagnosis, state=state)
    return {"ready_at": now, "rethink": False, "taken_back": False, **chosen}


async def verify_request(state: HealState, deps: Deps) -> HealState:
    """See that it stands; of a pause with an end, wait for that and look at it afresh."""
    request = await deps.requests.of(state["incident"].id)
    try:
        dag, now = await deps.airflow.dag(state["failure"].task.dag_id), deps.clock()
    except NotFound:
        return _ended("done as asked; by now Airflow knows no such DAG any more")
    plan = state["plan"]
    assert plan is not None, "verification follows an applied plan"
    pause = plan.actions[0].name == "pause_dag"
    stands = "paused" if dag.is_paused else "not paused"
    if dag.is_paused is not pause:
        return _ended(f"done as asked, and somebody else changed it since: the DAG is {stands}")
    if pause and request is not None and request.until is not None:
        if now < request.until:
            wait_for(Status.WAITING_TIMER, until=request.until)
            return {}
        told = f"the pause was to end at {request.until:%Y-%m-%d %H:%M} UTC"
        return {"applied": False, "plan": None, "asked": False, "stale": told}
    check = Check(name="dag", ok=True, detail=f"the DAG is {stands}")
    return {"verification": Verification(outcome=None, checks=(check,)), **_ended(f"done as asked: {stands}")}


def _ended(reason: str) -> HealState:
    """It was no failure: nothing was healed."""
    return {"outcome": Outcome.DISMISSED, "reason": reason, "plan": None}
