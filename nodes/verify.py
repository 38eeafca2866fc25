"""Decides from Airflow and from the data, not from hope."""

from __future__ import annotations

from datetime import datetime, timedelta

from langgraph.runtime import Runtime

from graph.domain import (
    Check,
    FixPlan,
    Group,
    Outcome,
    RootCause,
    Status,
    TaskRef,
    TaskSnapshot,
    Verification,
)
from graph.errors import NotFound
from graph.state import HealState
from nodes.choosing import failed_members
from nodes.deps import Deps
from nodes.following import follow, for_all, gave_up
from nodes.requests import verify_request
from nodes.schedules import verify_schedule
from nodes.waiting import wait_for
from tools.durations import in_words
from tools.missed import is_schedule
from tools.requested import is_request
from tools.verification import judge, look

STOPS = frozenset({"pause_dag", "add_note", "notify"})  # plans of nothing else keep things from getting worse
LOOK_AGAIN = timedelta(seconds=60)  # events and the poll wake it sooner
MOMENT = timedelta(seconds=1)
STARTS_WITHIN = timedelta(minutes=10)  # else the others of its cause do not wait for it
ENDS_WITHIN = timedelta(minutes=30)  # the same, with what it holds back
LOST_AFTER = timedelta(seconds=30)  # an ended run does not start again by itself
FEW, MANY = 5, 1000  # task instances that are looked through for a recurrence: first, and when all are newer
OWN = "what became of this one is its own"
REMOVED = (
    "the DAG has this map index no longer: Airflow removed it when it was cleared, and nothing ran again"
)
STALE = (
    "the DAG's file is gone or does not load, so the cleared task does not run: it will when the file is back"
)
LOST = "Airflow ended the run while the task was cleared, and did not start it: clear it once more in Airflow"


async def verify(state: HealState, runtime: Runtime[Deps]) -> HealState:
    """Wait for the run to come to rest, judge it, then watch for recurrence."""
    deps = runtime.context
    plan = state["plan"]
    assert plan is not None, "verification follows an applied plan"
    if is_request(state["failure"].task):
        return await verify_request(state, deps)
    if all(action.name in STOPS for action in plan.actions):
        return _stopped(plan)
    failure = state["failure"]
    if is_schedule(failure.task):
        return await verify_schedule(state, deps)
    if state.get("release"):
        return await follow(state, deps)
    if (until := state.get("watch_until")) is not None and _just_looked(state, deps):
        wait_for(Status.WAITING_OUTCOME, until=until)
        return {"looked_at": None}
    marked = _marked(plan)
    try:
        world = await look(deps.airflow, failure.task, deps.catalogue.reruns(plan), marked=marked)
    except NotFound as exc:
        await deps.members.let_go(OWN, node="verify")
        return _handed_over(Verification(outcome=None), f"it cannot be verified any more: {exc}")
    changed = deps.catalogue.changes_settings(plan)
    # A task that never started runs on the try it is on; one that failed runs on a new one.
    before = failure.try_number if failure.state == "failed" else failure.try_number - 1
    found = judge(world, try_before=before, changed_settings=changed, marked=marked)
    if found.outcome is None:
        return await _goes_on(found, world.task, state, deps, try_before=before)
    if found.outcome is Outcome.NOT_HEALED:
        return {"verification": found, "undo": True, "stale": ""}
    if await failed_members(deps, state):
        # They joined the incident after its plan was made, and the plan did not touch them.
        return {"verification": found, "applied": False, "plan": None, "stale": "more map indexes failed"}
    counts = await deps.members.counts()
    if counts.waiting and not gave_up(state, deps):
        return {"verification": found, "release": "send"}
    own = found.outcome is Outcome.ESCALATED and not counts.waiting
    if counts.total:
        found = await for_all(found, deps)
    if own:  # its cause is gone: what fails of it from now on is not for whoever looks at this one
        await deps.members.let_go(OWN, node="verify")
    return await _watch(found, state, deps)


async def _goes_on(
    found: Verification, task: TaskSnapshot, state: HealState, deps: Deps, *, try_before: int
) -> HealState:
    """The cleared task has not ended: wait for it, but not for ever."""
    now = deps.clock()
    since = now - state["applied_at"]
    if since > deps.limits.outcome_timeout:
        await deps.members.let_go(OWN, node="verify")
        well = found.checks[0].ok
        what = "the task succeeded, and what runs with it or after it" if well else "the task"
        return _handed_over(found, f"{what} has not ended within {deps.limits.outcome_timeout}")
    if task.state in {"none", "removed"} and since > LOST_AFTER and (why := await _never(task, deps)):
        await deps.members.let_go(OWN, node="verify")
        return _handed_over(found, why)
    if not _approved_for_all(state) and (late := _late(task, since, try_before=try_before)):
        await deps.members.let_go(late, node="verify")
    wait_for(Status.WAITING_OUTCOME, until=now + LOOK_AGAIN)
    return _if_new(found, state)


def _late(task: TaskSnapshot, since: timedelta, *, try_before: int) -> str:
    """Why the others of its cause wait for it no longer; empty as long as they do."""
    if since > STARTS_WITHIN and task.try_number <= try_before:
        return f"this one has not started within {in_words(STARTS_WITHIN.total_seconds())}"
    if since > ENDS_WITHIN:
        return f"this one has not ended within {in_words(ENDS_WITHIN.total_seconds())}"
    return ""


