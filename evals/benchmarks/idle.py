"""What a server costs that has nothing to do: `python -m evals.benchmarks.idle`."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Annotated

import psutil
import typer

from evals.benchmarks.ingest import serving
from evals.benchmarks.report import Report, Row, finish
from server.loop import run as run_loop

SETTLE = 8.0  # seconds after the start that are not counted


async def measure(folder: Path, seconds: float) -> Report:
    """Memory and processor time of an idle server without the console; its Airflow does not answer."""
    async with serving("ours", folder) as (_, number):
        process = psutil.Process(number)
        await asyncio.sleep(SETTLE)
        before = process.cpu_times()
        await asyncio.sleep(seconds)
        after = process.cpu_times()
        memory = process.memory_info().rss / 1e6
    used = (after.user + after.system - before.user - before.system) / seconds
    rows = (
        Row(name="memory", value=memory, unit="MB", better="lower"),
        Row(name="processor", value=used * 100, unit="% of a core", better="lower"),
    )
    return Report(name="idle", title="an idle server, console off", rows=rows)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seconds: Annotated[float, typer.Option(min=2, help="how long to look")] = 15.0,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-idle-") as folder:
        found = run_loop(measure(Path(folder), seconds))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    app()
