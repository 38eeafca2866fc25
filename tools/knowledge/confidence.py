"""From scores to a calibrated confidence: of ten answers at 0.8, eight should be right.

The numbers in `_calibration.yaml` are fitted on labelled cases, cross-validated; `airmedic eval diagnosis`
reports the calibration error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from graph.domain import RootCause
from tools.knowledge.entries import FOLDER
from tools.knowledge.ranking import Candidate

FAINT = 0.3  #: rivals below come from lines that recovered or stand far off
LEAD = 0.3  #: a lead beyond this adds nothing: a generic word without a rival is still a generic word
GENERIC = 0.5  #: entries up to this strength say how it ended; they rival a reason only half


def numbers(part: str) -> dict[str, float]:
    """A part of the shipped numbers."""
    data = yaml.safe_load((FOLDER / "_calibration.yaml").read_text("utf-8"))
    return {key: float(value) for key, value in data[part].items()}


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic curve over what `features` tells of an answer."""

    bias: float
    score: float
    margin: float
    agreed: float
    disputed: float
    worded: float
    ceiling: float
    answer_from: float

    @classmethod
    def load(cls) -> Calibration:
        """The shipped numbers."""
        return cls(**numbers("alone"))

    def confidence(self, candidates: Sequence[Candidate]) -> float:
        """How likely the first candidate is right."""
        if not candidates:
            return 0.0
        weights = (self.score, self.margin, self.agreed, self.disputed, self.worded)
        x = self.bias + sum(w * value for w, value in zip(weights, features(candidates), strict=True))
        return round(min(self.ceiling, 1 / (1 + math.exp(-x))), 3)


Features = tuple[float, float, float, float, float]


def features(candidates: Sequence[Candidate]) -> Features:
    """Score of the winner, its lead over the best other cause, and whether entry and words say the same.

    An entry and the plain words of one message are independent readers: what both say is seldom wrong.
    """
    first = candidates[0]
    second = max((_rivalry(other) for other in candidates[1:]), default=0.0)
    worded = first.best is not None and first.best.worded
    agreed = not worded and first.said == {first.cause}
    disputed = bool(first.said - {first.cause})
    lead = min(first.score - second, LEAD)
    return min(first.score, 1.0), lead, float(agreed), float(disputed), float(worded)


def _rivalry(candidate: Candidate) -> float:
    """What a second cause takes from the certainty of the first."""
    wrapper = candidate.cause is RootCause.EXTERNAL_JOB_FAILED
    generic = candidate.best is not None and candidate.best.entry.strength <= GENERIC
    return candidate.score * (0.5 if wrapper or generic or candidate.score < FAINT else 1.0)
