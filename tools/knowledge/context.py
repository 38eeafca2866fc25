"""What Airflow knows beyond the log moves the answer; each rule says so in a line.

Rules over the task's history, tries and siblings, its upstream, DAG version, pool and queue. Those that
look at the log alone are in `refine`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from graph.domain import DataReport, RootCause
from tools.diagnosis import Case, Sibling
from tools.evidence import Evidence
from tools.knowledge.course import ago, good_runs, rhythm
from tools.knowledge.ranking import Candidate, lower, raised

Candidates = list[Candidate]
DATA_CAUSES = frozenset(
    {
        RootCause.SCHEMA_DRIFT,
        RootCause.TYPE_MISMATCH,
        RootCause.CONSTRAINT_VIOLATION,
        RootCause.MISSING_DATA,
    }
)
#: causes outside the task, which come and go for many tasks at once
PASSING = frozenset(
    {
        RootCause.NETWORK_UNREACHABLE,
        RootCause.UPSTREAM_UNAVAILABLE,
        RootCause.LOCK_CONTENTION,
        RootCause.CAPACITY_UNAVAILABLE,
        RootCause.RATE_LIMITED,
        RootCause.WORKER_LOST,
        RootCause.TIMEOUT,
    }
)
_MAY_BE_DATA = DATA_CAUSES | {RootCause.CODE_ERROR, RootCause.UNKNOWN, RootCause.EXTERNAL_JOB_FAILED}
_KEYED = re.compile(r"^(?:\w+\.)*(KeyError|AttributeError|IndexError|TypeError)\b")
_ABSENT_COLUMN = re.compile(
    r"(?i)(?:column|field|identifier)\b[^\n]{0,80}(?:not exist|not found|no such|unknown|invalid|unresolved)"
    r"|(?:no such|unknown|invalid|unresolved|undefined)[^\n]{0,20}(?:column|field|identifier)"
)
_NAME = re.compile(r"(?i)resolve|getaddrinfo|name or service|nodename|unknown host|NXDOMAIN|no such host")
STEADY = 3  #: good runs before a task's past says something
CERTAIN = 0.97
MOVE = 0.05  #: what a reason from outside the log adds
NAMED = 0.6  #: least score of a cause that the log itself names; others the past does not make surer
AT_ONCE = timedelta(seconds=15)
_SHARED = frozenset({RootCause.NETWORK_UNREACHABLE, RootCause.UPSTREAM_UNAVAILABLE})


@dataclass(slots=True)
class Told:
    """The lines that the rules left, for people."""

    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> str:
        """Note a line, once."""
        if line not in self.lines:
            self.lines.append(line)
        return line


Rule = Callable[[Case, Evidence, Candidates, Told], Candidates]


def apply(case: Case, evidence: Evidence, candidates: Candidates) -> tuple[Candidates, Told]:
    """Let each rule move the candidates."""
    told = Told()
    for rule in _RULES:
        candidates = sorted(rule(case, evidence, candidates, told), key=lambda c: -c.score)
    return candidates, told


def _code_or_data(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """A key or attribute that is not there: new code is at fault on a new version, the data on an old one."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in (RootCause.CODE_ERROR, RootCause.SCHEMA_DRIFT):
        return candidates
    match = _KEYED.match(top.best.piece.text)
    changed = _changed(case)
    if match is None or changed is None:
        return candidates
    good = good_runs(case)
    if changed:
        return raised(candidates, RootCause.CODE_ERROR, max(0.92, top.score + MOVE), told.say(changed))
    if len(good) < STEADY:
        return candidates
    unchanged = f"the DAG's version did not change over {len(good)} good runs"
    if match.group(1) == "KeyError":
        candidates = lower(candidates, RootCause.CODE_ERROR, 0.6)
        return raised(candidates, RootCause.SCHEMA_DRIFT, 0.92, told.say(f"{unchanged}: the data did"))
    told.say(f"{unchanged}: look at its input too")
    return candidates


def _changed(case: Case) -> str | None:
    """What is known of the DAG's version: None nothing, empty unchanged, else how it changed."""
    last = case.context.dag_version_of_last_success
    if case.task is None or case.task.dag_version is None or last is None:
        return None
    if case.task.dag_version == last:
        return ""
    return f"the DAG changed from version {last} to {case.task.dag_version} since its last success"


