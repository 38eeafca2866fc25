"""How fast a log is read and diagnosed: `python -m evals.benchmarks.scan`."""

from __future__ import annotations

import random
import resource
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from statistics import median

from rich.console import Console
from rich.table import Table

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


def main() -> None:
    """Print the figures."""
    base = KnowledgeBase.load()
    table = Table(title="reading logs, one core")
    table.add_column("what")
    table.add_column("value", justify="right")
    data = log_of(LARGE)
    begin = time.perf_counter()
    diagnosis = base.diagnose(Case(log=TaskLog(text=excerpt_of(_chunks(data)))))
    took = time.perf_counter() - begin
    table.add_row("50 MB log, streamed and diagnosed", f"{took:.2f} s ({diagnosis.root_cause.value})")
    table.add_row("throughput", f"{len(data) / took / 1e6:.0f} MB/s")
    small = [log_of(SMALL, seed).decode() for seed in range(ROUNDS)]
    times = []
    for text in small:
        begin = time.perf_counter()
        base.diagnose(Case(log=TaskLog(text=text)))
        times.append(time.perf_counter() - begin)
    table.add_row("100 kB log, median", f"{median(times) * 1e3:.1f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table.add_row("peak memory of the process, the 50 MB input included", f"{peak:.0f} MB")
    Console().print(table)


if __name__ == "__main__":
    ArgumentParser(prog="scan", description="How fast a log is read and diagnosed. No options.").parse_args()
    main()
