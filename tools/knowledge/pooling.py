"""Two readers, one answer: what the entries found, and what the words of the same passages speak for.

Where both name the same cause they are seldom wrong; where they differ, how strong and how clear each speaks
decides. The weights in `_calibration.yaml` are fitted by `python -m evals.calibration` on answers of readers
that had not seen the case: entries withheld, words learned from other logs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from graph.domain import RootCause
from tools.knowledge.confidence import features, numbers
from tools.knowledge.ranking import Candidate

SHARP = 3.0  #: margins as odds
LEAST = -7.0  #: no reader is surer than this that it is not so

Margins = Mapping[RootCause, float]
#: score, lead, whether only words speak, weight of the piece; log-odds of the words, lead of their first
Row = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Pool:
    """How much each part of what the readers say counts."""

    score: float
    margin: float
    worded: float
    weight: float
    said: float
    clear: float
    ceiling: float
    answer_from: float
    words_from: float  #: the same, where no more than plain words speak for the cause

    @classmethod
    def load(cls) -> Pool:
        """The shipped numbers."""
        return cls(**numbers("pool"))

    def chances(self, candidates: Sequence[Candidate], margins: Margins) -> dict[RootCause, float]:
        """How likely each cause is."""
        weights = (self.score, self.margin, self.worded, self.weight, self.said, self.clear)
        told = {
            cause: math.exp(sum(w * value for w, value in zip(weights, row, strict=True)))
            for cause, row in rows(candidates, margins).items()
        }
        total = sum(told.values())
        return {cause: value / total for cause, value in told.items()}


def rows(candidates: Sequence[Candidate], margins: Margins) -> dict[RootCause, Row]:
    """What the readers say of each cause."""
    highest = max(margins.values())
    total = math.log(sum(math.exp(SHARP * (value - highest)) for value in margins.values()))
    ordered = sorted(margins, key=lambda cause: -margins[cause])
    lead = margins[ordered[0]] - margins[ordered[1]]
    first = candidates[0] if candidates else None
    found: dict[RootCause, Row] = {}
    for cause, value in margins.items():
        entry: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
        if first is not None and first.cause is cause:
            score, margin, _, _, worded = features(candidates)
            entry = (score, margin, worded, first.best.piece.weight if first.best else 0.0)
        said = max(LEAST, SHARP * (value - highest) - total)
        found[cause] = (*entry, said, lead if cause is ordered[0] else 0.0)
    return found
