"""`airmedic eval faults`: every fault of the catalogue on a real Airflow, healed and judged."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer

from graph.errors import AirmedicError, SettingsInvalid

if TYPE_CHECKING:
    from evals.faults.catalogue import FaultRow

NOT_RIGHT, WRONG_USE, INTERRUPTED = 1, 2, 130
BENCH_HOME = Path(".airmedic/bench")


def chosen(ids: str | None) -> list[FaultRow]:
    """The rows to play. Raises `SettingsInvalid` naming what cannot be played."""
    from evals.faults.catalogue import CATALOGUE
    from evals.faults.injections import INJECTIONS

    if ids is None:
        return [row for row in CATALOGUE.values() if row.id in INJECTIONS]
    wanted = list(dict.fromkeys(one.strip().upper() for one in ids.split(",") if one.strip()))
    for one in wanted:
        if one not in CATALOGUE:
            raise SettingsInvalid(
                f"--ids: there is no fault {one!r}; the catalogue has F01 to F{len(CATALOGUE)}"
            )
        if one not in INJECTIONS:
            raise SettingsInvalid(f"--ids: {one} cannot be injected yet")
    if not wanted:
        raise SettingsInvalid("--ids: name at least one fault, like F01,F07")
    return [CATALOGUE[one] for one in wanted]


def faults(
    ids: Annotated[str | None, typer.Option(help="only these, in order, like F01,F07")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="how often each is played")] = 1,
    report: Annotated[Path | None, typer.Option(help="write JSON and a readable report here")] = None,
    home: Annotated[Path, typer.Option(help="where Airflow and what is done are kept")] = BENCH_HOME,
    fresh: Annotated[bool, typer.Option("--fresh", help="forget earlier results")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="tell what Airmedic does")] = False,
) -> None:
    """Break a real pipeline in every way of the catalogue, judge how it heals; goes on where it stopped."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        rows = chosen(ids)
        status = asyncio.run(_run(rows, repeat, report, home, fresh=fresh, verbose=verbose))
    except KeyboardInterrupt:
        typer.echo("ended; the same command goes on from here")
        status = INTERRUPTED
    except AirmedicError as exc:
        typer.echo(f"airmedic: {exc}", err=True)
        status = WRONG_USE
    raise typer.Exit(status)


async def _run(
    rows: list[FaultRow], repeat: int, folder: Path | None, home: Path, *, fresh: bool, verbose: bool
) -> int:
    from evals.faults.bench import forget, run_bench
    from evals.faults.report import show, write

    if fresh:
        forget(home, rows)
    results = await run_bench(rows, repeat=repeat, home=home, tell=typer.echo, verbose=verbose)
    show(results, tell=typer.echo)
    if folder is not None:
        write(results, folder)
        typer.echo(f"report: {folder / 'report.html'}")
    return 0 if all(one.right for one in results) else NOT_RIGHT
