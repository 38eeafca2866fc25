"""Fits the confidence of answers: `python -m evals.calibration --cases FILE…` prints the numbers to ship.

Knowledge that was written with the cases in sight answers them nearly all, so they alone would teach
nothing of doubt. Every round withholds a random share of the entries and mixes harmless lines into the logs:
what is left is wrong as often as on logs never seen. The second reader's weights are learned without the
case it is asked about. Cross-validated over cases: no case is judged by numbers fitted on it.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from evals import learning
from evals.cases import EvalCase, read_cases
from evals.scorers import calibration_error
from graph.domain import RootCause
from tools import evidence
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase, confidence, entries, learned, pooling, refine
from tools.knowledge.lexicon import Lexicon
from tools.knowledge.ranking import Candidate, rank

WITHHELD = (0.1, 0.3, 0.5, 0.65)  # shares of the entries
FOLDS = 5
ALSO = 0.5  #: what the second of two right causes counts
REGULAR = 0.25
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
    """What is fitted on: features of an answer, whether it was right, its case; the same for both readers."""

    features: list[confidence.Features] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    case: list[int] = field(default_factory=list)
    pooled: list[list[pooling.Row]] = field(default_factory=list)  #: a row for each cause
    named: list[list[float]] = field(default_factory=list)  #: 1 for the cause, `ALSO` for the other right one
    asked: list[int] = field(default_factory=list)  #: the cases of both


def sample(cases: Sequence[EvalCase], rounds: int, without: Sequence[str] = ()) -> Sample:
    """Answer every case `rounds` times, each time with other entries withheld; those `without` always."""
    base = KnowledgeBase.load()
    margins = unseen_margins(cases, without)
    found = Sample()
    for seed in range(rounds):
        rng = random.Random(seed)
        share = WITHHELD[seed % len(WITHHELD)]
        withheld = {
            entry.name
            for entry in base.entries
            if entry.name.startswith(tuple(without)) or _drawn(seed, entry.name) < share
        }
        for index, labelled in enumerate(cases):
            asked = labelled.to_case()
            asked = _among_noise(asked, rng) if seed % 2 else asked
            candidates = _answer(base, asked, labelled, index, withheld, found)
            _both(candidates, margins[index], labelled, found)
            found.asked.append(index)
    return found


def _drawn(seed: int, name: str) -> float:
    """By its name: an entry more does not change which others are withheld."""
    return random.Random(f"{seed} {name}").random()


def unseen_margins(cases: Sequence[EvalCase], without: Sequence[str]) -> list[dict[RootCause, float]]:
    """What the second reader says of each case, learned from all other logs."""
    asked = [learning.of_case(case) for case in cases]
    known = {learning.row_of(text) for text in asked}
    others = [text for text in learning.logs() if learning.row_of(text) not in known]
    lexicon = Lexicon.load(entries.load().causes)
    texts = [*asked, *others, *learning.texts_of_knowledge(without)]
    found = [learned.features(text.read, lexicon) for text in texts]
    causes, margins = learning.crossed(texts, found, len(asked))
    return [dict(zip(map(RootCause, causes), map(float, row), strict=True)) for row in margins]


def _both(
    candidates: list[Candidate], margins: dict[RootCause, float], labelled: EvalCase, found: Sample
) -> None:
    told = pooling.rows(candidates, margins)
    right = {labelled.alt_root_cause: ALSO, labelled.root_cause: 1.0}
    found.pooled.append(list(told.values()))
    found.named.append([right.get(cause, 0.0) for cause in told])


def _answer(
    base: KnowledgeBase, asked: Case, labelled: EvalCase, index: int, withheld: set[str], found: Sample
) -> list[Candidate]:
    read = evidence.read(asked.log)
    hits = [hit for hit in base.hits(read.pieces) if hit.entry.name not in withheld]
    candidates = refine.apply(asked, read, rank(hits))
    if candidates:
        found.features.append(confidence.features(candidates))
        found.right.append(candidates[0].cause in (labelled.root_cause, labelled.alt_root_cause))
        found.case.append(index)
    return candidates


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


def fit_pool(found: Sample) -> tuple[list[float], float]:
    """How much each part of what both readers say counts, and the cross-validated calibration error."""
    from sklearn.model_selection import GroupKFold

    told, named = np.array(found.pooled), np.array(found.named)
    sure, right = np.zeros(len(told)), np.zeros(len(told), bool)
    for kept, asked in GroupKFold(FOLDS).split(told, groups=found.asked):
        chances = _chances(told[asked], _most_likely(told[kept], named[kept]))
        sure[asked] = chances.max(axis=1)
        right[asked] = named[asked, chances.argmax(axis=1)] > 0
    return [float(w) for w in _most_likely(told, named)], calibration_error(list(sure), list(right))


def _chances(told: Any, weights: Any) -> Any:
    odds = told @ weights
    likely = np.exp(odds - odds.max(axis=1, keepdims=True))
    return likely / likely.sum(axis=1, keepdims=True)


def _most_likely(told: Any, named: Any) -> Any:
    """The weights under which what was right is most likely (conditional logit)."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]

    def loss(weights: Any) -> tuple[float, Any]:
        chances = _chances(told, weights)
        right = (chances * named).sum(axis=1) + 1e-12
        slope = np.einsum("nk,nkf->f", chances * named / right[:, None] - chances, told)
        return REGULAR * float(weights @ weights) - float(np.log(right).sum()), 2 * REGULAR * weights - slope

    return minimize(loss, np.zeros(told.shape[2]), jac=True, method="BFGS").x


def main() -> None:
    """Print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", nargs="+", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="PREFIX", help="entries written from these cases"
    )
    chosen = parser.parse_args()
    cases = [case for path in chosen.cases for case in read_cases(path) if case.labelled]
    found = sample(cases, chosen.rounds, chosen.without)
    for part, names, (numbers, error) in (
        ("pool", [one.name for one in fields(pooling.Pool)], fit_pool(found)),
        ("alone", [one.name for one in fields(confidence.Calibration)], fit(found)),
    ):
        print(f"{part}:")  # noqa: T201
        print("\n".join(f"  {name}: {number:.2f}" for name, number in zip(names, numbers, strict=False)))  # noqa: T201
        print(f"# {len(cases)} cases, calibration error of {FOLDS} folds {error:.4f}")  # noqa: T201


if __name__ == "__main__":
    main()
