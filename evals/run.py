"""Runs cases through a diagnostician and scores them, without any network of its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median

from evals import baselines, scorers
from evals.cases import EvalCase
from evals.scorers import Prediction, Scores
from graph.domain import RootCause
from server.settings import Settings
from tools.diagnosis import Case, Diagnostician
from tools.knowledge import KnowledgeBase, KnowledgeDiagnostician
from tools.llm_usage import ModelUse


@dataclass(slots=True)
class Spending:
    """What a language model cost over a run."""

    uses: list[ModelUse] = field(default_factory=list)

    def note(self, case: Case, use: ModelUse) -> None:
        """Called once for each case that the model was asked about."""
        self.uses.append(use)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A finished run."""

    cases: list[EvalCase]
    predictions: list[Prediction]
    seconds: list[float]  #: per case, the diagnosis alone
    scores: Scores | None  #: None when no case has a label
    baselines: dict[str, tuple[float, float]]  #: name: macro-F1, accuracy
    uses: tuple[ModelUse, ...] = ()

    @property
    def seconds_mean(self) -> float:
        return mean(self.seconds) if self.seconds else 0.0

    @property
    def seconds_median(self) -> float:
        return median(self.seconds) if self.seconds else 0.0


async def run(cases: Sequence[EvalCase], diagnostician: Diagnostician, spending: Spending) -> Outcome:
    """Diagnose every case, score those with labels, and put the baselines beside."""
    predictions: list[Prediction] = []
    seconds: list[float] = []
    logs: dict[str, str] = {}
    for case in cases:
        asked = case.to_case()
        logs[case.id] = asked.log.text
        begin = time.perf_counter()
        diagnosis = await diagnostician.diagnose(asked)
        seconds.append(time.perf_counter() - begin)
        predictions.append(Prediction.of(case.id, diagnosis, asked.log.text))
    labelled = [case for case in cases if case.labelled]
    scores = scorers.score(cases, predictions, logs) if labelled else None
    return Outcome(list(cases), predictions, seconds, scores, compare(labelled), tuple(spending.uses))


def compare(labelled: Sequence[EvalCase]) -> dict[str, tuple[float, float]]:
    """Macro-F1 and accuracy of the baselines on the same cases."""
    true = [case.root_cause for case in labelled if case.root_cause is not None]
    if not true:
        return {}
    guesses: dict[str, list[RootCause] | None] = {
        "majority class": baselines.majority(true),
        "keyword list": baselines.keywords([case.log for case in labelled]),
        f"TF-IDF + logistic regression ({baselines.FOLDS}-fold)": baselines.tfidf(labelled),
    }
    return {
        name: (
            scorers.macro_f1(true, guess),
            sum(t is g for t, g in zip(true, guess, strict=True)) / len(true),
        )
        for name, guess in guesses.items()
        if guess is not None
    }


@asynccontextmanager
async def open_diagnostician(
    settings: Settings | None, spending: Spending, folder: Path | None = None
) -> AsyncIterator[Diagnostician]:
    """Knowledge alone; with settings that name a model, the model behind it. `folder` is the user's own."""
    folder = folder or (settings.knowledge if settings is not None else None)
    knowledge = KnowledgeDiagnostician(KnowledgeBase.load(folder))
    if settings is None:
        yield knowledge
        return
    from server.diagnosing import model_settings
    from tools.llm import ModelDiagnostician
    from tools.llm_endpoint import open_model

    # The same settings as in service: endpoint, key, prices.
    chosen = model_settings(settings)
    if chosen is None:
        yield knowledge
        return
    async with open_model(chosen) as endpoint:
        yield ModelDiagnostician(knowledge, endpoint, chosen, on_use=spending.note)
