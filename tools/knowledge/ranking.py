"""Several signals, one order of causes: specific beats wrapper, innermost beats outermost."""

from __future__ import annotations

from collections.abc import Sequence
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
GENERIC = 0.72  #: entries up to this strength name the exception, not the cause
STANDS = 0.4  #: least weight of a line that explains
MOST_OF_A_LINE = 0.95
SPECIFIC = 0.8  #: a final exception this specific leaves little room for earlier lines
NEAR = 1.25  #: a line just before a failure that says nothing itself
EFFECT = 0.85  #: what an exception counts that is often the effect of what was printed before
JUST_BEFORE = 1.6  #: and what those lines count more
SUPPORT = 0.03  #: what each further line of the same cause adds, three at most


@dataclass(frozen=True, slots=True)
class Hit:
    """A pattern found in a piece of evidence."""

    piece: Piece
    entry: Entry
    patterns: tuple[int, ...]
    score: float
    of_class: bool = False  #: only the exception's class speaks, not its message


@dataclass(slots=True)
class Candidate:
    """One cause with the hits that speak for it."""

    cause: RootCause
    score: float
    hits: list[Hit] = field(default_factory=list)
    why: str = ""  #: what context added, in words

    @property
    def best(self) -> Hit | None:
        return self.hits[0] if self.hits else None


def rank(hits: Sequence[Hit]) -> list[Candidate]:
    """Candidates, strongest first."""
    named = [hit for hit in hits if hit.entry.cause is not RootCause.UNKNOWN]
    discount, effect = _discount(named), _is_effect(named)
    by_cause: dict[RootCause, list[Hit]] = {}
    for hit in _strongest_per_piece(named):
        if effect:
            factor = EFFECT if hit.piece.final else JUST_BEFORE if _explains(hit) else 1.0
        else:
            nearer = NEAR if discount == 1.0 and hit.piece.near else 1.0
            factor = 1.0 if hit.piece.final else discount * nearer
        ceiling = max(hit.score, hit.entry.strength * MOST_OF_A_LINE)
        scored = replace(hit, score=min(hit.score * factor, ceiling))
        by_cause.setdefault(hit.entry.cause, []).append(scored)
    candidates = []
    for cause, found in by_cause.items():
        found.sort(key=lambda h: (-h.score, -h.piece.line))
        further = {h.piece.line for h in found[1:] if h.score > 0.5 * found[0].score} - {found[0].piece.line}
        score = found[0].score + SUPPORT * min(3, len(further))
        candidates.append(Candidate(cause, score, found))
    candidates.sort(key=lambda c: -c.score)
    return candidates


def _is_effect(hits: Sequence[Hit]) -> bool:
    """The task ended in an exception of the kind that broken input raises, and its message names no cause."""
    final = [hit for hit in hits if hit.piece.final]
    inner = max((hit.piece for hit in final if hit.piece.raised), key=lambda p: p.weight, default=None)
    if inner is None or inner.raised is None or inner.raised.short not in EFFECTS:
        return False
    return max(hit.entry.strength for hit in final) <= GENERIC and any(map(_explains, hits))


def _explains(hit: Hit) -> bool:
    """A line shortly before, which neither recovered nor was passed over."""
    return hit.piece.near and not hit.piece.final and hit.piece.weight >= STANDS and hit.entry.strength > 0.6


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
