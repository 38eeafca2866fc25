"""What a prediction is worth. Plain functions: our own loop and LangSmith call the same ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from evals.cases import EvalCase
from graph.domain import Diagnosis, EvidenceLine, Remediation, RootCause

BINS = 10


class Prediction(BaseModel):
    """One row of a predictions file."""

    model_config = ConfigDict(frozen=True)

    id: str
    root_cause: RootCause
    transient: bool
    remediation: Remediation
    confidence: float
    evidence: tuple[EvidenceLine, ...] = ()
    by: str = ""

    @classmethod
    def of(cls, case_id: str, diagnosis: Diagnosis, log: str) -> Prediction:
        """The part of a diagnosis that is scored; lines are quoted whole out of `log`, as redacted."""
        lines = log.split("\n")
        return cls(
            id=case_id,
            root_cause=diagnosis.root_cause,
            transient=diagnosis.transient,
            remediation=diagnosis.remediation,
            confidence=diagnosis.confidence,
            evidence=tuple(_whole(one, lines) for one in diagnosis.evidence),
            by=diagnosis.by.value,
        )

    @property
    def answered(self) -> bool:
        """`unknown` abstains."""
        return self.root_cause is not RootCause.UNKNOWN


def _whole(quoted: EvidenceLine, lines: Sequence[str]) -> EvidenceLine:
    """The quoted line at full length: a diagnosis keeps the head of an endless one."""
    printed = lines[quoted.line - 1].rstrip("\r") if quoted.line <= len(lines) else ""
    return EvidenceLine(line=quoted.line, text=printed) if printed.startswith(quoted.text) else quoted


@dataclass(frozen=True, slots=True)
class Rates:
    """Precision, recall and F1 of one thing."""

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Scores:
    """Figures of one run over labelled cases."""

    cases: int
    per_class: dict[RootCause, Rates]
    macro_f1: float
    accuracy: float
    accuracy_lenient: float  #: a defensible second label counts as right
    coverage: float
    precision_answered: float  #: strict
    precision_answered_lenient: float
    transient: Rates
    remediation_accuracy: float
    calibration_error: float
    cited: float  #: answers whose every evidence line exists in the log as quoted
    grounded: float  #: of cases with a decisive part, those that quote it
    confusions: tuple[tuple[RootCause, RootCause, int], ...] = field(default=())


def right(case: EvalCase, prediction: Prediction, *, lenient: bool) -> bool:
    """The predicted cause is the label, or (leniently) the other defensible one."""
    if prediction.root_cause is case.root_cause:
        return True
    return lenient and prediction.root_cause is case.alt_root_cause


def cites_existing_lines(log: str, prediction: Prediction) -> bool:
    """Every evidence line exists in the log and reads as quoted; an answer quotes at least one."""
    lines = log.split("\n")
    if prediction.answered and not prediction.evidence:
        return False
    return all(e.line <= len(lines) and lines[e.line - 1].rstrip("\r") == e.text for e in prediction.evidence)


def quotes_decisive(case: EvalCase, prediction: Prediction) -> bool:
    """The part of the log that decides is in an evidence line."""
    return case.decisive is not None and any(case.decisive in e.text for e in prediction.evidence)


def rates(true: Sequence[bool], predicted: Sequence[bool]) -> Rates:
    """Of two aligned lists of yes and no."""
    hits = sum(t and p for t, p in zip(true, predicted, strict=True))
    said, support = sum(predicted), sum(true)
    precision = hits / said if said else 0.0
    recall = hits / support if support else 0.0
    f1 = 2 * hits / (said + support) if hits else 0.0
    return Rates(precision, recall, f1, support)


def per_class(true: Sequence[RootCause], predicted: Sequence[RootCause]) -> dict[RootCause, Rates]:
    """Rates of every cause that occurs in the labels."""
    return {
        cause: rates([t is cause for t in true], [p is cause for p in predicted])
        for cause in RootCause
        if cause in true
    }


def macro_f1(true: Sequence[RootCause], predicted: Sequence[RootCause]) -> float:
    """Mean F1 over the causes in the labels: a rare cause counts as much as a frequent one."""
    return _mean([r.f1 for r in per_class(true, predicted).values()])


def calibration_error(confidences: Sequence[float], correct: Sequence[bool]) -> float:
    """Expected calibration error over ten equal bins."""
    if not confidences:
        return 0.0
    error = 0.0
    for index in range(BINS):
        inside = [i for i, c in enumerate(confidences) if min(int(c * BINS), BINS - 1) == index]
        if inside:
            gap = _mean([confidences[i] for i in inside]) - _mean([float(correct[i]) for i in inside])
            error += abs(gap) * len(inside) / len(confidences)
    return error


def score(
    cases: Sequence[EvalCase], predictions: Sequence[Prediction], logs: dict[str, str] | None = None
) -> Scores:
    """All figures. `logs` are the redacted logs by case id, for checking citations."""
    pairs = [
        (case, prediction)
        for case, prediction in zip(cases, predictions, strict=True)
        if case.root_cause is not None
    ]
    true = [case.root_cause for case, _ in pairs if case.root_cause is not None]
    said = [prediction.root_cause for _, prediction in pairs]
    strict = [right(case, prediction, lenient=False) for case, prediction in pairs]
    lenient = [right(case, prediction, lenient=True) for case, prediction in pairs]
    answered = [i for i, (_, prediction) in enumerate(pairs) if prediction.answered]
    timed = [(c.transient, p.transient) for c, p in pairs if c.transient is not None]
    mended = [c.remediation is p.remediation for c, p in pairs if c.remediation is not None]
    decisive = [quotes_decisive(c, p) for c, p in pairs if c.decisive is not None]
    wrong = Counter((t, p) for t, p in zip(true, said, strict=True) if t is not p)
    return Scores(
        cases=len(pairs),
        per_class=per_class(true, said),
        macro_f1=macro_f1(true, said),
        accuracy=_mean(strict),
        accuracy_lenient=_mean(lenient),
        coverage=len(answered) / len(pairs) if pairs else 0.0,
        precision_answered=_mean([strict[i] for i in answered]),
        precision_answered_lenient=_mean([lenient[i] for i in answered]),
        transient=rates([bool(t) for t, _ in timed], [p for _, p in timed]),
        remediation_accuracy=_mean(mended),
        calibration_error=calibration_error(
            [pairs[i][1].confidence for i in answered], [lenient[i] for i in answered]
        ),
        cited=_mean([cites_existing_lines((logs or {}).get(c.id, c.log), p) for c, p in pairs]),
        grounded=_mean(decisive),
        confusions=tuple((t, p, n) for (t, p), n in wrong.most_common()),
    )


def _mean(values: Sequence[float | bool]) -> float:
    return sum(values) / len(values) if values else 0.0
