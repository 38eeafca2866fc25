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


@dataclass(frozen=True, slots=True)
class Calibration:
    """A logistic curve over the winner's score and its lead."""

    bias: float
    score: float
    margin: float
    ceiling: float
    answer_from: float

    @classmethod
    def load(cls) -> Calibration:
        """The shipped numbers."""
        data = yaml.safe_load((FOLDER / "_calibration.yaml").read_text("utf-8"))
        return cls(**{key: float(value) for key, value in data.items()})

    def confidence(self, candidates: Sequence[Candidate]) -> float:
        """How likely the first candidate is right."""
        if not candidates:
            return 0.0
        top, margin = features(candidates)
        x = self.bias + self.score * top + self.margin * margin
        return round(min(self.ceiling, 1 / (1 + math.exp(-x))), 3)


def features(candidates: Sequence[Candidate]) -> tuple[float, float]:
    """Score of the winner and its lead over the best other cause."""
    top = min(candidates[0].score, 1.0)
    second = max((_rivalry(other) for other in candidates[1:]), default=0.0)
    return top, min(candidates[0].score - second, LEAD)


def _rivalry(candidate: Candidate) -> float:
    """What a second cause takes from the certainty of the first."""
    wrapper = candidate.cause is RootCause.EXTERNAL_JOB_FAILED
    generic = candidate.best is not None and candidate.best.entry.strength <= GENERIC
    return candidate.score * (0.5 if wrapper or generic or candidate.score < FAINT else 1.0)
