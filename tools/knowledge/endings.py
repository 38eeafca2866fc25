"""What the last exception only shows: a status told of before it, a process that died, tidying up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from graph.domain import RootCause
from tools.diagnosis import Case
from tools.evidence import Evidence, Piece
from tools.evidence_marks import Glance, Mark
from tools.knowledge.linking import LEAD, REASON_LINES, complains, said_before
from tools.knowledge.ranking import (
    COMMON,
    JUST,
    STANDS,
    SUMMARIES,
    SURE,
    WITHIN,
    WRAPPER,
    Candidate,
    Hit,
    only_wraps,
    raised,
)

Candidates = list[Candidate]
SAYS = 0.6  #: least strength of what a message is read to say
OPEN = 0.34  #: least weight of a complaint that ordinary work followed, and that was not tried again
OPEN_OF_A_SUM = 0.3  #: the same, where code sums up that something failed
LEFT_OUT = 0.1  #: the same, where all were left out: `3 of 3 accounts without a statement`
SUMMED = 0.72  #: score of the only complaint before such a sum, but for the lead
LONG_AGO = 40  #: lines between a complaint and words that may come of it
_SUMS = SUMMARIES | {"ValueError", "AssertionError"}
#: a check of the task's own that counts what is there
_COUNTS = re.compile(
    r"(?i)\bexpected \d[^\n]{0,40}\b(?:found|got|received|have|only|saw) \d"
    r"|\b\d+ (?:of|out of) (?:the )?\d+ [\w-]+ (?:(?:is|are|was|were) )?(?:missing|absent|incomplete|lost)\b"
    r"|\bincomplete\b[^\n]{0,30}\b\d+ (?:of|out of|/) ?\d+"
)
_ALL = re.compile(r"\b([1-9]\d*) (?:of|out of) (?:the |all )?\1\b")
LOUD = 0.6  #: least weight of a complaint that tidying up followed
_STATUS = re.compile(
    r"(?i)(?:HTTP(?:/[\d.]+)?|status|code|answered|returned|responded|response)\W{0,3}([45]\d\d)\b"
)
#: an answer's own words about its status
_TOLD = re.compile(r"(?i)[\"']?(?:message|detail|reason|description|error|msg)[\"']?\s*[:=]\s*\S")
_CUT_OFF = re.compile(r"(?i)connection ?reset|broken ?pipe|EOFError|connection (?:closed|aborted|lost)")
_DIED = re.compile(
    r"(?i)killed by signal|terminated abruptly|process(?:es)? (?:has |have )?died"
    r"|(?:workers?|child|process)\b[^\n]{0,40}"
    r"\b(?:died|was killed|is killed|got killed|exited unexpectedly|crashed)"
)
#: what parsers say of a page where data was expected
_UNREADABLE = re.compile(
    r"(?i)tag mismatch|mismatched tag|not well-formed|XMLSyntax|JSONDecode|expecting value|unexpected token"
    r"|invalid (?:xml|json)|parse error|no JSON|syntax error: line \d"
)
_GLANCE = Glance()
_GOT_ALONG = frozenset({Mark.RECOVERS, Mark.PASSED, Mark.RETRYING})
_SERVES_NOT = frozenset(
    {
        RootCause.UPSTREAM_UNAVAILABLE,
        RootCause.RATE_LIMITED,
        RootCause.AUTHENTICATION_FAILED,
        RootCause.PERMISSION_DENIED,
    }
)
_TOO_MUCH = re.compile(
    r"(?i)exceed\w* [^\n]{0,40}\bmemory (?:budget|limit)|\bmemory (?:budget|limit)\b[^\n]{0,20}exceeded"
)
_GONE = frozenset({RootCause.WORKER_LOST, RootCause.OUT_OF_MEMORY})
#: not closing: files are flushed and transactions committed then, and fail for reasons of their own
_TIDYING = re.compile(
    r"\n@raised [^\n]*\b_?(?:rmtree\w*|unlink|rmdir|remove|rollback|__del__|tear_?down)$"
    r"|\n@code [^\n]*(?:\brmtree\(|\bunlink\(|\bos\.remove\(|\brmdir\(|\.rollback\(\)"
    r"|\bclean_?up\w*\(|\btear_?down\w*\()",
    re.MULTILINE,
)
_NO_NAME = re.compile(
    r"(?:://|@|\bhost ?(?:name)?\W{1,4})[\w.-]{0,253}(?<![A-Za-z0-9_])(?:None|null|undefined|nil)"
    r"(?=[.:/'\" )]|$)|\bhost ?(?:name)? (?:\"\"|''|\\\"\\\")"
)
#: how things stand, not what failed
_STATE = re.compile(
    r"(?i)\b(?:yet|queue?ing|queued|waiting|holding|pending|busy|please report|report (?:it|this|a bug)"
    r"|(?:is|are) (?:still )?(?!missing|failing)[a-z]+ing)\b"
)
_FAILS = re.compile(
    r"(?i)\b(?:error|fatal|fail\w*|denied|refused|gave up|giving up|abort\w*|cannot|could not)\b"
)


def _of_failure(candidates: Candidates) -> Hit | None:
    """The first answer's best hit, when it is in the failure that ended the task."""
    best = candidates[0].best if candidates and not candidates[0].why else None
    return best if best is not None and best.piece.final and best.piece.raised is not None else None


