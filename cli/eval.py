"""`airmedic eval diagnosis`: how good the diagnosis is on a file of cases."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from cli.eval_faults import faults
from cli.plainly import complain
from graph.errors import AirmedicError, SettingsInvalid

if TYPE_CHECKING:
    from evals.cases import EvalCase
    from server.settings import Settings
    from tools.diagnosis import Diagnostician

WRONG_USE = 2

app = typer.Typer(
    help="Measure diagnoses of labelled logs, and healing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def measure() -> None:
    """Measure diagnoses of labelled logs, and healing."""


@app.command()
def diagnosis(
    cases: Annotated[Path, typer.Option(help="cases, one JSON object a line")],
    predictions: Annotated[Path | None, typer.Option(help="write one prediction a line here")] = None,
    report: Annotated[Path | None, typer.Option(help="write tables and figures into this folder")] = None,
    knowledge: Annotated[
        Path | None,
        typer.Option(envvar="AIRMEDIC_KNOWLEDGE", help="folder with knowledge files of your own"),
    ] = None,
    model: Annotated[bool, typer.Option("--model", help="ask the configured language model too")] = False,
    langsmith: Annotated[
        bool, typer.Option("--langsmith", help="also run as a LangSmith experiment")
    ] = False,
) -> None:
    """Diagnose every case, score it, and put baselines beside."""
    try:
        asyncio.run(_run(cases, predictions, report, knowledge, model=model, langsmith=langsmith))
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(WRONG_USE) from exc


async def _run(
    path: Path,
    predictions: Path | None,
    folder: Path | None,
    knowledge: Path | None,
    *,
    model: bool,
    langsmith: bool,
) -> None:
    from evals import report
    from evals.cases import read_cases
    from evals.run import Spending, open_diagnostician, run

    cases = read_cases(path)
    settings = _model_settings() if model else None
    spending = Spending()
    async with open_diagnostician(settings, spending, knowledge) as diagnostician:
        outcome = await run(cases, diagnostician, spending)
        report.show(outcome, Console())
        if predictions is not None:
            report.write_predictions(outcome, predictions)
        if folder is not None:
            report.write(outcome, folder)
        if langsmith:
            await _experiment(path, cases, diagnostician)


def _model_settings() -> Settings:
    from server.settings import load_settings

    settings = load_settings()
    if settings.llm_model is None:
        raise SettingsInvalid("--model: set AIRMEDIC_LLM_MODEL and its endpoint or key")
    return settings


async def _experiment(path: Path, cases: list[EvalCase], diagnostician: Diagnostician) -> None:
    if not os.environ.get("LANGSMITH_API_KEY"):
        typer.echo("LANGSMITH_API_KEY is not set: the same scorers ran here, nothing was sent.")
        return
    from langsmith import Client

    from evals.langsmith_run import dataset_name, experiment

    name = await experiment(Client(), dataset_name(path), cases, diagnostician)
    typer.echo(f"LangSmith experiment: {name}")


app.command(name="faults")(faults)
