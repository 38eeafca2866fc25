"""The outcome of a run as tables for the terminal, and as files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from evals.run import Outcome
from evals.scorers import Scores

SHOWN_CONFUSIONS = 12


def show(outcome: Outcome, console: Console) -> None:
    """Print everything a reader compares."""
    if outcome.scores is None:
        console.print(f"{len(outcome.cases)} cases predicted; none has labels, so nothing is scored.")
        return
    console.print(_classes(outcome.scores))
    console.print(_figures(outcome, outcome.scores))
    console.print(_baselines(outcome, outcome.scores))
    if outcome.scores.confusions:
        console.print(_confusions(outcome.scores))


def _classes(scores: Scores) -> Table:
    table = Table(title=f"root causes, {scores.cases} cases")
    table.add_column("root cause")
    for name in ("cases", "precision", "recall", "F1"):
        table.add_column(name, justify="right")
    for cause, rate in scores.per_class.items():
        table.add_row(
            cause.value, str(rate.support), *(f"{x:.3f}" for x in (rate.precision, rate.recall, rate.f1))
        )
    return table


def figures(outcome: Outcome, scores: Scores) -> dict[str, float]:
    """The figures of a run by name."""
    cases = max(len(outcome.cases), 1)
    return {
        "macro-F1": scores.macro_f1,
        "accuracy (strict)": scores.accuracy,
        "accuracy (lenient)": scores.accuracy_lenient,
        "coverage": scores.coverage,
        "precision on answered (strict)": scores.precision_answered,
        "precision on answered (lenient)": scores.precision_answered_lenient,
        "transient precision": scores.transient.precision,
        "transient recall": scores.transient.recall,
        "transient F1": scores.transient.f1,
        "remediation accuracy": scores.remediation_accuracy,
        "expected calibration error": scores.calibration_error,
        "evidence lines that exist": scores.cited,
        "decisive line quoted": scores.grounded,
        "seconds per case (mean)": outcome.seconds_mean,
        "seconds per case (median)": outcome.seconds_median,
        "model calls per case": sum(use.calls for use in outcome.uses) / cases,
        "tokens per case": sum(use.input_tokens + use.output_tokens for use in outcome.uses) / cases,
    }


def _figures(outcome: Outcome, scores: Scores) -> Table:
    table = Table(title="figures")
    table.add_column("figure")
    table.add_column("value", justify="right")
    for name, value in figures(outcome, scores).items():
        table.add_row(name, f"{value:.4f}" if name.startswith("seconds") else f"{value:.3f}")
    return table


def _baselines(outcome: Outcome, scores: Scores) -> Table:
    table = Table(title="against baselines, same run")
    table.add_column("who")
    table.add_column("macro-F1", justify="right")
    table.add_column("accuracy", justify="right")
    table.add_row("airmedic", f"{scores.macro_f1:.3f}", f"{scores.accuracy:.3f}")
    for name, (f1, accuracy) in outcome.baselines.items():
        table.add_row(name, f"{f1:.3f}", f"{accuracy:.3f}")
    return table


def _confusions(scores: Scores) -> Table:
    table = Table(title="confusions")
    table.add_column("labelled")
    table.add_column("predicted")
    table.add_column("cases", justify="right")
    for true, said, count in scores.confusions[:SHOWN_CONFUSIONS]:
        table.add_row(true.value, said.value, str(count))
    return table


def write_predictions(outcome: Outcome, path: Path) -> None:
    """One JSON object a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{p.model_dump_json()}\n" for p in outcome.predictions), "utf-8")


def write(outcome: Outcome, folder: Path) -> None:
    """`report.md`, `scores.json`, `predictions.jsonl` and `errors.jsonl` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_predictions(outcome, folder / "predictions.jsonl")
    if outcome.scores is None:
        return
    scores = outcome.scores
    data = {
        "figures": figures(outcome, scores),
        "per_class": {cause.value: asdict(rate) for cause, rate in scores.per_class.items()},
        "baselines": {n: {"macro_f1": f, "accuracy": a} for n, (f, a) in outcome.baselines.items()},
        "confusions": [[t.value, p.value, n] for t, p, n in scores.confusions],
    }
    (folder / "scores.json").write_text(json.dumps(data, indent=2) + "\n", "utf-8")
    with (folder / "report.md").open("w", encoding="utf-8") as file:
        show(outcome, Console(file=file, width=110))
    wrong = [
        {"id": c.id, "labelled": c.root_cause, "predicted": p.root_cause, "confidence": p.confidence}
        for c, p in zip(outcome.cases, outcome.predictions, strict=True)
        if c.root_cause is not None and c.root_cause is not p.root_cause
    ]
    (folder / "errors.jsonl").write_text("".join(json.dumps(row) + "\n" for row in wrong), "utf-8")
