"""Several signals, one order of causes: specific beats wrapper, innermost beats outermost."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace

from graph.domain import RootCause
from tools.evidence import Piece
from tools.knowledge.entries import Entry

#: raised when something before went wrong: an error page that is no JSON, an answer without the key
EFFECTS = frozenset(
    {
        "KeyError",
        "IndexError",
        "TypeError",
        "AttributeError",
        "ValueError",
        "JSONDecodeError",
        "AssertionError",
        "StopIteration",
        "ZeroDivisionError",
        "UnboundLocalError",
        "RuntimeError",
        "ParserError",
    }
)
#: classes with which code sums up in its own words what a library or program told before
SUMMARIES = frozenset({"RuntimeError", "Exception", "AirflowException", "AirflowFailException"})
SURE = 0.95  #: least strength of an entry that knows an identifier
JUST = 4  #: lines between what was told and the summary of it
LOUD = 0.85  #: least weight of a line at level ERROR
GENERIC = 0.72  #: entries up to this strength name the exception, not the cause
WENT_ON = 2  #: lines of ordinary work after a complaint that show it did not lead to the end
STANDS = 0.4  #: least weight of a line that explains
MOST_OF_A_LINE = 0.95
SPECIFIC = 0.8  #: a final exception this specific leaves little room for earlier lines
NEAR = 1.25  #: a line just before a failure that says nothing itself
WRAPPER = 0.5  #: entries up to this strength say how it ended
#: messages of code and programs that stumble over broken or absent input
STUMBLED = re.compile(
    r"NoneType|JSONDecodeError|Expecting value|not iterable|not subscriptable|index out of range"
    r"|division by zero"
    r"|empty sequence|could not convert string|invalid literal for|mismatched tag|[Pp]remature end"
    r"|[Uu]nexpected end"
    r"|[Uu]nexpected (?:EOF|eof|token)|Ran out of input|Cannot (?:iterate over|index)|Invalid numeric literal"
    r"|tokenizing data|^(?:\w+\.)*(?:KeyError|IndexError|EOFError|BrokenPipeError)\b|has no len"
    r"|Start tag expected"
    r"|cannot unmarshal|invalid character|Cannot read propert|not a (?:gzip|zip)|not in gzip format"
    r"|[Uu]ndefined index"
    r"|checksum|did NOT match|cannot find or open|not in sorted order|could not read from input"
    r"|[Nn]ull ?[Pp]ointer|for nil\b|Can.t use an undefined|null-valued|destructure property|over null"
    r"|Call to a member function \S+ on (?:bool|null|false)|argument is of length zero"
    r"|attempt to index a nil"
)
#: causes that a stumbling program shares with what it stumbled over
WITHIN = frozenset({RootCause.CODE_ERROR, RootCause.TYPE_MISMATCH, RootCause.EXTERNAL_JOB_FAILED})
ASIDE = 0.4  #: what a line beside the work counts, where a line of the work tells of a cause
EXPLAINED = 0.85  #: what a line may count at most that explains an effect
EFFECT = 0.7  #: what an exception counts that is often the effect of what was printed before
JUST_BEFORE = 1.6  #: and what those lines count more
COMMON = 0.7  #: entries up to this strength know common words
YIELDS = 0.8  #: what they keep where the other words of a piece speak of something else
NOTHING: frozenset[RootCause] = frozenset()
SUPPORT = 0.03  #: what each further line of the same cause adds, three at most


@dataclass(frozen=True, slots=True)
class Hit:
    """A pattern found in a piece of evidence."""

    piece: Piece
    entry: Entry
    patterns: tuple[int, ...]
    score: float
    of_class: bool = False  #: only the exception's class speaks, not its message
    worded: bool = False  #: read word by word, not by an entry


@dataclass(slots=True)
class Candidate:
    """One cause with the hits that speak for it."""

    cause: RootCause
    score: float
    hits: list[Hit] = field(default_factory=list)
    why: str = ""  #: what context added, in words
    passes: bool | None = None  #: whether it is transient, where a rule knows better than the entry
    said: frozenset[RootCause] = frozenset()  #: what the words of the best hit's piece speak for

    @property
    def best(self) -> Hit | None:
        return self.hits[0] if self.hits else None


def only_wraps(candidate: Candidate) -> bool:
    """What speaks for it says how it ended, and no more; the user's own knowledge says what it says."""
    best = candidate.best
    return best is not None and best.entry.strength <= WRAPPER and not best.entry.own


def raised(
    candidates: list[Candidate], cause: RootCause, score: float, why: str, *, passes: bool | None = None
) -> list[Candidate]:
    """Give one cause at least this score, with the reason."""
    for candidate in candidates:
        if candidate.cause is cause:
            candidate.score = max(candidate.score, score)
            candidate.why = why
            candidate.passes = candidate.passes if passes is None else passes
            return candidates
    return [*candidates, Candidate(cause, score, why=why, passes=passes)]


def lower(candidates: list[Candidate], cause: RootCause, factor: float) -> list[Candidate]:
    """Leave a cause this share of its score."""
    for candidate in candidates:
        if candidate.cause is cause:
            candidate.score *= factor
    return candidates


