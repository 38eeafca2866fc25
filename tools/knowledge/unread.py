"""Doubt: what nobody here can read stands nearer to the end than what was read."""

from __future__ import annotations

import re
from collections.abc import Sequence

from graph.domain import RootCause
from tools.diagnosis import Case
from tools.evidence import Evidence, Piece
from tools.evidence_traces import Raised
from tools.knowledge.ranking import WENT_ON, Candidate, Hit

Candidates = list[Candidate]
READ = 0.45  #: entries from this strength on read a line
ERROR_LINE = 0.7  #: least weight of a line that calls itself an error near the end
IN_ERROR = 0.85  #: what such a line keeps when the failure itself stays unread
IN_PASSING = 0.6  #: and what any other line keeps
LEFT_BEHIND = 0.45  #: and what a line keeps after which the work went on
LAST = 3  #: lines before the end in which code says why it gives up
SAYS = 0.66  #: least strength of what it says
MOST = 0.92  #: of that strength, when nothing else explains the end
TOLD = 0.88  #: of the strength of what a child said before it ended
IDENTIFIES = 0.86  #: least strength of what counts in any line of a child near its end
MENTIONED = 0.35  #: least weight of such a line
A_SENTENCE = 3  #: words of a message that may tell something
GIVES = 0.5  #: entries up to this strength say that something failed
OUTER = 0.75  #: what an exception keeps that only wraps an unread one
EFFECT_LINES = 4  #: lines after a complaint in which its effects show
WORDS = 0.72  #: entries up to this strength read words, not identifiers
#: how it ended, in the words of code that gives up: the reason stands elsewhere
_GAVE_UP = re.compile(
    r"(?i)\b(fail\w*|abort\w*|incomplete|unsuccessful|stopp\w*|exit\w*|exhausted|broken|gave up|giving up"
    r"|(?:did |could |can|was |were |is |are )?not (?:be )?\w+(?:ed|en|ad|nt|ete|ish|eed|rm|ld|one|pt)\b"
    r"|return(?:ed|s)? (?:code|status|-?\d+)|outcome|refus\w*|reject\w*|skipp\w*|lost|gone"
    r"|not (?:ready|done|available|found|ok|complete)"
    r"|see (?:above|log|the log)|no (?:result|final state|answer)|only \d+ of \d+|\d+ of \d+)\b|^\W*\d*\W*$"
)
_PLAIN = frozenset(
    {
        "Exception",
        "RuntimeError",
        "AirflowException",
        "AirflowFailException",
        "SystemExit",
        "CalledProcessError",
        "AssertionError",
    }
)


