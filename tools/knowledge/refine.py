"""What lines of a log say together moves the answer: what was said before a crash, or while waiting."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from graph.domain import Facts, Remediation, RootCause
from tools.diagnosis import Case
from tools.evidence import Evidence
from tools.evidence_traces import Frame
from tools.knowledge import course, endings, linking, unread
from tools.knowledge.entries import Entry, Knowledge
from tools.knowledge.ranking import COMMON, GENERIC, SURE, WITHIN, Candidate, raised

Candidates = list[Candidate]
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
_STORING = frozenset({"_push_xcom_if_needed", "_xcom_push", "xcom_push", "_xcom_push_to_db"})
#: Airflow's own code apart from operators, hooks and providers
_MACHINERY = re.compile(
    r"airflow/(?:models|jobs|executors|settings|cli|dag_processing|serialization|secrets|api_fastapi|utils/session"
    r"|utils/db|api_internal|sdk/api|sdk/execution_time/(?:comms|supervisor)|sdk/bases/xcom|timetables|__main__|utils/orm_event_handlers)"
)
#: functions of it through which every task passes
_ON_THE_WAY = frozenset(
    {"_run_raw_task", "_execute_task", "_execute_callable", "_execute_task_with_callbacks", "wrapper", "run"}
    | {"_run_task_and_map_outcome", "_run_execute_callable", "main", "command", "task_run", "<module>"}
)
#: raised in that code for the task's own limit
_RAN_OUT_OF_TIME = frozenset({"AirflowSensorTimeout", "AirflowTaskTimeout", "TaskDeferralTimeout"})
_AT_WORK = frozenset({"execute", "execute_callable", "poke", "execute_complete", "render_templates"})
#: whose functions are called `execute`, too
_OF_A_DRIVER = re.compile(r"/(?:sqlalchemy|psycopg\w*|asyncpg|aiosqlite|pymysql|MySQLdb)/")
_OF_THE_PLACE = frozenset(
    {RootCause.SCHEMA_DRIFT, RootCause.PERMISSION_DENIED, RootCause.STORAGE_EXHAUSTED, RootCause.TIMEOUT}
    | {RootCause.TYPE_MISMATCH}
)
_DONE = re.compile(r"^Done\. Returned value was|^Pushing xcom|Marking task as SUCCESS")
_KILLED = re.compile(r"(?i)\bkilled\b|KilledWorker|terminated abruptly|\b137\b|SIGKILL|signal:? 9\b|-9\b")
_MEMORY_OF = re.compile(
    r"(?i)(?:rss|mem(?:ory)?|heap)\b[^\d\n]{0,20}(\d+(?:\.\d+)?) ?([kmgt]i?b?)\b[^\d\n]{1,20}?"
    r"(\d+(?:\.\d+)?) ?([kmgt]i?b?)\b"
)
_MEMORY_SHARE = re.compile(
    r"(?i)\b(?:mem(?:ory)?|heap|rss)\b[^\d\n]{0,20}(?:9[5-9]|100)(?:\.\d+)? ?%"
    r"|\b(?:9[5-9]|100)(?:\.\d+)? ?% (?:of )?(?:its |the )?(?:mem(?:ory)?|heap|rss)\b"
)
_UNITS = {"k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12}
KILL_LINES = 30
_CRASH = re.compile(
    r"core dumped|SIG(?:SEGV|ABRT|BUS|ILL)|Segmentation fault"
    r"|(?i:exit|return)\D{0,20}(?:13[24569]|-(?:4|6|7|11))\b"
)
CRASH_LINES = 30
NAME_SHARE = 0.3  #: of the best score, for a name that does not resolve to be believed
#: what keeps work waiting until a limit runs out
_WAITED_FOR = frozenset(
    {
        RootCause.CAPACITY_UNAVAILABLE,
        RootCause.LOCK_CONTENTION,
        RootCause.NETWORK_UNREACHABLE,
        RootCause.UPSTREAM_UNAVAILABLE,
    }
)
WAITED_WEIGHT = 0.2
_START_LIMIT = "containers/k8s-start-limit"
_KEPT = frozenset(
    {
        RootCause.AUTHENTICATION_FAILED,
        RootCause.DEPENDENCY_ERROR,
        RootCause.MISSING_CONFIGURATION,
        RootCause.PERMISSION_DENIED,
        RootCause.STORAGE_EXHAUSTED,
    }
)
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
CERTAIN = 0.97
BEYOND_RIVALS = 0.96  #: confidence of an answer on which both readers agree
#: rivals that do not tell whether it passes: how it ended, and that it took too long
_SAYS_LITTLE = frozenset({RootCause.EXTERNAL_JOB_FAILED, RootCause.TIMEOUT})
RIVALS = 0.75  #: of the answer's score, from which another cause takes the trust in a retry


#: a limit on waiting for what another sends; the `@` lines name the library that raised it
_ANSWER = re.compile(
    r"(?i)\b(?:read|write|recv|receive|response|reply|client request|request|rpc|poll|fetch)"
    r"(?:[ _]operation)?[ _](?:has |was |is )?tim(?:ed?)[ _-]?out"
    r"|\b(?:respon[ds]\w*|repl(?:y|ied|ies)|answer\w*|acknowledg\w*|recv\w*|receiv\w*|awaiting headers"
    r"|from (?:the )?(?:remote|server|host|peer|broker|device|api|service|gateway))\b"
    r"|\bi/?o timeout|\bReadTimeout\b|^(?:[\w.]+\.)?TimeoutError: timed out$|(?-i:ETIMEDOUT|EAGAIN)"
    r"|@raised (?:socket|ssl|http|urllib|urllib3|httpx|httpcore|requests|aiohttp|websockets?|imaplib"
    r"|smtplib|ftplib|poplib|telnetlib|paramiko|grpc|zmq|serial|nats|pika|kafka|redis|pymongo|ldap3"
    r"|smbprotocol)\b",
    re.MULTILINE,
)
#: a limit on work: the next try works as long
_WORK = re.compile(
    r"(?i)\blimit|budget|execut|statement|\bquer(?:y|ies)\b|\brun ?time\b|wall ?time|maximum|\bmax"
    r"|still (?:running|busy|working)|\bcommand\b|watchdog|\bjobs?\b|\bsteps?\b|transaction|collective"
    r"|\bfinish|\bcomplet|task(?:timeout)? timed"
)


def apply(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Let each rule move the candidates; each says why."""
    for rule in _RULES:
        candidates = sorted(rule(case, evidence, candidates), key=lambda c: -c.score)
    return candidates


