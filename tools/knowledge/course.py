"""A task's own past: when it worked, how long it takes, and whether its failures keep a rhythm."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from statistics import median

from graph.domain import Remediation, RootCause, TaskSnapshot
from tools.diagnosis import Case
from tools.knowledge.entries import Entry

STEADY = 3  #: good runs before a task's past says something
LATELY = timedelta(hours=26)  #: the run before of a daily DAG
LASTING_RUNS = 4
LASTING = timedelta(hours=6)  #: runs that failed in a row over this long did not fail of a bad moment
LONG_TRIES = timedelta(minutes=30)
PATIENT_WAIT = 900.0  #: seconds to wait when all tries of half an hour failed
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
#: what comes and goes by itself, and therefore not when it failed for hours
_MOMENTARY = frozenset(
    {
        RootCause.NETWORK_UNREACHABLE,
        RootCause.UPSTREAM_UNAVAILABLE,
        RootCause.LOCK_CONTENTION,
        RootCause.WORKER_LOST,
        RootCause.CAPACITY_UNAVAILABLE,
    }
)


def good_runs(case: Case) -> list[TaskSnapshot]:
    """The task's successes in other runs, newest first."""
    return [t for t in case.context.history if t.state == "success"]


def ago(past: TaskSnapshot, task: TaskSnapshot) -> str | None:
    """How long before this failure a run ended, in words; None when that is not known or long past."""
    now, then = task.end or task.start, past.end or past.start
    if now is None or then is None or not timedelta() <= now - then <= LATELY:
        return None
    seconds = int((now - then).total_seconds())
    if seconds < 90:
        return f"{seconds} s"
    minutes = seconds // 60
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h"


def rhythm(case: Case) -> str | None:
    """`it failed on 3 Mondays and on no other day`: this failure and those before keep to a time."""
    moment = _moment(case.task) if case.task is not None else None
    if moment is None:
        return None
    bad = [m for t in case.context.history if t.state == "failed" and (m := _moment(t)) is not None]
    good = [m for t in case.context.history if t.state == "success" and (m := _moment(t)) is not None]
    weekday = _only_then(moment, bad, good, lambda m: m.weekday())
    if weekday and len({m.weekday() for m in good}) >= 2:
        return f"it failed on {weekday} {_DAYS[moment.weekday()]}s and on no other day"
    hour = _only_then(moment, bad, good, lambda m: m.hour)
    if hour and len({m.hour for m in good}) >= 2:
        return f"it failed on {hour} days at {moment:%H} o'clock and at no other hour"
    return None


def _only_then(
    moment: datetime, bad: list[datetime], good: list[datetime], part: Callable[[datetime], int]
) -> int:
    """On how many days it failed at this part of the time; 0 when it also failed, or worked, otherwise."""
    days = {m.date() for m in [moment, *bad]}
    same = all(part(m) == part(moment) for m in bad) and all(part(m) != part(moment) for m in good)
    return len(days) if same and len(days) >= STEADY and len(good) >= STEADY else 0


def _moment(task: TaskSnapshot) -> datetime | None:
    return task.start or task.end


Passing = tuple[bool, Remediation, str]


def slow_once(case: Case, lead: Entry) -> Passing:
    """A timeout may pass when the task is normally well inside its limit and has not timed out before."""
    took = case.task.duration if case.task is not None else None
    usual = [t.duration for t in good_runs(case) if t.duration is not None]
    # Airflow's own tries follow within seconds and say little; a run before that took as long says much.
    failed_before = took is not None and any(
        t.state == "failed" and t.duration is not None and t.duration >= 0.9 * took
        for t in case.context.history[:2]
    )
    if failed_before:
        return False, Remediation.RAISE_LIMIT, "a run before took as long and failed too"
    if (often := rhythm(case)) is not None:
        return False, Remediation.RAISE_LIMIT, often
    if took is not None and len(usual) >= STEADY:
        told = f"it took {took:.0f} s, usually {median(usual):.0f} s"
        if median(usual) < 0.7 * took:
            return True, Remediation.RETRY, f"{told}: slow this once"
        return lead.transient, lead.remediation, told
    return lead.transient, lead.remediation, ""


def lasts(case: Case, cause: RootCause) -> str | None:
    """Why this failure does not pass by itself, by the runs before it."""
    if cause not in _MOMENTARY or case.task is None:
        return None
    failed: list[TaskSnapshot] = []
    for one in case.context.history:
        if one.state == "success":
            break
        if one.state == "failed":
            failed.append(one)
    first = _moment(failed[-1]) if failed else None
    now = _moment(case.task)
    if len(failed) < LASTING_RUNS or first is None or now is None or now - first < LASTING:
        return None
    hours = (now - first).total_seconds() / 3600
    span = f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
    return f"it failed in each of its last {len(failed)} runs, over {span}: it does not pass by itself"


def every_try(case: Case) -> tuple[float, str] | None:
    """A longer wait, when all tries of a good while failed."""
    failed = [one for one in case.context.tries if one.state in ("failed", "up_for_retry")]
    now = case.task.end or case.task.start if case.task is not None else None
    first = _moment(failed[0]) if failed else None
    if len(failed) < 2 or now is None or first is None or now - first < LONG_TRIES:
        return None
    minutes = int((now - first).total_seconds() // 60)
    return PATIENT_WAIT, f"all {len(failed) + 1} tries of {minutes} min failed: wait longer"