def last_word(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """Code that only gives up in the end said why just before, whatever level it said it at."""
    chain, top = evidence.chain, candidates[0] if candidates else None
    if chain is None or top is None or any(_explained(hit) for hit in _hits(candidates)):
        return candidates
    if any(_tells(raised_) for raised_ in chain.raised):
        return candidates
    before = [line.number for line in evidence.order if line.number < chain.first and evidence.says(line)][
        -LAST:
    ]
    said = [hit for hit in _hits(candidates) if hit.piece.line in before and _open(hit.piece)]
    best = max(said, key=lambda hit: (hit.piece.line, hit.entry.strength), default=None)
    if best is None or best.entry.strength < SAYS or best.entry.cause is RootCause.EXTERNAL_JOB_FAILED:
        return candidates
    if top.cause is not best.entry.cause and top.score >= best.entry.strength * MOST:
        return candidates
    for candidate in candidates:
        if candidate.cause is best.entry.cause:
            candidate.score = max(candidate.score, best.entry.strength * MOST)
    return candidates


def childs_word(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A child that ended badly said why in its last lines, though it called none of them an error."""
    top = candidates[0] if candidates else None
    if top is None or top.cause is not RootCause.EXTERNAL_JOB_FAILED or top.why or top.best is None:
        return candidates
    begin = evidence.chain.first if evidence.chain is not None else evidence.end
    last = [line.number for line in evidence.order if line.number < begin and evidence.says(line)][-LAST:]
    told = [hit for hit in _hits(candidates) if _open(hit.piece) and hit.piece.near and _names(hit, last)]
    best = max(told, key=lambda hit: (hit.entry.strength, hit.piece.line), default=None)
    if best is None or evidence.went_well_between(best.piece.line, begin):
        return candidates
    for candidate in candidates:
        if candidate.cause is best.entry.cause:
            candidate.score = max(candidate.score, best.entry.strength * TOLD)
    return candidates


def _names(hit: Hit, last: Sequence[int]) -> bool:
    """An identifier, or words in the very last lines."""
    least = SAYS if hit.piece.line in last else IDENTIFIES
    worth = hit.piece.weight >= MENTIONED and hit.entry.strength >= least
    return worth and hit.entry.cause not in (RootCause.EXTERNAL_JOB_FAILED, RootCause.UNKNOWN)


def _explained(hit: Hit) -> bool:
    """The end itself names a cause, or was only that of a child."""
    return hit.piece.final and (
        hit.entry.strength > GIVES or hit.entry.cause is RootCause.EXTERNAL_JOB_FAILED
    )


def _open(piece: Piece) -> bool:
    return piece.kind == "line" and not piece.recovered and not piece.aside and not piece.final


def doubted(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """An answer from elsewhere counts less while the failure that ended the task stays unread."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.why or evidence.chain is None:
        return candidates
    unread = _unread(evidence.chain.raised, candidates)
    best = top.best
    if not unread or best.entry.cause is RootCause.EXTERNAL_JOB_FAILED:
        return candidates
    if best.piece.raised in evidence.chain.raised:
        inner = evidence.chain.raised[-1]
        wraps = inner in unread and best.piece.raised is not inner and best.entry.strength <= WORDS
        return less_sure(candidates, OUTER) if wraps else candidates
    if best.piece.after >= WENT_ON and best.piece.kind == "line":
        return less_sure(candidates, LEFT_BEHIND)
    return less_sure(candidates, IN_ERROR if _stands(best.piece) else IN_PASSING)


def passed_by(case: Case, evidence: Evidence, candidates: Candidates) -> Candidates:
    """A line in passing counts less when a child complained after it in words unknown here; so does what
    only followed from such a complaint."""
    top = candidates[0] if candidates else None
    if top is None or top.best is None or top.why or top.best.piece.kind != "line":
        return candidates
    piece, entry = top.best.piece, top.best.entry
    if entry.cause is RootCause.EXTERNAL_JOB_FAILED:
        return candidates
    read = {hit.piece.line for hit in _hits(candidates) if hit.entry.strength >= READ}
    unread = [p.line for p in evidence.pieces if _complains(p) and p.line not in read]
    if not _stands(piece) and any(number > piece.line for number in unread):
        return less_sure(candidates, IN_PASSING)
    if entry.strength <= WORDS and any(0 < piece.line - number <= EFFECT_LINES for number in unread):
        return less_sure(candidates, OUTER)
    return candidates


def less_sure(candidates: Candidates, factor: float) -> Candidates:
    """Doubt takes from all alike: it names no other cause."""
    for candidate in candidates:
        candidate.score *= factor
    return candidates


def _complains(piece: Piece) -> bool:
    """A line that calls itself an error, stands open, and tells more than that something gave up."""
    return piece.kind == "line" and _stands(piece) and not piece.aside and not _GAVE_UP.search(piece.text)


def _unread(chain: Sequence[Raised], candidates: Candidates) -> list[Raised]:
    """Exceptions of the chain that tell something of their own which no entry knows."""
    read = {id(hit.piece.raised) for hit in _hits(candidates) if hit.entry.strength >= READ}
    return [raised for raised in chain if id(raised) not in read and _tells(raised)]


def _hits(candidates: Candidates) -> list[Hit]:
    return [hit for candidate in candidates for hit in candidate.hits]


def _tells(raised: Raised) -> bool:
    """More than that it gave up."""
    if raised.short not in _PLAIN:
        return True
    return len(raised.message.split()) >= A_SENTENCE and not _GAVE_UP.search(raised.message)


def _stands(piece: Piece) -> bool:
    """A line that calls itself an error, shortly before the end, and was not got over."""
    return piece.near and piece.errorish and piece.weight >= ERROR_LINE and not piece.recovered


RULES = (last_word, childs_word, doubted, passed_by)
