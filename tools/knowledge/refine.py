"""What Airflow knows beyond the log moves the answer: history, versions, upstream, pool, data reports."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from statistics import median

from graph.domain import DataReport, Facts, Remediation, RootCause, TaskSnapshot
from tools.diagnosis import Case
from tools.evidence import Evidence
from tools.knowledge.entries import Entry, Knowledge
from tools.knowledge.ranking import Candidate

Candidates = list[Candidate]
DATA_CAUSES = frozenset(
    {
        RootCause.SCHEMA_DRIFT,
        RootCause.TYPE_MISMATCH,
        RootCause.CONSTRAINT_VIOLATION,
        RootCause.MISSING_DATA,
    }
)
#: causes at a remote host; elsewhere a host in the text is a mention
_REMOTE = frozenset(
    {
        RootCause.NETWORK_UNREACHABLE,
        RootCause.AUTHENTICATION_FAILED,
        RootCause.PERMISSION_DENIED,
        RootCause.RATE_LIMITED,
        RootCause.UPSTREAM_UNAVAILABLE,
        RootCause.TLS_ERROR,
        RootCause.TIMEOUT,
    }
)
_MAY_BE_DATA = DATA_CAUSES | {RootCause.CODE_ERROR, RootCause.UNKNOWN, RootCause.EXTERNAL_JOB_FAILED}
_KEYED = re.compile(r"^(?:\w+\.)*(KeyError|AttributeError|IndexError|TypeError)\b")
_STORING = frozenset({"_push_xcom_if_needed", "_xcom_push", "xcom_push", "_xcom_push_to_db"})
_CRASH = re.compile(
    r"core dumped|SIG(?:SEGV|ABRT|BUS|ILL)|Segmentation fault"
    r"|(?i:exit|return)\D{0,20}(?:13[24569]|-(?:4|6|7|11))\b"
)
CRASH_LINES = 30
_STOPPED = re.compile(r"(?i)sigterm|signal:? 15|\b143\b|-15\b|terminated")
STOPPED_WEIGHT = 0.4
_CUT_SHORT = re.compile(
    r"(?i)(?:unexpected|premature|early) (?:eof|end)|truncated|corrupt"
    r"|incomplete|not a (?:gzip|zip|parquet) file"
)
_RAN_OUT = frozenset({RootCause.STORAGE_EXHAUSTED, RootCause.OUT_OF_MEMORY, RootCause.NETWORK_UNREACHABLE})
CUT_WEIGHT = 0.25  #: less is left to a line only when it recovered
_OWN_PART = re.compile(
    r"(?i)celery (?:result )?backend|result_backend|metadata (?:db|database)|sql_alchemy_conn|xcom backend"
    r"|\bdag[- _]?processor\b|\btriggerer\b|\bscheduler_?job|\bexecutor (?:event|queue)"
)
_SHARED = frozenset(
    {
        RootCause.NETWORK_UNREACHABLE,
        RootCause.AUTHENTICATION_FAILED,
        RootCause.UPSTREAM_UNAVAILABLE,
        RootCause.LOCK_CONTENTION,
        RootCause.RATE_LIMITED,
        RootCause.QUERY_ERROR,
        RootCause.MISSING_DATA,
    }
)
STEADY = 3  #: good runs before a task's past says something
CERTAIN = 0.97


def apply(case: Case, evidence: Evidence, candidates: Candidates, knowledge: Knowledge) -> Candidates:
    """Let each rule move the candidates; each says why."""
    for rule in _RULES:
        candidates = sorted(rule(case, evidence, candidates), key=lambda c: -c.score)
    return candidates


def _raise(candidates: Candidates, cause: RootCause, score: float, why: str) -> Candidates:
    """Give one cause at least this score, with the reason."""
    for candidate in candidates:
        if candidate.cause is cause:
            candidate.score = max(candidate.score, score)
            candidate.why = why
            return candidates
    return [*candidates, Candidate(cause, score, why=why)]


def _lower(candidates: Candidates, cause: RootCause, factor: float) -> Candidates:
    for candidate in candidates:
        if candidate.cause is cause:
            candidate.score *= factor
    return candidates


def _killed_for_memory(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A kill is lost work, unless something but Airflow's own hint speaks of memory."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.WORKER_LOST:
        return candidates
    memory = next((c for c in candidates if c.cause is RootCause.OUT_OF_MEMORY), None)
    if memory is not None and memory.best is not None and memory.best.entry.strength >= 0.7:
        return _raise(
            candidates,
            RootCause.OUT_OF_MEMORY,
            max(top.score + 0.05, 0.9),
            "killed, and memory ran short before",
        )
    return candidates


def _after_the_work(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Raised while Airflow stored the result, not while the task worked: Airflow's storage is at fault."""
    top = candidates[0] if candidates else None
    chain = evidence.chain
    if chain is None or top is None or top.cause in (RootCause.CODE_ERROR, RootCause.PLATFORM_ERROR):
        return candidates
    names = [frame.function for frame in chain.raised[-1].frames]
    if any(n in _STORING for n in names) and "execute" not in names:
        return _raise(
            candidates,
            RootCause.PLATFORM_ERROR,
            max(0.92, top.score + 0.05),
            "raised while Airflow stored the result",
        )
    return candidates