def status_told(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Code sums up an answer by its status; a line just before gives the same status with a message."""
    best = _of_failure(candidates)
    if best is None or best.piece.raised is None:
        return candidates
    message = best.piece.raised.message
    status = _STATUS.search(message)
    if status is None or _TOLD.search(message) or best.entry.strength >= SURE:
        return candidates
    begin = evidence.chain.first if evidence.chain else best.piece.raised.first
    for other in candidates[1:]:
        for hit in other.hits:
            piece = hit.piece
            just = piece.kind == "line" and 0 < begin - piece.line <= JUST and piece.errorish
            same = status[1] in _STATUS.findall(piece.text) and _TOLD.search(piece.text) is not None
            if just and same and hit.entry.strength >= SAYS and other.cause not in WITHIN:
                why = f"line {piece.line} gives the answer's own words"
                return raised(candidates, other.cause, candidates[0].score + LEAD, why)
    return candidates


def answered_otherwise(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """An answer that could not be read was that of a server that could not serve, and the chain says so."""
    best = _of_failure(candidates)
    if best is None or best.entry.cause is not RootCause.TYPE_MISMATCH:
        return candidates
    if not _UNREADABLE.search(best.piece.text[:300]):
        return candidates
    for other in candidates[1:]:
        told = (
            h
            for h in other.hits
            if h.piece.final and h.entry.strength >= SAYS and h.entry.cause in _SERVES_NOT
        )
        if any(_STATUS.search(hit.piece.text[:300]) for hit in told):
            why = "the answer that could not be read came with a status that says why"
            return raised(candidates, other.cause, candidates[0].score + LEAD, why)
    return candidates


def peer_died(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A connection between processes breaks because one of them died, and the chain says so."""
    best = _of_failure(candidates)
    if best is None or best.entry.cause is not RootCause.NETWORK_UNREACHABLE:
        return candidates
    if not _CUT_OFF.search(best.piece.text[:300]):
        return candidates
    for other in candidates[1:]:
        told = (h.piece for h in other.hits if h.piece.final and h.piece is not best.piece)
        if other.cause in _GONE and any(_DIED.search(piece.text[:300]) for piece in told):
            return raised(candidates, other.cause, candidates[0].score + LEAD, "the other process died")
    return candidates


def starved(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Workers that died were ended by their own watchman for the memory that they took."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.WORKER_LOST or top.best is None:
        return candidates
    if not _DIED.search(top.best.piece.text[:300]):
        return candidates
    told = [line.number for line in evidence.order if _TOO_MUCH.search(line.text[:300])]
    if not told or told[-1] > top.best.piece.line:
        return candidates
    why = f"line {told[-1]} tells why it was ended"
    return raised(candidates, RootCause.OUT_OF_MEMORY, top.score + LEAD, why)


def tidied(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """What fails while tidying up after a complaint is not why the work failed."""
    best = _of_failure(candidates)
    if best is None or best.piece.raised is None or not _TIDYING.search(best.piece.text):
        return candidates
    begin, same = best.piece.raised.first, {hit.piece.line for hit in candidates[0].hits}
    for other in candidates[1:]:
        for hit in other.hits:
            piece = hit.piece
            stands = (
                piece.line not in same
                and piece.errorish
                and not (piece.final or piece.recovered or piece.aside)
            )
            loud = piece.weight >= LOUD and hit.entry.strength >= SURE and piece.near
            if stands and loud and 0 < begin - piece.line <= REASON_LINES and other.cause not in WITHIN:
                why = f"line {piece.line} came before it was tidied up"
                return raised(candidates, other.cause, candidates[0].score + LEAD, why)
    return candidates


def host_of_nothing(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A host's name with `None` in it was put together from a setting that is not there."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.NETWORK_UNREACHABLE or top.best is None:
        return candidates
    if top.best.piece.weight < STANDS or not _NO_NAME.search(top.best.piece.text):
        return candidates
    why = "the host's name was put together from a setting that is not there"
    return raised(candidates, RootCause.MISSING_CONFIGURATION, top.score + LEAD, why)


def as_it_stood(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A line that tells how things stand is no cause where a complaint before it says what failed."""
    best = candidates[0].best if candidates and not candidates[0].why else None
    if best is None or best.piece.kind != "line" or best.piece.final:
        return candidates
    text = best.piece.text[:300]
    if not _STATE.search(text) or _FAILS.search(text):
        return candidates
    for other in candidates[1:]:
        for hit in other.hits:
            piece = hit.piece
            stands = piece.errorish and not (piece.recovered or piece.aside) and piece.weight >= LOUD
            told = stands and hit.entry.strength >= SURE and other.cause not in WITHIN
            if told and 0 < best.piece.line - piece.line <= REASON_LINES:
                why = f"line {piece.line} tells what failed before"
                return raised(candidates, other.cause, candidates[0].score + LEAD, why)
    return candidates


def known_before_words(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Words alone give way to a complaint before them that is known by name, and that nothing has settled."""
    top = candidates[0] if candidates else None
    best = top.best if top is not None and not top.why else None
    if top is None or best is None or best.piece.final or best.entry.strength > COMMON:
        return candidates
    for other in candidates[1:]:
        for hit in other.hits:
            piece, ahead = hit.piece, best.piece.line - hit.piece.line
            known = hit.patterns and hit.entry.strength >= SURE and other.cause not in WITHIN
            if known and 0 < ahead <= LONG_AGO and _left_open(piece, STANDS):
                why = f"line {piece.line} tells what came before it"
                return raised(candidates, other.cause, top.score + LEAD, why)
    return candidates


def only_complaint(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Work went on for a while, then the task failed without a word: what was complained of before is why."""
    ended = next((c for c in candidates if c.cause is RootCause.EXTERNAL_JOB_FAILED), None)
    summed = _summed_up(evidence, candidates)
    if not candidates or (not summed and (ended is None or not only_wraps(ended))):
        return candidates
    said = said_before(evidence)
    counted = any(_COUNTS.search(line.text[:300]) for line in said)
    none = any(_ALL.search(line.text) and complains(line.text) for line in said)
    least = LEFT_OUT if counted or none else OPEN_OF_A_SUM if summed else OPEN
    told = {
        other.cause: hit.piece.line
        for other in candidates
        for hit in other.hits
        if hit.patterns and hit.entry.strength >= SURE and other is not ended and not _only_counts(hit)
        if _left_open(hit.piece, least) or (counted and _held_against(hit.piece))
    }
    if len(told) != 1:
        return candidates
    top = candidates[0]
    counts = top.best is not None and _only_counts(top.best)
    if top.why or not (top is ended or counts or top.cause in told):
        return candidates
    ((cause, line),) = told.items()
    score = max(top.score, SUMMED if none or ended is None else ended.score) + LEAD
    return raised(candidates, cause, score, f"line {line} is the only complaint")


def _held_against(piece: Piece) -> bool:
    """A complaint whose thing seemed to go on, but the count in the end says that it did not."""
    seemed = piece.kind == "line" and piece.errorish and piece.recovered and not piece.aside
    return seemed and piece.weight >= LEFT_OUT and not _GLANCE.at(piece.text) & _GOT_ALONG


def _only_counts(hit: Hit) -> bool:
    """A line that only says how much is not there."""
    return _COUNTS.search(hit.piece.text[:300]) is not None


def _summed_up(evidence: Evidence, candidates: Candidates) -> bool:
    """The task's own code ended it, in words that name no cause."""
    thrown = evidence.chain.raised[-1] if evidence.chain is not None else None
    if thrown is None or not thrown.of_user or thrown.short not in _SUMS:
        return False
    says = (hit for one in candidates for hit in one.hits if hit.piece.final)
    return all(hit.entry.strength <= WRAPPER for hit in says)


def _left_open(piece: Piece, least: float) -> bool:
    """A complaint, below no other level, of a thing that was neither tried again nor got over."""
    stands = piece.errorish and not (piece.recovered or piece.aside or _STATE.search(piece.text[:300]))
    return stands and piece.kind == "line" and piece.weight >= least


Rule = Callable[[Case, Evidence, Candidates], Candidates]
RULES: Sequence[Rule] = (
    status_told,
    answered_otherwise,
    peer_died,
    starved,
    tidied,
    host_of_nothing,
    as_it_stood,
    known_before_words,
    only_complaint,
)
