"""The curve of confidence is fitted on answers that are wrong as often as on unseen logs."""

from __future__ import annotations

from pathlib import Path

from evals.calibration import fit, fit_pool, sample
from evals.cases import read_cases
from tools.knowledge.confidence import Calibration
from tools.knowledge.pooling import Pool

CASES = Path(__file__).parents[2] / "evals" / "cases" / "other_technologies.jsonl"


def test_what_is_withheld_makes_errors_and_the_curve_rises() -> None:
    found = sample(read_cases(CASES), rounds=4)
    (_, score, margin, agreed, disputed, _), error = fit(found)

    assert 0.5 < sum(found.right) / len(found.right) < 1
    assert score > 0
    assert margin > 0
    assert agreed > disputed
    assert error < 0.05


def test_both_readers_count() -> None:
    (score, _, _, _, said, _), error = fit_pool(sample(read_cases(CASES), rounds=2))

    assert score > 0
    assert said > 0
    assert error < 0.08


def test_the_shipped_curve_knows_doubt() -> None:
    shipped = Calibration.load()
    both = Pool.load()

    assert 0.5 <= shipped.answer_from < shipped.ceiling < 1
    assert 0.3 <= both.answer_from < both.ceiling < 1
