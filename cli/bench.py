"""`airmedic bench NAME`: each benchmark is a program of its own; none measures another's leftovers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated

import typer

BENCHMARKS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "scan": ("evals.benchmarks.scan", "throughput of log scanning"),
        "redaction": ("evals.benchmarks.redaction", "throughput and recall of redaction"),
        "heal": ("evals.benchmarks.heal", "a whole incident, beside bare LangGraph graphs"),
        "ingest": ("evals.benchmarks.ingest", "durable intake, beside an endpoint that stores nothing"),
        "list": ("evals.benchmarks.listing", "lists and searches over a million incidents"),
        "idle": ("evals.benchmarks.idle", "memory, processor and start of an idle server"),
        "consoles": ("evals.benchmarks.consoles", "what fifty open consoles cost"),
        "workers": ("evals.benchmarks.workers", "one and two workers, takeover (--postgres URL)"),
    }
)
QUICK = ("scan", "redaction", "heal", "ingest", "idle")  # minutes, and no database to bring

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def bench(
    context: typer.Context, name: Annotated[str, typer.Argument(help="which, or `all`")] = "--help"
) -> None:
    """Measure on this machine, each figure beside its baseline; status 1 when one misses its budget."""
    if name in {"--help", "-h"}:
        typer.echo("Usage: airmedic bench NAME [OPTIONS]\n\nMeasure on this machine, beside baselines.\n")
        for one, (_, what) in BENCHMARKS.items():
            typer.echo(f"  {one:<10} {what}")
        typer.echo(f"  {'all':<10} {', '.join(QUICK)}, one after another")
        typer.echo("\n`airmedic bench NAME --help` tells the options of one.")
        return
    if name != "all" and name not in BENCHMARKS:
        known = ", ".join(BENCHMARKS)
        typer.echo(f"airmedic: there is no benchmark {name!r}; there are {known} and all", err=True)
        raise typer.Exit(2)
    statuses = [asyncio.run(_run(one, context.args)) for one in (QUICK if name == "all" else (name,))]
    raise typer.Exit(max(statuses))


async def _run(name: str, options: list[str]) -> int:
    running = await asyncio.create_subprocess_exec(sys.executable, "-m", BENCHMARKS[name][0], *options)
    return await running.wait()
