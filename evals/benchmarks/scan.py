"""How fast a log is read and diagnosed: `python -m evals.benchmarks.scan`."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from evals.benchmarks.report import Report, Row, finish
from graph.domain import TaskLog
from tools.diagnosis import Case
from tools.evidence_lines import CHUNK, excerpt_of
from tools.knowledge import KnowledgeBase

LARGE = 50_000_000  # bytes
SMALL = 100_000
ROUNDS = 15

_ENDING = (
    "[2026-03-02T04:10:02.100000Z] ERROR - Task failed with exception\n"
    "Traceback (most recent call last):\n"
    '  File "/opt/airflow/dags/load.py", line 10, in load\n'
    'psycopg2.errors.UniqueViolation: duplicate key value violates unique constraint "orders_pkey"\n'
)
_LINES = (
    "[2026-03-02T04:10:02.100000Z] INFO - batch {} of 90000 written, rows=5000 bytes=871233",
    "[2026-03-02T04:10:02.100000Z] INFO - 26/03/02 04:10:02 INFO TaskSetManager: Finished task {}",
    "[2026-03-02T04:10:02.100000Z] WARNING - source answered slowly, attempt {} took 2.1 s, retrying",
    "[2026-03-02T04:10:02.100000Z] INFO - GET /v1/orders?page={} HTTP/1.1 200",
    '[2026-03-02T04:10:02.100000Z] INFO - {{"level": "info", "event": "page_done", "page": {}}}',
)


def log_of(size: int, seed: int = 7) -> bytes:
    """A log of about this many bytes that ends in a failure."""
    rng = random.Random(seed)
    lines: list[str] = []
    length = 0
    while length < size:
        lines.append(rng.choices(_LINES, (45, 30, 3, 12, 10))[0].format(rng.randrange(90_000)))
        length += len(lines[-1]) + 1
    return ("\n".join(lines) + "\n" + _ENDING).encode()


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), CHUNK):
        yield data[start : start + CHUNK]


def measure() -> Report:
    """A long log as it streams in, and short ones."""
    base = KnowledgeBase.load()
    data = log_of(LARGE)
    begin = time.perf_counter()
    diagnosis = base.diagnose(Case(log=TaskLog(text=excerpt_of(_chunks(data)))))
    took = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - len(data) / 2**20
    times = []
    for text in [log_of(SMALL, seed).decode() for seed in range(ROUNDS)]:
        begin = time.perf_counter()
        base.diagnose(Case(log=TaskLog(text=text)))
        times.append((time.perf_counter() - begin) * 1000)
    lower = "lower"
    rows = (
        Row(name="50 MB log, streamed and diagnosed", value=took, unit="s", better=lower, target=3),
        Row(name="throughput", value=len(data) / took / 1e6, unit="MB/s", target=20),
        Row(name="100 kB log, median", value=median(times), unit="ms", better=lower, target=10),
        Row(name="largest size of the process", value=peak, unit="MB", better=lower, target=300),
    )
    notes = (
        f"the long log was diagnosed as {diagnosis.root_cause.value}; size without the log that is fed to it",
    )
    return Report(name="scan", title="reading logs, one core", rows=rows, notes=notes)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None) -> None:
    """Measure and print."""
    finish(measure(), report, typer.echo)


if __name__ == "__main__":
    app()
