"""Ten thousand incidents that wait for people: memory beyond idle, and how soon one goes on when answered.

`python -m evals.benchmarks.parked`. Two hundred are brought to their question for real; the others are copies
of their rows and checkpoints.
"""

from __future__ import annotations

import gc
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import psutil
import typer
from sqlalchemy import text

from evals.benchmarks.herd import Clock, Herd, open_herd
from evals.benchmarks.quiet import quiet
from evals.benchmarks.report import Report, Row, finish
from graph.domain import Answer, AnswerKind, Door, FailureId, Role, Status
from server.loop import run as run_loop
from server.service import Service

REAL = 200

INCIDENTS = """
    INSERT INTO incident ({columns})
    SELECT {values} FROM incident WHERE id = :source
"""


def memory() -> float:
    """Megabytes of this process."""
    gc.collect()
    return psutil.Process().memory_info().rss / 1e6


async def park(service: Service, herd: Herd, clock: Clock, count: int) -> list[int]:
    """Bring so many to their question; their ids."""
    for number in range(count):
        task = await herd.add(f"dag_{number}", number, tags=())
        failure = FailureId(airflow="default", task=task, try_number=1)
        await service.store.accept([failure], door=Door.LISTENER, error="refused")
    while await service.intake.admit():
        pass
    await service.runner.settle_all()
    clock.forward(61)  # before people are asked there is time for others of the same cause
    await service.runner.settle_all()
    asking = [record.id for record in await service.store.asking()]
    assert len(asking) == count, len(asking)
    return asking


async def _copy(service: Service, asking: list[int], count: int) -> None:
    async with service.requests.engine.begin() as connection:
        listed = await connection.execute(text("SELECT * FROM incident LIMIT 0"))
        names = [name for name in tuple(listed.keys()) if name not in ("id", "open_key")]
        columns, values = ", ".join((*names, "open_key")), ", ".join((*names, ":key"))
        statement = text(INCIDENTS.format(columns=columns, values=values))
        rows = [
            {"source": asking[number % len(asking)], "key": f"copy {number}"}
            for number in range(count - len(asking))
        ]
        if rows:
            await connection.execute(statement, rows)
            await connection.execute(
                text(
                    "INSERT INTO checkpoint SELECT i.id, c.body FROM incident i "
                    "JOIN incident o ON o.dag_id = i.dag_id AND o.id < i.id "
                    "JOIN checkpoint c ON c.incident_id = o.id WHERE i.open_key LIKE 'copy %'"
                )
            )


async def measure(folder: Path, count: int, answers: int) -> Report:
    """Idle, parked, answered."""
    async with open_herd(f"sqlite:///{folder / 'parked.db'}", folder) as (service, herd, clock):
        real = await park(service, herd, clock, REAL)
        idle = memory()
        await _copy(service, real, count)
        for _ in range(20):
            await service.runner.drive_due()
        parked = memory()
        waiting = (await service.store.status_counts())[Status.WAITING_DECISION]
        times = []
        for incident_id in real[:answers]:
            record = await service.store.incident(incident_id)
            answer = Answer(kind=AnswerKind.REJECT, by="bench", role=Role.ADMIN, message="no")
            began = time.perf_counter()
            await service.store.answer(incident_id, version=record.version, answer=answer)
            await service.runner.settle_all()
            times.append((time.perf_counter() - began) * 1000)
    lower = "lower"
    rows = (
        Row(name="waiting for people", value=waiting, unit=""),
        Row(name="memory beyond idle", value=parked - idle, unit="MB", better=lower, target=50),
        Row(name="answered and gone on, p50", value=median(times), unit="ms", better=lower),
        Row(
            name="answered and gone on, p99",
            value=quantiles(times, n=100)[98],
            unit="ms",
            better=lower,
            target=150,
        ),
    )
    return Report(name="parked", title="incidents that wait for people, SQLite", rows=rows)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    count: Annotated[int, typer.Option(min=200, help="incidents that wait")] = 10_000,
    answers: Annotated[int, typer.Option(min=20, max=REAL, help="how many are answered")] = 100,
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-parked-") as folder:
        found = run_loop(measure(Path(folder), count, answers))
    finish(found, report, typer.echo)


if __name__ == "__main__":
    quiet()
    app()
