"""`airmedic eval faults`: every fault of the catalogue on a real Airflow or its twin, healed and judged."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from cli.plainly import complain
from graph.errors import AirmedicError, SettingsInvalid

if TYPE_CHECKING:
    from evals.faults.catalogue import FaultRow
    from evals.faults.results import Result

NOT_RIGHT, WRONG_USE, INTERRUPTED = 1, 2, 130
BENCH_HOME = Path(".airmedic/bench")


class Where(StrEnum):
    """Which Airflow the faults are played on."""

    REAL = "real"
    MEMORY = "memory"


@dataclass(frozen=True)
class Asked:
    """What the command line asks for."""

    rows: list[FaultRow]
    repeat: int
    home: Path
    folder: Path | None
    airflow: Where
    lanes: int
    fresh: bool
    verbose: bool
    langsmith: bool


def chosen(ids: str | None, airflow: Where = Where.REAL) -> list[FaultRow]:
    """The rows to play. Raises `SettingsInvalid` naming what cannot be played."""
    from evals.faults.catalogue import CATALOGUE
    from evals.faults.injections import INJECTIONS
    from evals.faults.twin_rows import NOT_IN_MEMORY

    there = set(INJECTIONS) - (set(NOT_IN_MEMORY) if airflow is Where.MEMORY else set())
    if ids is None:
        return [row for row in CATALOGUE.values() if row.id in there]
    wanted = list(dict.fromkeys(one.strip().upper() for one in ids.split(",") if one.strip()))
    for one in wanted:
        if one not in CATALOGUE:
            raise SettingsInvalid(
                f"--ids: there is no fault {one!r}; the catalogue has F01 to F{len(CATALOGUE)}"
            )
        if one not in there:
            why = NOT_IN_MEMORY.get(one, "it cannot be injected yet")
            raise SettingsInvalid(f"--ids: {one} cannot be played on this Airflow: {why}")
    if not wanted:
        raise SettingsInvalid("--ids: name at least one fault, like F01,F07")
    return [CATALOGUE[one] for one in wanted]


def faults(
    ids: Annotated[str | None, typer.Option(help="only these, in order, like F01,F07")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="how often each is played")] = 1,
    airflow: Annotated[
        Where, typer.Option(help="a real Airflow, or the in-memory one for the faults it can show")
    ] = Where.REAL,
    lanes: Annotated[
        int, typer.Option(min=1, max=8, help="how many Airflows play at the same time, each in its process")
    ] = 1,
    report: Annotated[Path | None, typer.Option(help="write JSON and a readable report here")] = None,
    home: Annotated[Path, typer.Option(help="where Airflow and what is done are kept")] = BENCH_HOME,
    fresh: Annotated[bool, typer.Option("--fresh", help="forget earlier results")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="tell what Airmedic does")] = False,
    langsmith: Annotated[
        bool, typer.Option("--langsmith", help="also as a LangSmith experiment (needs LANGSMITH_API_KEY)")
    ] = False,
) -> None:
    """Break a real pipeline in every way of the catalogue, judge how it heals; goes on where it stopped."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        rows = chosen(ids, airflow)
        asked = Asked(rows, repeat, home, report, airflow, lanes, fresh, verbose, langsmith)
        status = asyncio.run(_run(asked))
    except KeyboardInterrupt:
        typer.echo("ended; the same command goes on from here")
        status = INTERRUPTED
    except AirmedicError as exc:
        complain(exc)
        status = WRONG_USE
    raise typer.Exit(status)


async def _run(asked: Asked) -> int:
    from evals.faults.bench import run_bench
    from evals.faults.notebook import forget
    from evals.faults.report import show, write
    from evals.faults.twin import run_on_twin

    if asked.airflow is Where.MEMORY:
        results = await run_on_twin(asked.rows, repeat=asked.repeat, home=asked.home, tell=typer.echo)
    else:
        if asked.fresh:
            forget(asked.home, asked.rows)
        results = await run_bench(
            asked.rows,
            repeat=asked.repeat,
            home=asked.home,
            tell=typer.echo,
            verbose=asked.verbose,
            lanes=asked.lanes,
        )
    show(results, tell=typer.echo)
    if asked.folder is not None:
        write(results, asked.folder, airflow=asked.airflow.value)
        typer.echo(f"report: {asked.folder / 'report.html'}")
    if asked.langsmith:
        await _experiment(results, asked.airflow)
    return 0 if all(one.right for one in results) else NOT_RIGHT


async def _experiment(results: list[Result], airflow: Where) -> None:
    if not os.environ.get("LANGSMITH_API_KEY"):
        typer.echo("LANGSMITH_API_KEY is not set: the same scorers ran here, nothing was sent.")
        return
    from langsmith import Client

    from evals.faults.langsmith_run import dataset_name, experiment

    name = await experiment(Client(), dataset_name(airflow.value), results)
    typer.echo(f"LangSmith experiment: {name}")