def rank(hits: Sequence[Hit]) -> list[Candidate]:
    """Candidates, strongest first."""
    named = [hit for hit in hits if hit.entry.cause is not RootCause.UNKNOWN]
    said = _said(named)
    named = [_outspoken(hit, said.get(id(hit.piece), NOTHING)) for hit in named]
    discount, effect = _discount(named), _effect(named)
    instead = any(_of_the_work(hit) for hit in named)
    by_cause: dict[RootCause, list[Hit]] = {}
    for hit in _strongest_per_piece(named):
        ceiling = max(hit.score, hit.entry.strength * MOST_OF_A_LINE)
        if effect:
            factor = EFFECT if id(hit.piece) in effect else JUST_BEFORE if _explains(hit) else 1.0
            ceiling = max(ceiling, EXPLAINED if factor == JUST_BEFORE else 0.0)
        else:
            nearer = NEAR if discount == 1.0 and hit.piece.near else 1.0
            factor = 1.0 if hit.piece.final else discount * nearer
        if hit.piece.aside and instead:
            factor *= ASIDE
        scored = replace(hit, score=min(hit.score * factor, ceiling))
        by_cause.setdefault(hit.entry.cause, []).append(scored)
    candidates = []
    for cause, found in by_cause.items():
        found.sort(key=lambda h: (-h.score, -h.piece.line))
        further = {h.piece.line for h in found[1:] if h.score > 0.5 * found[0].score} - {found[0].piece.line}
        score = found[0].score + SUPPORT * min(3, len(further))
        words = frozenset(said.get(id(found[0].piece), NOTHING))
        candidates.append(Candidate(cause, score, found, said=words))
    candidates.sort(key=lambda c: -c.score)
    return candidates


def _said(hits: Sequence[Hit]) -> dict[int, set[RootCause]]:
    """For each piece, the causes that its words speak for."""
    said: dict[int, set[RootCause]] = {}
    for hit in hits:
        if hit.worded:
            said.setdefault(id(hit.piece), set()).add(hit.entry.cause)
    return said


def _outspoken(hit: Hit, said: Set[RootCause]) -> Hit:
    """An entry that knows no more than common words yields to other words of the same piece."""
    if hit.worded or not WRAPPER < hit.entry.strength <= COMMON or not said or hit.entry.cause in said:
        return hit
    return replace(hit, score=hit.score * YIELDS)


def _effect(hits: Sequence[Hit]) -> frozenset[int]:
    """The pieces that only show the effect of a line shortly before; empty when no such line explains them.

    Broken input makes code stumble: an error page is no JSON, an answer lacks the key. A shell's last
    program stumbles over the file that the one before it could not write.
    """
    final = [hit for hit in hits if hit.piece.final and hit.entry.strength > WRAPPER]
    inner = max((hit.piece for hit in final if hit.piece.raised), key=lambda p: p.weight, default=None)
    if inner is None:
        last = [h for h in hits if h.piece.near and h.piece.kind == "line" and h.entry.strength > WRAPPER]
        inner = max((hit.piece for hit in last if hit.piece.errorish), key=lambda p: p.line, default=None)
    if inner is None:
        return frozenset()
    own = [hit for hit in hits if hit.piece is inner]
    vague = max(hit.entry.strength for hit in own) <= GENERIC
    stumbled = STUMBLED.search(inner.text.partition("\n@")[0]) is not None
    short = inner.raised.short if inner.raised is not None else ""
    summary = short in SUMMARIES
    if not (stumbled or (vague and short in EFFECTS) or summary):
        return frozenset()
    said = max(own, key=lambda h: h.entry.strength).entry.cause
    before = [h for h in hits if _explains(h) and h.entry.cause is not said and h.piece.line < inner.line]
    if not stumbled and summary:
        before = [h for h in before if _loud(h) and 0 <= _first(inner) - h.piece.line <= JUST]
    if not before:
        return frozenset()
    return frozenset({id(hit.piece) for hit in hits if hit.piece.final} | {id(inner)})


def _first(piece: Piece) -> int:
    return piece.raised.first if piece.raised is not None else piece.line


def _loud(hit: Hit) -> bool:
    """An identifier in a line at level ERROR."""
    return hit.piece.weight >= LOUD and hit.entry.strength >= SURE


def _explains(hit: Hit) -> bool:
    """A line shortly before, which neither recovered nor was passed over, tells what was outside the code."""
    stands = hit.piece.near and not hit.piece.final and hit.piece.weight >= STANDS
    stands = stands and hit.piece.after < WENT_ON
    return stands and hit.entry.strength > 0.6 and hit.entry.cause not in WITHIN


def _of_the_work(hit: Hit) -> bool:
    """A line that may name the cause and is not about mails, figures or cleaning up."""
    stands = hit.piece.weight >= STANDS and hit.entry.strength > WRAPPER
    return stands and not hit.piece.aside and not hit.piece.recovered


def _discount(hits: Sequence[Hit]) -> float:
    """How much lines outside the final failure still count, by how much that failure says itself."""
    final = max((hit.score for hit in hits if hit.piece.final), default=0.0)
    if final >= SPECIFIC:
        return 0.6
    return 0.85 if final >= 0.6 else 1.0


def _strongest_per_piece(hits: Sequence[Hit]) -> list[Hit]:
    """Within one piece the specific entry silences what is much weaker there."""
    best: dict[int, float] = {}
    for hit in hits:
        key = id(hit.piece)
        best[key] = max(best.get(key, 0.0), hit.entry.strength)
    return [hit for hit in hits if hit.entry.strength >= best[id(hit.piece)] - 0.3]