async def _watch(found: Verification, state: HealState, deps: Deps) -> HealState:
    """All are well, as far as that can be had: see that it lasts."""
    now = deps.clock()
    if found.outcome is Outcome.ESCALATED:
        wrong = [check.detail for check in found.checks if check.ok is False]
        return _handed_over(found, "; ".join(wrong) or found.checks[-1].detail)
    watch_until = state.get("watch_until")
    if watch_until is None:
        return {"verification": found, "looked_at": now, "watch_until": await _watch_end(state, deps, now)}
    if watch_until > (latest := now + deps.limits.watch_window):
        return {"verification": found, "watch_until": latest}  # the clock was put back since
    if now < watch_until:
        wait_for(Status.WAITING_OUTCOME, until=watch_until)
        return _if_new(found, state)
    return await _conclude(found, state, deps)


def _just_looked(state: HealState, deps: Deps) -> bool:
    """Whether the watch begins here: the world was read a moment ago, and found well."""
    looked_at = state.get("looked_at")
    return looked_at is not None and looked_at <= deps.clock() < looked_at + MOMENT


def _approved_for_all(state: HealState) -> bool:
    """Whether a person approved the others with this one: they would be asked about once more."""
    return bool((state.get("group") or Group()).approved_by)


async def _never(task: TaskSnapshot, deps: Deps) -> str:
    """Why Airflow will not start the cleared task; empty as long as it may."""
    ref = task.task
    if (await deps.airflow.dag(ref.dag_id)).is_stale:
        return STALE
    if (await deps.airflow.run(ref.dag_id, ref.run_id)).state not in {"success", "failed"}:
        return ""
    return REMOVED if task.state == "removed" else LOST


def _stopped(plan: FixPlan) -> HealState:
    """What only stops the harm heals nothing: a person goes on from here."""
    check = Check(name="stopped", ok=True, detail=plan.summary)
    return _handed_over(Verification(outcome=None, checks=(check,)), f"{plan.summary}; done as approved")


def _marked(plan: FixPlan) -> str:
    """The state in which the plan leaves the task, when it does not run it again."""
    states = [action.args.get("state") for action in plan.actions if action.name == "mark_task"]
    return str(states[-1]) if states else ""


def _if_new(found: Verification, state: HealState) -> HealState:
    """Nothing to record when the world looks as it did the last time."""
    return {} if found == state.get("verification") else {"verification": found}


async def _watch_end(state: HealState, deps: Deps, now: datetime) -> datetime:
    """The next scheduled run of the DAG, or the window's end when that is sooner or there is none."""
    end = now + deps.limits.watch_window
    next_run = (await deps.airflow.dag(state["failure"].task.dag_id)).next_run
    return min(end, next_run) if next_run is not None and next_run > now else end


async def _conclude(found: Verification, state: HealState, deps: Deps) -> HealState:
    failed = await _recurred(state["failure"].task, deps, since=state["applied_at"])
    apart = await _of_other_causes(failed, state, deps)
    again = [run for run in failed if run not in apart]
    if again:
        detail = f"failed again in {', '.join(again)}"
    else:
        others = (f"{run} failed since of {', '.join(causes)}" for run, causes in apart.items())
        detail = "; ".join(("no recurrence in the watch window", *others))
    checks = (*found.checks, Check(name="recurrence", ok=not again, detail=detail))
    if again:
        return _handed_over(found.model_copy(update={"checks": checks}), detail)
    doubts = found.outcome is not Outcome.HEALED  # why it is no more than that belongs to the answer
    reason = "; ".join(check.detail for check in checks if doubts or check.ok is not None)
    return {
        "verification": found.model_copy(update={"checks": checks}),
        "outcome": found.outcome,
        "reason": reason,
    }


async def _recurred(ref: TaskRef, deps: Deps, *, since: datetime) -> list[str]:
    """The runs in which the task failed since, newest first."""
    later: list[TaskSnapshot] = []
    for limit in (FEW, MANY):
        history = await deps.airflow.history(ref.dag_id, ref.task_id, limit=limit)
        later = [
            one for one in history if one.task.run_id != ref.run_id and (not one.start or one.start > since)
        ]
        # A run that is older ends the search: what comes behind it is older still.
        if len(later) < len(history) or len(history) < limit:
            break
    return list(dict.fromkeys(one.task.run_id for one in later if one.state == "failed" and one.start))


async def _of_other_causes(failed: list[str], state: HealState, deps: Deps) -> dict[str, list[RootCause]]:
    """Those of these runs whose failure is no recurrence: it has another cause, which is named.

    After a plan that changed settings any failure may be its doing.
    """
    plan, diagnosis = state["plan"], state.get("diagnosis")
    assert plan is not None, "verification follows an applied plan"
    if not failed or diagnosis is None or deps.catalogue.changes_settings(plan):
        return {}
    unclear = {None, RootCause.UNKNOWN, diagnosis.root_cause}
    known = await deps.records.causes(state["failure"].task, failed)
    return {
        run: sorted(cause for cause in known[run] if cause is not None)
        for run in failed
        if run in known and not known[run] & unclear
    }


def _handed_over(found: Verification, reason: str) -> HealState:
    ended = found.model_copy(update={"outcome": Outcome.ESCALATED})
    return {"verification": ended, "outcome": Outcome.ESCALATED, "reason": reason}
