"""The second reading of a case: may confirm the first, doubt it, or answer where the entries know nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from graph.domain import RootCause
from tools.evidence import Evidence, Piece
from tools.knowledge import refine
from tools.knowledge.entries import Knowledge
from tools.knowledge.learned import Passage, Reader
from tools.knowledge.pooling import Margins, Pool
from tools.knowledge.ranking import COMMON, EFFECTS, WRAPPER, Candidate, Hit, only_wraps

WORDS_ALONE = 0.85  #: most that words are believed which no entry confirms
DECISIVE = (
    0.99  #: least strength of an entry that no words overrule, in the failure or in the last complaints
)
EXACT = 0.97  #: least strength of an entry that words do not make pass by itself
OVERRULES = 0.7  #: least certainty of words that overrule an entry that is strong in the failure itself
ONLY_ENDED = 0.55  #: most that is believed of an end, where words around it do not speak of work elsewhere
SPEAKS = 0.27  #: least margin of words that put such an end in doubt
SILENT = 0.2  #: least margin of words that say anything
STRONG = 0.85  #: least strength of an entry, in the failure itself, that words do not talk into `unknown`
LEARNED = 0.6  #: strength of what only they say

_TRACE = "\n@"  #: where an exception's frames begin
#: an exception that says no more than that something failed
_HOLLOW = re.compile(
    r"(?i)^(?:[\w.]+(?:error|exception|failed): *)?"
    r"(?:(?:an?|the|some|something|unspecified|unknown|unexpected|generic|internal|error|failed|failure"
    r"|unsuccessful|went|wrong|has|was|is|occurred|happened|task|step|operation|see|logs?|above|for|details?"
    r"|exception)\b[\s.:!,]*)+$"
)

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
        first = candidates[0] if candidates else None
        says = bool(margins) and max(margins.values()) >= SILENT
        if first is not None and not moved and _only_ended(first, margins):
            known = (margin for cause, margin in margins.items() if cause is not RootCause.UNKNOWN)
            speaks = max(known, default=0.0)
            alone = Sure(min(alone.confidence, ONLY_ENDED), enough=alone.enough and speaks < SPEAKS)
        if not says:
            return candidates, alone
        chances = self._pool.chances(candidates, margins)
        stumbled = evidence.chain is not None and evidence.chain.raised[-1].short in EFFECTS
        if first is not None and (moved or first.why or _settled(first, stumbled=stumbled)):
            chance = self._believed(chances.get(first.cause, 0.0))
            return candidates, Sure(max(alone.confidence, chance), alone.enough or self._enough(chance))
        cause = max(chances, key=lambda one: chances[one])
        chance = self._believed(chances[cause])
        vague = cause in (_ENDED, RootCause.UNKNOWN) or not self._enough(chance)
        if first is not None and first.cause is _ENDED and vague:
            return candidates, alone
        if first is not None and _strong(first) and alone.enough and self._doubtful(first, cause, chance):
            # The words are in doubt themselves: what an entry is sure of stays, and is believed less.
            chance = self._believed((alone.confidence + chances.get(first.cause, 0.0)) / 2)
            return candidates, Sure(chance, self._enough(chance))
        if cause is RootCause.UNKNOWN:
            chance = self._believed(chances[first.cause]) if first is not None else 0.0
            return candidates, Sure(chance, enough=False)
        if first is None or first.cause is not cause:
            candidates = self._led_by(cause, evidence, candidates)
            if not candidates or candidates[0].cause is not cause:
                return candidates, Sure(0.0, enough=False)
            if not candidates[0].hits[0].patterns:
                chance = min(chance, WORDS_ALONE)
        best = candidates[0].best
        if best is not None and best.entry.strength <= WRAPPER and not best.entry.own:
            chance = min(chance, WORDS_ALONE)  # an entry that says little confirms little
        worded = best is None or WRAPPER < best.entry.strength <= COMMON
        return candidates, Sure(chance, chance >= self._pool.words_from if worded else self._enough(chance))

    def _doubtful(self, first: Candidate, cause: RootCause, chance: float) -> bool:
        """Too little to take a strong entry's place."""
        if not self._enough(chance) or cause is first.cause:
            return not self._enough(chance)
        return chance < OVERRULES or self._unsafe(first, cause)

    def _unsafe(self, first: Candidate, cause: RootCause) -> bool:
        """Words would make a passing failure of one that an entry knows to last."""
        known = first.best is not None and first.best.entry.strength >= EXACT and not first.best.of_class
        lasts = first.best is not None and not first.best.entry.transient
        return known and lasts and cause is not first.cause and self._knowledge.causes[cause].transient

    def _enough(self, chance: float) -> bool:
        return chance >= self._pool.answer_from

    def _believed(self, chance: float) -> float:
        return round(min(chance, self._pool.ceiling), 3)

    def _led_by(
        self, cause: RootCause, evidence: Evidence, candidates: Sequence[Candidate]
    ) -> list[Candidate]:
        """This cause first; where no entry speaks for it, by the passage whose words do."""
        others = [one for one in candidates if one.cause is not cause]
        held = next((one for one in candidates if one.cause is cause and _speaks(one)), None)
        if held is not None:
            return [held, *others]
        passage = self._reader.decisive(evidence, cause)
        if passage is None or _HOLLOW.search(passage.text.partition(_TRACE)[0]):
            return list(candidates)
        why = "no entry knows it: its words speak for that"
        hit = Hit(
            _piece(evidence, passage), refine.default_entry(cause, self._knowledge, LEARNED), (), LEARNED
        )
        return [Candidate(cause, LEARNED, [hit], why=why), *others]


def _speaks(candidate: Candidate) -> bool:
    """An entry speaks for it, in something that was not got over."""
    return candidate.best is not None and not candidate.best.piece.recovered


def _piece(evidence: Evidence, passage: Passage) -> Piece:
    held = (piece for piece in evidence.pieces if piece.line == passage.line)
    return next(held, Piece("line", passage.line, passage.text, passage.weight))


def _only_ended(first: Candidate, margins: Margins) -> bool:
    """Nothing but a wrapper speaks, and the words around it do not speak of work that failed elsewhere."""
    if first.cause is not _ENDED or first.why or not margins:
        return False
    return only_wraps(first) and max(margins, key=lambda one: margins[one]) is not _ENDED


def _strong(first: Candidate) -> bool:
    """An entry that is strong, in the failure itself."""
    return first.best is not None and first.best.entry.strength >= STRONG and first.best.piece.final


def _settled(first: Candidate, *, stumbled: bool) -> bool:
    """The user's own knowledge; or a key that is not there: what led to it tells why, not its words."""
    if first.best is None:
        return False
    piece, raised = first.best.piece, first.best.piece.raised
    told = piece.final or (piece.near and (piece.errorish or (stumbled and not piece.after)))
    decisive = first.best.entry.strength >= DECISIVE and told
    return decisive or first.best.entry.own or (raised is not None and raised.short in _NOT_THERE)
