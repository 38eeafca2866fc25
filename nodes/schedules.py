"""The steps of an incident about runs that were due and were never made."""

from __future__ import annotations

from datetime import timedelta

from graph.domain import Check, Incident, Outcome, Status, Verification
from graph.errors import NotFound
from graph.state import HealState
from nodes.choosing import choose
from nodes.deps import Deps
from nodes.waiting import wait_for
from tools.missed import as_text, diagnose_gap, first_of, judge_gap, look_at, look_back, missed_schedule
from tools.triage import triage

LOOK_AT_LEAST, LOOK_AT_MOST = timedelta(seconds=5), timedelta(minutes=5)  # between two looks at the runs
SCHEDULER_LAG = timedelta(minutes=2)  # in which the newest interval's run may come by itself
FAILED_PATIENCE = timedelta(hours=1)  # a failed run has an incident of its own that may mend it


async def monitor_schedule(incident: Incident, state: HealState, deps: Deps) -> HealState:
    """Dismiss a gap that somebody filled; pass on the rest."""
    try:
        gap = await look_at(deps.airflow, incident.task)
    except NotFound:
        return _ended(Outcome.DISMISSED, "Airflow knows no such DAG any more")
    filled = first_of(incident.task) not in gap.missing
    if not gap.missing or (filled and not state.get("attempt")):
        return _ended(Outcome.SELF_RECOVERED, "the missing runs were made without our doing")
    failure = missed_schedule(incident.task, paused=gap.dag.is_paused)
    found = triage(failure, dag=gap.dag, history=(), held_back=0)
    if not found.intervene:
        return _ended(Outcome.DISMISSED, found.why)
    weighed = incident.model_copy(update={"severity": found.severity})
    return {"incident": weighed, "failure": failure, "intervene": True, "stale": ""}


async def diagnose_schedule(state: HealState, deps: Deps) -> HealState:
    """Why nobody made the runs, and the plan that makes them."""
    gap = await look_at(deps.airflow, state["failure"].task)
    diagnosis = diagnose_gap(gap)
    return {
        "log": await deps.archive.put_log(as_text(gap)),
        "ready_at": deps.clock(),
        "diagnosis": diagnosis,
        "rethink": False,
        "taken_back": False,
        **await choose(deps, failure=state["failure"], diagnosis=diagnosis, state=state),
    }


async def verify_schedule(state: HealState, deps: Deps) -> HealState:
    """Wait for every run of the gap, judge their data, then see that the schedule goes on."""
    ref, applied_at, now = state["failure"].task, state["applied_at"], deps.clock()
    try:
        filled = await look_back(deps.airflow, ref, applied_at=applied_at)
    except NotFound as exc:
        return _handed_over(Verification(outcome=None), f"it cannot be verified any more: {exc}")
    found = judge_gap(filled)
    since = now - applied_at
    if found.outcome is None:
        if filled.missing and not filled.moving and since > SCHEDULER_LAG:
            told = f"{len(filled.missing)} intervals are still missing"
            return {"verification": found, "applied": False, "plan": None, "stale": told}
        if filled.failed and not filled.moving and since > FAILED_PATIENCE:
            return _handed_over(found, f"runs of the gap failed: {', '.join(filled.failed[:5])}")
        if since > deps.limits.outcome_timeout:
            return _handed_over(found, f"the runs have not ended within {deps.limits.outcome_timeout}")
        pause = min(max(since / 4, LOOK_AT_LEAST), LOOK_AT_MOST)
        wait_for(Status.WAITING_OUTCOME, until=now + pause)
        return {} if found == state.get("verification") else {"verification": found}
    if found.outcome is Outcome.NOT_HEALED:
        # A run that was made cannot be unmade, and pausing again would only make the gap longer.
        return _handed_over(found, "the missing runs were made and their data are not right")
    return await _conclude(found, state, deps)


async def _conclude(found: Verification, state: HealState, deps: Deps) -> HealState:
    dag, now = await deps.airflow.dag(state["failure"].task.dag_id), deps.clock()
    if dag.is_paused:
        return _handed_over(found, f"somebody paused {dag.dag_id!r} again")
    watch_until = state.get("watch_until")
    if watch_until is None:
        end = now + deps.limits.watch_window
        soon = dag.next_run if dag.next_run is not None and dag.next_run > now else end
        return {"verification": found, "watch_until": min(end, soon)}
    if now < watch_until:
        wait_for(Status.WAITING_OUTCOME, until=watch_until)
        return {} if found == state.get("verification") else {"verification": found}
    checks = (*found.checks, Check(name="recurrence", ok=True, detail="the DAG runs by its schedule again"))
    reason = "; ".join(one.detail for one in (found.checks[0], checks[-1]))
    ended = found.model_copy(update={"checks": checks})
    return {"verification": ended, "outcome": found.outcome, "reason": reason}


def _handed_over(found: Verification, reason: str) -> HealState:
    ended = found.model_copy(update={"outcome": Outcome.ESCALATED})
    return {"verification": ended, "outcome": Outcome.ESCALATED, "reason": reason}


def _ended(outcome: Outcome, reason: str) -> HealState:
    return {"outcome": outcome, "reason": reason, "plan": None}
