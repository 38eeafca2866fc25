"""The second reading of a case: may confirm the first, doubt it, or answer where the entries know nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from graph.domain import RootCause
from tools.evidence import Evidence, Piece
from tools.knowledge import refine
from tools.knowledge.entries import Knowledge
from tools.knowledge.learned import Passage, Reader
from tools.knowledge.pooling import Pool
from tools.knowledge.ranking import Candidate, Hit

WORDS_ALONE = 0.85  #: most that words are believed which no entry confirms
DECISIVE = (
    0.99  #: least strength of an entry that no words overrule, in the failure or in the last complaints
)
SILENT = 0.2  #: least margin of words that say anything
STRONG = 0.85  #: least strength of an entry, in the failure itself, that words do not talk into `unknown`
LEARNED = 0.6  #: strength of what only they say


_ENDED = RootCause.EXTERNAL_JOB_FAILED  # said by how it ended, not by words
_NOT_THERE = frozenset({"KeyError", "IndexError"})


@dataclass(frozen=True, slots=True)
class Sure:
    """How sure an answer is, and whether that is enough to give it."""

    confidence: float
    enough: bool


class SecondReading:
    """Both readers together."""

    def __init__(self, knowledge: Knowledge, reader: Reader, pool: Pool) -> None:
        self._knowledge = knowledge
        self._reader = reader
        self._pool = pool

    def apply(
        self, evidence: Evidence, candidates: list[Candidate], alone: Sure, *, moved: bool
    ) -> tuple[list[Candidate], Sure]:
        """The causes anew ordered; what was moved by knowledge beyond the log, or is the user's, stays."""
        margins = self._reader.read(evidence)
        if not margins or max(margins.values()) < SILENT:
            return candidates, alone
        chances = self._pool.chances(candidates, margins)
        first = candidates[0] if candidates else None
        if first is not None and (moved or first.why or _settled(first)):
            chance = self._believed(chances.get(first.cause, 0.0))
            return candidates, Sure(max(alone.confidence, chance), alone.enough or self._enough(chance))
        cause = max(chances, key=lambda one: chances[one])
        chance = self._believed(chances[cause])
        vague = cause in (_ENDED, RootCause.UNKNOWN) or not self._enough(chance)
        if first is not None and first.cause is _ENDED and vague:
            return candidates, alone
        if first is not None and _strong(first) and alone.enough and not self._enough(chance):
            # The words are in doubt themselves: what an entry is sure of stays, and is believed less.
            chance = self._believed((alone.confidence + chances.get(first.cause, 0.0)) / 2)
            return candidates, Sure(chance, self._enough(chance))
        if cause is RootCause.UNKNOWN:
            chance = self._believed(chances[first.cause]) if first is not None else 0.0
            return candidates, Sure(chance, enough=False)
        if first is None or first.cause is not cause:
            candidates = self._led_by(cause, evidence, candidates)
            if not candidates[0].hits[0].patterns:
                chance = min(chance, WORDS_ALONE)
        return candidates, Sure(chance, self._enough(chance))

    def _enough(self, chance: float) -> bool:
        return chance >= self._pool.answer_from

    def _believed(self, chance: float) -> float:
        return round(min(chance, self._pool.ceiling), 3)

    def _led_by(
        self, cause: RootCause, evidence: Evidence, candidates: Sequence[Candidate]
    ) -> list[Candidate]:
        """This cause first; where no entry speaks for it, by the passage whose words do."""
        others = [one for one in candidates if one.cause is not cause]
        held = next((one for one in candidates if one.cause is cause and one.hits), None)
        if held is not None:
            return [held, *others]
        passage = self._reader.decisive(evidence, cause)
        if passage is None:
            return list(candidates)
        why = "no entry knows it: its words speak for that"
        hit = Hit(
            _piece(evidence, passage), refine.default_entry(cause, self._knowledge, LEARNED), (), LEARNED
        )
        return [Candidate(cause, LEARNED, [hit], why=why), *others]


def _piece(evidence: Evidence, passage: Passage) -> Piece:
    held = (piece for piece in evidence.pieces if piece.line == passage.line)
    return next(held, Piece("line", passage.line, passage.text, passage.weight))


def _strong(first: Candidate) -> bool:
    """An entry that is strong, in the failure itself."""
    return first.best is not None and first.best.entry.strength >= STRONG and first.best.piece.final


def _settled(first: Candidate) -> bool:
    """The user's own knowledge; or a key that is not there: what led to it tells why, not its words."""
    if first.best is None:
        return False
    piece, raised = first.best.piece, first.best.piece.raised
    decisive = first.best.entry.strength >= DECISIVE and (piece.final or (piece.near and piece.errorish))
    return decisive or first.best.entry.own or (raised is not None and raised.short in _NOT_THERE)
