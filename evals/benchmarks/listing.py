"""How fast incidents are listed and searched: `python -m evals.benchmarks.listing [--incidents N]`."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Annotated

import typer

from evals.benchmarks.listing_store import APART, START, fill_postgres, fill_sqlite
from evals.benchmarks.report import Report, Row, finish
from graph.domain import DomainType, Outcome, RootCause, Severity, Status
from server.db.database import open_database
from server.listing import IncidentQuery, Listing

LIMIT = 50
BUDGET = 50.0  # milliseconds, the 99th percentile

Asked = tuple[IncidentQuery, str | None]  #: and the cursor to go on from
Draw = Callable[[random.Random], Asked]


class Measured(DomainType):
    """One kind of question, asked many times; milliseconds."""

    name: str
    asked: int
    found: float  #: rows on a page, on average
    p50: float
    p99: float
    cpu_p99: float  #: the same in processor time, which a busy machine does not blur


def questions(count: int) -> dict[str, Draw]:
    """What is asked of a store of so many, by name."""
    return {
        "newest page": _asks(),
        "deep page": lambda rng: (IncidentQuery(), str(rng.randrange(1, count))),
        "what asks a person": _asks(statuses=[Status.WAITING_DECISION]),
        "one DAG, one outcome": _of_one_dag,
        "four filters, any depth": _often_deep(_combined, count),
        "a week, one severity": partial(_in_a_week, whole=APART * count),
        "one word": _word,
        "three words or more, any depth": _often_deep(_words, count),
        "a word's beginning": _beginning,
        "words and a filter, oldest first": _searched_and_filtered,
        "last changed, one severity": _asks(severities=[Severity.HIGH], sort="updated"),
    }


def _asks(**given: object) -> Draw:
    return lambda _rng: (IncidentQuery.model_validate(given), None)


def _often_deep(draw: Callable[[random.Random], IncidentQuery], count: int) -> Draw:
    """Every other time from a place in the middle on."""
    return lambda rng: (draw(rng), str(rng.randrange(1, count)) if rng.random() < 0.5 else None)


def _of_one_dag(rng: random.Random) -> Asked:
    dag = f"orders_{rng.choice(('daily', 'hourly'))}_{rng.randrange(10)}"
    return IncidentQuery(dags=(dag,), outcomes=(rng.choice(list(Outcome)),)), None


def _combined(rng: random.Random) -> IncidentQuery:
    return IncidentQuery(
        severities=(rng.choice(list(Severity)),),
        causes=(rng.choice(list(RootCause)), rng.choice(list(RootCause))),
        outcomes=(rng.choice(list(Outcome)),),
        statuses=(rng.choice((Status.CLOSED, Status.ESCALATED, Status.WAITING_DECISION)),),
    )


def _in_a_week(rng: random.Random, *, whole: timedelta) -> Asked:
    since = START + whole * rng.random()
    return IncidentQuery(since=since, until=since + timedelta(days=7), severities=(Severity.LOW,)), None


def _word(rng: random.Random) -> Asked:
    words = ("network", "billing", f"db{rng.randrange(400)}", f"row {rng.randrange(10**7)}", "nowhere")
    return IncidentQuery(text=rng.choice(words)), None


def _words(rng: random.Random) -> IncidentQuery:
    cause = rng.choice(list(RootCause)).value.replace("_", " ")
    return IncidentQuery(text=f"{rng.choice(('orders', 'payroll'))} {cause} db{rng.randrange(400)}")


def _beginning(rng: random.Random) -> Asked:
    whole = rng.choice(("customers", "kubernetespodoperator", "internal", "connection", "scheduled"))
    return IncidentQuery(text=whole[: rng.randrange(2, len(whole) + 1)]), None


def _searched_and_filtered(rng: random.Random) -> Asked:
    query = IncidentQuery(
        text=f"shipping db{rng.randrange(400)}", outcomes=(rng.choice(list(Outcome)),), sort="oldest"
    )
    return query, None


async def measure(database_url: str, count: int, *, rounds: int) -> list[Measured]:
    """Ask everything `rounds` times, a page at a time, records built."""
    rng = random.Random(5)
    measured = []
    async with open_database(database_url) as engine:
        listing = Listing(engine)
        for name, draw in questions(count).items():
            times: list[float] = []
            used: list[float] = []
            found = 0
            for turn in range(rounds + 3):
                query, cursor = draw(rng)
                begin, worked = time.perf_counter(), time.process_time()
                page = await listing.page(query, cursor=cursor, limit=LIMIT)
                if turn >= 3:  # the first fill the caches
                    times.append((time.perf_counter() - begin) * 1000)
                    used.append((time.process_time() - worked) * 1000)
                    found += len(page.items)
            measured.append(
                Measured(
                    name=name,
                    asked=rounds,
                    found=round(found / rounds, 1),
                    p50=round(median(times), 2),
                    p99=round(quantiles(times, n=100)[98], 2),
                    cpu_p99=round(quantiles(used, n=100)[98], 2),
                )
            )
    return measured


async def _prepare(database_url: str) -> None:
    async with open_database(database_url):
        pass


def report_of(measured: list[Measured], kind: str, incidents: int, *, filled: float, size: int) -> Report:
    """The slowest question before all the others."""
    ms, lower = "ms", "lower"
    rows = [
        Row(
            name="slowest question, p99", value=max(one.p99 for one in measured), unit=ms, better=lower,
            target=BUDGET,
        )
    ]  # fmt: skip
    for one in measured:
        rows.append(Row(name=f"{one.name}, p50", value=one.p50, unit=ms, better=lower))
        rows.append(Row(name=f"{one.name}, p99", value=one.p99, unit=ms, better=lower, target=BUDGET))
        rows.append(Row(name=f"{one.name}, p99 of processor time", value=one.cpu_p99, unit=ms, better=lower))
    if size:
        rows.append(Row(name="stored for an incident", value=size / incidents, unit="bytes", better=lower))
    found = "; ".join(f"{one.name} {one.found:g}" for one in measured)
    notes = (f"filled in {filled:.0f} s, each asked {measured[0].asked} times; rows on a page: {found}",)
    title = f"lists and searches over {incidents:,} incidents, {kind}"
    return Report(name="list", title=title, rows=tuple(rows), notes=notes)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    incidents: Annotated[int, typer.Option(min=1000, help="how many to fill the store with")] = 1_000_000,
    rounds: Annotated[int, typer.Option(min=20, help="how often each question is asked")] = 200,
    postgres: Annotated[str, typer.Option(help="URL of an empty PostgreSQL database; else SQLite")] = "",
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Fill a store of its own, ask it, and print."""
    with tempfile.TemporaryDirectory(prefix="airmedic-listing-") as folder:
        file = Path(folder) / "airmedic.db"
        url = postgres or f"sqlite:///{file}"
        asyncio.run(_prepare(url))
        begin = time.perf_counter()
        if postgres:
            fill_postgres(postgres, incidents)
        else:
            fill_sqlite(str(file), incidents)
        filled = time.perf_counter() - begin
        measured = asyncio.run(measure(url, incidents, rounds=rounds))
        size = 0 if postgres else file.stat().st_size
    kind = "PostgreSQL" if postgres else "SQLite"
    finish(report_of(measured, kind, incidents, filled=filled, size=size), report, typer.echo)


if __name__ == "__main__":
    app()
