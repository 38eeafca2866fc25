"""Several signals, one order of causes: specific beats wrapper, innermost beats outermost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from graph.domain import RootCause
from tools.evidence import Piece
from tools.knowledge.entries import Entry

SPECIFIC = 0.8  #: a final exception this specific leaves little room for earlier lines
NEAR = 1.25  #: a line just before a failure that says nothing itself
SUPPORT = 0.03  #: what each further line of the same cause adds, three at most


@dataclass(frozen=True, slots=True)
class Hit:
    """A pattern found in a piece of evidence."""

    piece: Piece
    entry: Entry
    patterns: tuple[int, ...]
    score: float


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
    discount = _discount(named)
    by_cause: dict[RootCause, list[Hit]] = {}
    for hit in _strongest_per_piece(named):
        factor = 1.0 if hit.piece.final else discount * (NEAR if discount == 1.0 and hit.piece.near else 1.0)
        scored = Hit(hit.piece, hit.entry, hit.patterns, hit.score * factor)
        by_cause.setdefault(hit.entry.cause, []).append(scored)
    candidates = []
    for cause, found in by_cause.items():
        found.sort(key=lambda h: (-h.score, -h.piece.line))
        further = {h.piece.line for h in found[1:] if h.score > 0.5 * found[0].score} - {found[0].piece.line}
        score = found[0].score + SUPPORT * min(3, len(further))
        candidates.append(Candidate(cause, score, found))
    candidates.sort(key=lambda c: -c.score)
    return candidates


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