def _said_before_it_crashed(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A core dump or exit status tells how a program ended; what it printed shortly before tells why."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or not _CRASH.search(top.best.piece.text):
        return candidates
    crash = min(hit.piece.line for hit in top.hits if _CRASH.search(hit.piece.text))
    for other in candidates[1:]:
        before = [h for h in other.hits if 0 < crash - h.piece.line <= CRASH_LINES and h.score >= 0.45]
        if before and not all(_CRASH.search(hit.piece.text) for hit in before):
            return _raise(candidates, other.cause, top.score + 0.05, "the program said so before it crashed")
    return candidates


def _cut_short(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A file that ends too early is what a full disk leaves behind: what ran out shortly before is why."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or not _CUT_SHORT.search(top.best.piece.text):
        return candidates
    line = top.best.piece.line
    for other in candidates[1:]:
        before = [h for h in other.hits if 0 < line - h.piece.line <= CRASH_LINES and h.entry.strength > 0.9]
        if other.cause in _RAN_OUT and any(hit.piece.weight >= CUT_WEIGHT for hit in before):
            return _raise(
                candidates, other.cause, top.score + 0.05, "it ran out before the file was complete"
            )
    return candidates


def _stopped_in_time(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Limits and lost machines stop work with the same signal: a limit that is named decides."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause is not RootCause.WORKER_LOST:
        return candidates
    if not _STOPPED.search(top.best.piece.text):
        return candidates
    for other in candidates[1:]:
        if other.cause is RootCause.TIMEOUT and any(hit.piece.weight >= STOPPED_WEIGHT for hit in other.hits):
            return _raise(candidates, other.cause, top.score + 0.05, "a limit ran out before it was stopped")
    return candidates


def _own_parts(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """What Airflow's own parts print of themselves is not the task's failure."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in _SHARED or top.best.piece.raised is not None:
        return candidates
    if not _OWN_PART.search(top.best.piece.text):
        return candidates
    return _raise(
        candidates, RootCause.PLATFORM_ERROR, top.score + 0.05, "printed by a part of Airflow itself"
    )


def _why_it_waited(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A limit that ran out is the symptom when the log says, again and again, what the work waited for."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.TIMEOUT:
        return candidates
    for other in candidates[1:]:
        lines = {hit.piece.line for hit in other.hits if hit.entry.strength > 0.9 and hit.piece.weight >= 0.5}
        if other.cause in (RootCause.CAPACITY_UNAVAILABLE, RootCause.LOCK_CONTENTION) and len(lines) > 1:
            return _raise(
                candidates, other.cause, top.score + 0.05, f"said {len(lines)} times before time ran out"
            )
    return candidates


def _data_report(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
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
    for other in DATA_CAUSES - {cause}:
        candidates = _lower(candidates, other, 0.5)
    candidates = _lower(candidates, RootCause.CODE_ERROR, 0.5)
    return _raise(candidates, cause, CERTAIN, what)


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


def _empty_upstream(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """An upstream task that succeeded with zero rows explains most failures of a data task."""
    empty = [u for u in case.context.upstream if u.state == "success" and _rows(u.report, u.returned) == 0]
    top = candidates[0] if candidates else None
    if not empty or (top is not None and top.cause not in _MAY_BE_DATA):
        return candidates
    why = f"upstream task {empty[0].task_id!r} succeeded with zero rows"
    return _raise(
        candidates, RootCause.MISSING_DATA, 0.93 if top is None else max(0.93, top.score + 0.05), why
    )


def _rows(report: DataReport | None, returned: object) -> int | None:
    if report is not None and report.rows_out is not None:
        return report.rows_out
    return int(returned) if isinstance(returned, int | float) else None


def _code_or_data(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A key or attribute that is not there: new code is at fault on a new version, the data on an old one."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in (RootCause.CODE_ERROR, RootCause.SCHEMA_DRIFT):
        return candidates
    match = _KEYED.match(top.best.piece.text)
    good, last = _good_runs(case), case.context.dag_version_of_last_success
    if match is None or case.task is None or case.task.dag_version is None or last is None:
        return candidates
    if case.task.dag_version != last:
        why = f"the DAG changed from version {last} to {case.task.dag_version} since its last success"
        return _raise(candidates, RootCause.CODE_ERROR, max(0.92, top.score + 0.05), why)
    if match.group(1) == "KeyError" and len(good) >= STEADY:
        why = f"the DAG's version did not change over {len(good)} good runs: the data did"
        candidates = _lower(candidates, RootCause.CODE_ERROR, 0.6)
        return _raise(candidates, RootCause.SCHEMA_DRIFT, 0.92, why)
    return candidates


def _good_runs(case: Case) -> list[TaskSnapshot]:
    return [t for t in case.context.history if t.state == "success"]


def _no_slots(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A task that never started, in a pool without slots, waits for capacity."""
    pool, task = case.context.pool, case.task
    if pool is None or (pool.slots > 0 and pool.occupied < pool.slots):
        return candidates
    started = task is not None and task.start is not None and bool(evidence.pieces)
    if started and candidates and candidates[0].cause is not RootCause.CAPACITY_UNAVAILABLE:
        return candidates
    why = f"pool {pool.name!r} has {pool.slots} slots, {pool.occupied} taken"
    return _raise(candidates, RootCause.CAPACITY_UNAVAILABLE, CERTAIN, why)


def _broken_dag(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A DAG file that does not import fails before any task: the stack trace is the evidence."""
    trace = case.context.import_failure
    if not trace:
        return candidates
    last = next((line for line in reversed(trace.splitlines()) if line.strip()), "")
    missing = re.match(r"(ModuleNotFoundError|ImportError)\b", last.strip()) is not None
    cause = RootCause.DEPENDENCY_ERROR if missing else RootCause.CODE_ERROR
    if not missing and candidates and candidates[0].best is not None and candidates[0].best.piece.line == 0:
        cause = candidates[0].cause
    return _raise(candidates, cause, CERTAIN, f"the DAG file does not import: {last.strip()[:120]}")


def _lost_together(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Many failures in the same minutes speak for the infrastructure that they share."""
    if len(case.context.siblings) < STEADY:
        return candidates
    shared = (RootCause.NETWORK_UNREACHABLE, RootCause.UPSTREAM_UNAVAILABLE, RootCause.WORKER_LOST)
    for candidate in candidates:
        if candidate.cause in shared and candidate.score >= 0.4:
            candidate.score = min(1.0, candidate.score + 0.05)
            candidate.why = f"{len(case.context.siblings)} other tasks failed in the same minutes"
    return candidates


Rule = Callable[[Case, Evidence, Candidates], Candidates]
_RULES: Sequence[Rule] = (
    _killed_for_memory,
    _after_the_work,
    _said_before_it_crashed,
    _cut_short,
    _stopped_in_time,
    _own_parts,
    _why_it_waited,
    _code_or_data,
    _empty_upstream,
    _data_report,
    _no_slots,
    _lost_together,
    _broken_dag,
)


def transience(case: Case, evidence: Evidence, top: Candidate, lead: Entry) -> tuple[bool, Remediation]:
    """Whether the same task may succeed unchanged, and the fix that follows."""
    if top.cause is RootCause.TIMEOUT:
        return _slow_once(case, lead)
    lasting = _lasting(top, lead)
    return lasting.transient, lasting.remediation


def _lasting(top: Candidate, lead: Entry) -> Entry:
    """An unchanged retry needs every signal's consent: one that says the cause lasts is believed."""
    if top.best is None or not lead.transient:
        return lead
    for hit in top.hits[1:]:
        weaker_twin = hit.piece is top.best.piece and hit.entry.strength < lead.strength
        if not hit.entry.transient and not weaker_twin and hit.score >= 0.5 * top.best.score:
            return hit.entry
    return lead


def _slow_once(case: Case, lead: Entry) -> tuple[bool, Remediation]:
    """A timeout may pass when the task is normally well inside its limit and has not timed out before."""
    took = case.task.duration if case.task is not None else None
    usual = [t.duration for t in _good_runs(case) if t.duration is not None]
    # Airflow's own tries follow within seconds and say little; a run before that took as long says much.
    failed_before = took is not None and any(
        t.state == "failed" and t.duration is not None and t.duration >= 0.9 * took
        for t in case.context.history[:2]
    )
    if took is not None and len(usual) >= STEADY and not failed_before and median(usual) < 0.7 * took:
        return True, Remediation.RETRY
    if failed_before:
        return False, Remediation.RAISE_LIMIT
    return lead.transient, lead.remediation


def add_facts(found: Facts, case: Case, top: Candidate) -> Facts:
    """Facts that come from Airflow, not from the log."""
    changes: dict[str, object] = {} if top.cause in _REMOTE else {"host": None}
    if case.context.report is not None:
        changes["report"] = case.context.report
    if top.cause is RootCause.CAPACITY_UNAVAILABLE and case.context.pool is not None:
        changes["pool"] = case.context.pool.name
    return found.model_copy(update=changes)


def default_entry(cause: RootCause, knowledge: Knowledge) -> Entry:
    """An answer that context alone gives takes the cause's defaults."""
    held = knowledge.causes[cause]
    return Entry(
        name="context",
        cause=cause,
        strength=CERTAIN,
        transient=held.transient,
        remediation=held.remediation,
        alternatives=held.alternatives,
        wait=held.wait,
        says=held.says,
        unless=(),
    )
