"""Fits the confidence of answers: `python -m evals.calibration CASES.jsonl…` prints the numbers to ship.

Knowledge that was written with the cases in sight answers them nearly all, so they alone would teach
nothing of doubt. Every round withholds a random share of the entries and mixes harmless lines into the logs:
what is left is wrong as often as on logs never seen. Cross-validated over cases: no case is judged by numbers
fitted on it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from evals.cases import EvalCase, read_cases
from evals.scorers import calibration_error
from tools import evidence
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase, confidence, refine
from tools.knowledge.ranking import rank

WITHHELD = (0.1, 0.3, 0.5, 0.65)  # shares of the entries
FOLDS = 5
HARMLESS = (
    ("WARNING - connection to cache-2 reset by peer, retrying in 2 s", "INFO - connected to cache-2"),
    ("WARNING - 429 Too Many Requests, sleeping 3 s", "INFO - page 4: 200 rows"),
    ("INFO - could not read /etc/acme/overrides.toml: Permission denied (optional)",),
    ("WARNING - disk /scratch is 91% full",),
    ("WARNING - row 17 skipped: invalid date '31.02.2026'",),
    ("INFO - token expired, refreshed",),
    ("WARNING - deadlock detected, transaction retried", "INFO - commit ok"),
    ("INFO - module ujson not found, using json",),
)


@dataclass(slots=True)
class Sample:
    """What the curve is fitted on: features of an answer, whether it was right, and its case."""

    features: list[confidence.Features] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    case: list[int] = field(default_factory=list)


def sample(cases: Sequence[EvalCase], rounds: int, without: str = "\0") -> Sample:
    """Answer every case `rounds` times, each time with other entries withheld; those `without` always."""
    base = KnowledgeBase.load()
    found = Sample()
    for seed in range(rounds):
        rng = random.Random(seed)
        share = WITHHELD[seed % len(WITHHELD)]
        withheld = {
            entry.name for entry in base.entries if entry.name.startswith(without) or rng.random() < share
        }
        for index, labelled in enumerate(cases):
            asked = labelled.to_case()
            _answer(base, _among_noise(asked, rng) if seed % 2 else asked, labelled, index, withheld, found)
    return found


def _answer(
    base: KnowledgeBase, asked: Case, labelled: EvalCase, index: int, withheld: set[str], found: Sample
) -> None:
    read = evidence.read(asked.log)
    hits = [hit for hit in base.hits(read.pieces) if hit.entry.name not in withheld]
    candidates = refine.apply(asked, read, rank(hits))
    if candidates:
        found.features.append(confidence.features(candidates))
        found.right.append(candidates[0].cause in (labelled.root_cause, labelled.alt_root_cause))
        found.case.append(index)


def _among_noise(case: Case, rng: random.Random) -> Case:
    """The same log with lines of somebody's everyday trouble after its preamble."""
    lines = case.log.text.split("\n")
    stamp = next((line.split("]")[0] + "]" for line in lines if line.startswith("[20")), "")
    place = min(len(lines), rng.randint(5, 10))
    noise = [f"{stamp} {line}" for line in (*rng.choice(HARMLESS), "INFO - batch 1 done")]
    log = case.log.model_copy(update={"text": "\n".join([*lines[:place], *noise, *lines[place:]])})
    return case.model_copy(update={"log": log})


def fit(found: Sample) -> tuple[list[float], float]:
    """Bias and the weight of each feature, and the cross-validated calibration error."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GroupKFold, cross_val_predict

    features, right = np.array(found.features), np.array(found.right)
    curve = LogisticRegression(C=10, max_iter=3000)
    unseen = cross_val_predict(
        curve, features, right, groups=found.case, cv=GroupKFold(FOLDS), method="predict_proba"
    )[:, 1]
    curve.fit(features, right)
    numbers = [float(curve.intercept_[0]), *(float(weight) for weight in curve.coef_[0])]
    return numbers, calibration_error(list(unseen), found.right)


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--without", default="\0", metavar="PREFIX", help="entries written from these cases")
    chosen = parser.parse_args()
    cases = [case for path in chosen.cases for case in read_cases(path) if case.labelled]
    numbers, error = fit(sample(cases, chosen.rounds, chosen.without))
    names = ("bias", "score", "margin", "agreed", "disputed", "worded")
    print("\n".join(f"{name}: {number:.2f}" for name, number in zip(names, numbers, strict=True)))  # noqa: T201
    print(f"# {len(cases)} cases, calibration error of {FOLDS} folds {error:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