def _killed_for_memory(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A kill is lost work, unless something but Airflow's own hint speaks of memory."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.WORKER_LOST:
        return candidates
    full = next((line for line in reversed(evidence.order[-KILL_LINES:]) if _nearly_full(line.text)), None)
    if full is not None and _KILLED.search(top.best.piece.text if top.best else ""):
        why = f"killed, and line {full.number} shows its memory at the limit"
        return raised(candidates, RootCause.OUT_OF_MEMORY, max(top.score + 0.05, 0.9), why)
    memory = next((c for c in candidates if c.cause is RootCause.OUT_OF_MEMORY), None)
    if memory is not None and memory.best is not None and memory.best.entry.strength >= 0.7:
        return raised(
            candidates,
            RootCause.OUT_OF_MEMORY,
            max(top.score + 0.05, 0.9),
            "killed, and memory ran short before",
        )
    return candidates


def _nearly_full(text: str) -> bool:
    """`rss 4080 MB of 4096 MB`: memory at its limit."""
    match = _MEMORY_OF.search(text)
    if match is None:
        return _MEMORY_SHARE.search(text) is not None
    used, limit = (float(match.group(n)) * _UNITS.get(match.group(n + 1)[:1].lower(), 1) for n in (1, 3))
    return limit > 0 and 0.93 <= used / limit <= 1.5


def _after_the_work(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Raised while Airflow stored the result, not while the task worked: Airflow's storage is at fault."""
    top = candidates[0] if candidates else None
    chain = evidence.chain
    if chain is None or top is None or top.cause in (RootCause.CODE_ERROR, RootCause.PLATFORM_ERROR):
        return candidates
    names = [frame.function for frame in chain.raised[-1].frames]
    if any(n in _STORING for n in names) and "execute" not in names:
        return raised(
            candidates,
            RootCause.PLATFORM_ERROR,
            max(0.92, top.score + 0.05),
            "raised while Airflow stored the result",
        )
    return candidates


def _in_airflow_itself(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Frames of Airflow's own machinery, and neither an operator nor a DAG on the stack."""
    top = candidates[0] if candidates else None
    if evidence.chain is None or top is None or top.best is None or not top.best.piece.final:
        return candidates
    inner = top.best.piece.raised
    if top.cause not in _SHARED | _OF_THE_PLACE or (inner is not None and inner.short in _RAN_OUT_OF_TIME):
        return candidates
    chain = evidence.chain.raised
    if inner is not None and evidence.child is not None and inner in evidence.child.raised:
        chain = evidence.child.raised  # a command of Airflow's own
    for raised_ in chain:
        if any(_of_the_work(frame) for frame in raised_.frames):
            return candidates
    frames = [f for r in chain for f in r.frames if _MACHINERY.search(f.file)]
    if not any(f.function not in _ON_THE_WAY for f in frames):
        return candidates
    return raised(
        candidates,
        RootCause.PLATFORM_ERROR,
        max(0.92, top.score + 0.05),
        "raised in Airflow's own machinery",
        passes=top.best.entry.transient,
    )


def _of_the_work(frame: Frame) -> bool:
    """An operator's or a DAG's own frame."""
    if frame.of_user and "dags" in frame.file:
        return True
    return frame.function in _AT_WORK and not _OF_A_DRIVER.search(frame.file)


def _work_was_done(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Airflow told of the returned value: what fails after it is Airflow's, or the value's own."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause in (RootCause.CODE_ERROR, RootCause.PLATFORM_ERROR):
        return candidates
    begin = evidence.chain.first if evidence.chain else 0
    if not begin or not top.best.piece.final:
        return candidates
    done = max((line.number for line in evidence.order if _DONE.search(line.text)), default=0)
    if not done or begin <= done:
        return candidates
    why = f"line {done} shows that the task's work was done"
    score, passes = max(0.92, top.score + 0.05), top.best.entry.transient
    return raised(candidates, RootCause.PLATFORM_ERROR, score, why, passes=passes)


def _said_before_it_crashed(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A core dump or exit status tells how a program ended; what it printed shortly before tells why."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or not _CRASH.search(top.best.piece.text):
        return candidates
    crash = min(hit.piece.line for hit in top.hits if _CRASH.search(hit.piece.text))
    for other in candidates[1:]:
        before = [h for h in other.hits if 0 < crash - h.piece.line <= CRASH_LINES and h.score >= 0.45]
        if before and not all(_CRASH.search(hit.piece.text) for hit in before):
            return raised(candidates, other.cause, top.score + 0.05, "the program said so before it crashed")
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
            return raised(
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
            return raised(candidates, other.cause, top.score + 0.05, "a limit ran out before it was stopped")
    return candidates


def _own_parts(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """What Airflow's own parts print of themselves is not the task's failure."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.cause not in _SHARED or top.best.piece.raised is not None:
        return candidates
    if not _OWN_PART.search(top.best.piece.text):
        return candidates
    why, passes = "printed by a part of Airflow itself", top.best.entry.transient
    return raised(candidates, RootCause.PLATFORM_ERROR, top.score + 0.05, why, passes=passes)


def _why_it_waited(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A limit that ran out is the symptom when the log says, again and again, what the work waited for."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.TIMEOUT:
        return candidates
    for other in candidates[1:]:
        lines = {
            hit.piece.line
            for hit in other.hits
            if hit.entry.strength > 0.8 and hit.piece.weight >= WAITED_WEIGHT and not hit.piece.recovered
        }
        enough = 1 if other.cause is RootCause.CAPACITY_UNAVAILABLE else 2
        if other.cause in _WAITED_FOR and len(lines) >= enough and not _at_once(top, lines):
            return raised(
                candidates, other.cause, top.score + 0.05, f"said {len(lines)} times before time ran out"
            )
    return candidates


def _at_once(top: Candidate, lines: set[int]) -> bool:
    """The limit that ran out is told of in the same lines: one failure, not a long wait."""
    return bool(lines & {hit.piece.line for hit in top.hits})


def _why_it_never_started(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A pod that did not start in time lacks room, unless its events say what kept it."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.best.entry.name != _START_LIMIT:
        return candidates
    for other in candidates[1:]:
        told = any(
            hit.entry.strength > 0.8 and hit.piece.weight >= WAITED_WEIGHT and not hit.piece.recovered
            for hit in other.hits
        )
        if told and other.cause in _KEPT:
            return raised(candidates, other.cause, top.score + 0.05, "the pod's events say what kept it")
    return candidates


Rule = Callable[[Case, Evidence, Candidates], Candidates]
_RULES: Sequence[Rule] = (
    _killed_for_memory,
    _after_the_work,
    _in_airflow_itself,
    _work_was_done,
    _said_before_it_crashed,
    _cut_short,
    _stopped_in_time,
    _own_parts,
    _why_it_waited,
    _why_it_never_started,
    *linking.RULES,
    *endings.RULES,
    *unread.RULES,
)


def transience(
    case: Case, candidates: Candidates, lead: Entry, told: list[str], confidence: float
) -> tuple[bool, Remediation]:
    """Whether the same task may succeed unchanged, and the fix that follows. The past adds its lines."""
    top = candidates[0]
    if top.cause is RootCause.TIMEOUT:
        lead = _awaited(top, lead)
        transient, remediation, slow = course.slow_once(case, lead)
        told += [slow] if slow and slow not in told else []
        return transient, remediation
    if top.passes is not None:
        return top.passes, lead.remediation
    lasting = _lasting(top, lead)
    rival = _lasting_rival(candidates) if confidence < BEYOND_RIVALS else None
    if lasting.transient and rival is not None:
        told.append(f"{rival.value} is nearly as likely, and would not pass by itself")
        others = [r for r in lasting.alternatives if r is not Remediation.RETRY]
        return False, others[0] if others else Remediation.ESCALATE
    if lasting.transient and (why := course.lasts(case, top.cause)):
        told.append(why)
        others = [r for r in lasting.alternatives if r is not Remediation.RETRY]
        return False, others[0] if others else Remediation.ESCALATE
    return lasting.transient, lasting.remediation


def _awaited(top: Candidate, lead: Entry) -> Entry:
    """Without an identifier: the wait for another's answer passes, work that is too long does not."""
    text = top.best.piece.text if top.best is not None else ""
    if lead.transient or lead.strength > GENERIC or not _ANSWER.search(text):
        return lead
    if _WORK.search(text.partition("\n@")[0]):
        return lead
    others = tuple(dict.fromkeys([lead.remediation, *lead.alternatives]))
    return replace(
        lead,
        transient=True,
        remediation=Remediation.RETRY,
        alternatives=tuple(one for one in others if one is not Remediation.RETRY),
    )


def _lasting_rival(candidates: Candidates) -> RootCause | None:
    """Another reading of the log, nearly as strong, under which a retry is of no use."""
    top = candidates[0]
    for other in candidates[1:] if not top.why else ():
        best = other.best
        if best is None or best.entry.transient or best.piece.recovered:
            continue
        if top.best is not None and best.piece is top.best.piece and other.cause in WITHIN:
            continue  # what code says that stumbles over just this
        if top.best is not None and top.best.entry.strength >= SURE and best.entry.strength <= COMMON:
            continue  # common words beside an identifier
        if other.score >= RIVALS * top.score and other.cause not in _SAYS_LITTLE:
            return other.cause
    return None


def _lasting(top: Candidate, lead: Entry) -> Entry:
    """An unchanged retry needs every signal's consent: one that says the cause lasts is believed."""
    if top.best is None or not lead.transient:
        return lead
    for hit in top.hits[1:]:
        weaker_twin = hit.piece is top.best.piece and hit.entry.strength < lead.strength
        share = NAME_SHARE if top.cause is RootCause.NETWORK_UNREACHABLE and not hit.piece.recovered else 0.5
        if not hit.entry.transient and not weaker_twin and hit.score >= share * top.best.score:
            return hit.entry
    return lead


def add_facts(found: Facts, case: Case, top: Candidate) -> Facts:
    """Facts that come from Airflow, not from the log."""
    changes: dict[str, object] = {} if top.cause in _REMOTE else {"host": None}
    if case.context.report is not None:
        changes["report"] = case.context.report
    if top.cause is RootCause.CAPACITY_UNAVAILABLE and case.context.pool is not None:
        changes["pool"] = case.context.pool.name
    return found.model_copy(update=changes)


def default_entry(cause: RootCause, knowledge: Knowledge, strength: float = CERTAIN) -> Entry:
    """An answer without an entry takes the cause's defaults."""
    held = knowledge.causes[cause]
    return Entry(
        name="context",
        cause=cause,
        strength=strength,
        transient=held.transient,
        remediation=held.remediation,
        alternatives=held.alternatives,
        wait=held.wait,
        says=held.says,
        unless=(),
    )