def _query_or_drift(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """A column that a query names is not there: a new query is wrong, an old one met a changed table."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in (RootCause.QUERY_ERROR, RootCause.SCHEMA_DRIFT):
        return candidates
    changed = _changed(case)
    if changed is None or not _ABSENT_COLUMN.search(top.best.piece.text):
        return candidates
    if changed:
        return raised(candidates, RootCause.QUERY_ERROR, top.score + MOVE, told.say(changed))
    if len(good_runs(case)) >= STEADY:
        why = f"the same query worked in {len(good_runs(case))} runs: the table changed"
        return raised(candidates, RootCause.SCHEMA_DRIFT, top.score + MOVE, told.say(why))
    return candidates


def _new_code(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """Causes in the code are likelier on the first run of a new version."""
    changed = _changed(case)
    for candidate in candidates:
        if changed and candidate.cause in (
            RootCause.CODE_ERROR,
            RootCause.DEPENDENCY_ERROR,
            RootCause.MISSING_CONFIGURATION,
            RootCause.QUERY_ERROR,
        ):
            candidate.score = min(max(CERTAIN, candidate.score), candidate.score + MOVE)
            candidate.why = candidate.why or told.say(changed)
    return candidates


def _empty_upstream(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """An upstream task that succeeded with zero rows explains most failures of a data task."""
    empty = [u for u in case.context.upstream if u.state == "success" and _rows(u.report, u.returned) == 0]
    top = candidates[0] if candidates else None
    if not empty or (top is not None and top.cause not in _MAY_BE_DATA):
        return candidates
    why = told.say(f"upstream task {empty[0].task_id!r} succeeded with zero rows")
    return raised(
        candidates, RootCause.MISSING_DATA, 0.93 if top is None else max(0.93, top.score + MOVE), why
    )


def _rows(report: DataReport | None, returned: object) -> int | None:
    if report is not None and report.rows_out is not None:
        return report.rows_out
    return int(returned) if isinstance(returned, int | float) else None


def _data_report(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """The pipeline's own report of its data decides which data cause it is."""
    report = case.context.report
    cause = _cause_of(report) if report is not None else None
    if report is None or cause is None:
        return candidates
    top = candidates[0] if candidates else None
    if top is not None and top.cause not in _MAY_BE_DATA and top.score > 0.8:
        return candidates
    problem = report.problems[0] if report.problems else None
    what = f"the task reported {problem.kind} {problem.column!r}" if problem else "the task reported no rows"
    for other in {*DATA_CAUSES, RootCause.CODE_ERROR} - {cause}:
        candidates = lower(candidates, other, 0.5)
    return raised(candidates, cause, CERTAIN, told.say(what))


def _cause_of(report: DataReport) -> RootCause | None:
    kinds = [problem.kind for problem in report.problems]
    if any(kind in ("missing", "unexpected") for kind in kinds):
        return RootCause.SCHEMA_DRIFT
    if "type" in kinds:
        return RootCause.TYPE_MISMATCH
    if any(kind in ("null", "duplicate") for kind in kinds):
        return RootCause.CONSTRAINT_VIOLATION
    if "empty" in kinds or (report.satisfied is False and report.rows_in == 0):
        return RootCause.MISSING_DATA
    return None


def _no_slots(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """A task that never started, in a pool without slots, waits for capacity."""
    pool, task = case.context.pool, case.task
    if pool is None or (pool.slots > 0 and pool.occupied < pool.slots):
        return candidates
    started = task is not None and task.start is not None and bool(evidence.pieces)
    if started and candidates and candidates[0].cause is not RootCause.CAPACITY_UNAVAILABLE:
        return candidates
    why = told.say(f"pool {pool.name!r} has {pool.slots} slots, {pool.occupied} taken")
    return raised(candidates, RootCause.CAPACITY_UNAVAILABLE, CERTAIN, why)


def _no_heartbeat(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """Airflow ended the task, for its process gave no sign of life: its log broke off, or goes on in vain.

    From then on Airflow's own server refuses what the task reports: that is the effect, not the cause.
    """
    noted, top = case.context.lost_heartbeat, candidates[0] if candidates else None
    refused = top is not None and top.cause is RootCause.PLATFORM_ERROR
    named = evidence.chain is not None or (top is not None and top.best is not None and top.score >= NAMED)
    if not noted or (named and not refused):
        return candidates
    why = told.say(f"Airflow noted: {noted.partition(' See ')[0]}")
    candidates = lower(candidates, RootCause.PLATFORM_ERROR, NAMED)
    return raised(candidates, RootCause.WORKER_LOST, CERTAIN, why)


def _never_started(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """No log and no start: no worker took it from its queue."""
    task = case.task
    if candidates or evidence.pieces or task is None or task.start is not None:
        return candidates
    if task.state not in ("queued", "scheduled") and not (task.state == "failed" and task.queue):
        return candidates
    why = f"it never started: no worker took it from queue {task.queue or 'default'!r}"
    return raised(candidates, RootCause.CAPACITY_UNAVAILABLE, 0.9, told.say(why))


def _broken_dag(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """A DAG file that does not import fails before any task: the stack trace is the evidence."""
    trace = case.context.import_failure
    if not trace:
        return candidates
    last = next((line for line in reversed(trace.splitlines()) if line.strip()), "")
    missing = re.match(r"(ModuleNotFoundError|ImportError)\b", last.strip()) is not None
    cause = RootCause.DEPENDENCY_ERROR if missing else RootCause.CODE_ERROR
    if not missing and candidates and candidates[0].best is not None and candidates[0].best.piece.line == 0:
        cause = candidates[0].cause
    why = told.say(f"the DAG file does not import: {last.strip()[:120]}")
    return raised(candidates, cause, CERTAIN, why)


def _together(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """Failures in the same minutes make a shared cause surer that the log itself names.

    They name none: on a small installation all tasks share one machine, and many fail at once of their own.
    """
    top, siblings = candidates[0] if candidates else None, case.context.siblings
    if top is None or top.best is None or top.score < NAMED:
        return candidates
    if top.cause is RootCause.WORKER_LOST:
        beside = _ended_with(case) if evidence.chain is None else []
        if len(beside) >= 2 and case.task is not None:
            why = told.say(f"{len(beside)} other tasks on {case.task.hostname!r} ended in the same moment")
            return raised(candidates, top.cause, min(1.0, top.score + MOVE), why)
    elif len(siblings) >= STEADY and top.cause in _SHARED:
        why = told.say(f"{len(siblings)} other tasks failed in the same minutes")
        return raised(candidates, top.cause, min(1.0, top.score + MOVE), top.why or why)
    return candidates


def _ended_with(case: Case) -> list[Sibling]:
    """Tasks of the same machine that ended when this one did: a lost machine takes all at one stroke."""
    task = case.task
    if task is None or task.end is None or not task.hostname:
        return []
    beside = [one for one in case.context.siblings if one.hostname == task.hostname and one.ended]
    return [one for one in beside if one.ended is not None and abs(one.ended - task.end) <= AT_ONCE]


def _worked_lately(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """What worked an hour ago under the same code is set up rightly: what failed is outside, or moved."""
    top, good = candidates[0] if candidates else None, good_runs(case)
    if top is None or case.task is None:
        return candidates
    when = ago(good[0], case.task) if good and _changed(case) == "" else None
    if when is not None:
        line = told.say(f"the same version of the DAG worked {when} ago")
        if top.cause in PASSING and top.score >= NAMED:
            return raised(candidates, top.cause, min(1.0, top.score + MOVE), top.why or line)
        top.why = top.why or line
    named = top.best is not None and _NAME.search(top.best.piece.text) is not None
    past = len(case.context.history)
    if not good and past >= STEADY and named and top.cause is RootCause.NETWORK_UNREACHABLE:
        why = told.say(f"none of its {past} past runs succeeded: the name was never right")
        return raised(candidates, RootCause.MISSING_CONFIGURATION, top.score + MOVE, why)
    return candidates


def _rhythm(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """Failures that keep to a weekday or an hour come from what happens then: a peak, a missing feed."""
    line = rhythm(case)
    top = candidates[0] if candidates else None
    if line is None:
        return candidates
    told.say(line)
    follows = top is not None and (top.cause in PASSING or top.cause is RootCause.MISSING_DATA)
    if top is not None and follows and top.score >= NAMED:
        return raised(candidates, top.cause, min(1.0, top.score + MOVE), top.why or line)
    return candidates


def _duration(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    """An end long before the usual one: the work proper had not begun."""
    task = case.task
    usual = sorted(t.duration for t in good_runs(case) if t.duration is not None)
    if task is None or task.duration is None or len(usual) < STEADY:
        return candidates
    middle = usual[len(usual) // 2]
    if middle >= 60 and task.duration < 0.05 * middle:
        told.say(f"it ended after {task.duration:.0f} s of usually {middle:.0f} s: before its work began")
        for other in DATA_CAUSES - {RootCause.MISSING_DATA}:
            candidates = lower(candidates, other, 0.95)
    return candidates


def _own_retry(case: Case, evidence: Evidence, candidates: Candidates, told: Told) -> Candidates:
    if case.task is not None and case.task.state == "up_for_retry":
        told.say(f"Airflow tries again by itself (try {case.task.try_number} of {case.task.max_tries + 1})")
    return candidates


_RULES: Sequence[Rule] = (
    _code_or_data,
    _query_or_drift,
    _new_code,
    _empty_upstream,
    _data_report,
    _no_slots,
    _never_started,
    _no_heartbeat,
    _together,
    _worked_lately,
    _rhythm,
    _duration,
    _own_retry,
    _broken_dag,
)
