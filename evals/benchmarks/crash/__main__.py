"""`airmedic bench crash`: kills, stops, cuts, fills and bends, and says whether every promise held."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from evals.benchmarks.crash import faults
from evals.benchmarks.crash.campaign import IN_TIME, Campaign, open_campaign
from evals.benchmarks.crash.databases import Postgres, open_postgres
from evals.benchmarks.crash.faults import Done
from evals.benchmarks.crash.judge import PROMISES, Event, Findings
from evals.benchmarks.crash.mutations import MUTATIONS
from evals.benchmarks.quiet import quiet
from evals.benchmarks.report import Report, Row, finish
from server.loop import run as run_loop

BROKEN = 1
SHOWN = 5  # broken promises that are told in full
STOCK_KILLS = 25
Database = Literal["sqlite", "postgres", "both"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Size:
    """How much is broken on one database."""

    kills: int
    zombies: int
    resets: int
    until: float  #: on the monotonic clock
    slow: float = 10.0  #: seconds
    restarts: int = 10
    full: int = 5
    jumps: int = 12
    phases: tuple[str, ...] = ()
    in_time: float = IN_TIME  #: seconds after the faults in which everything must have ended
    began: float = field(default_factory=time.monotonic)

    def by(self, share: float) -> float:
        """When this share of the time is over: the one phase leaves some to the next."""
        return self.began + share * (self.until - self.began)


@dataclass
class Told:
    """One database's campaign, judged."""

    database: str
    findings: Findings
    done: Done
    settled: dict[str, float] = field(default_factory=dict)  #: phase: seconds until everything was right
    seconds: float = 0.0
    stock: dict[str, float] = field(default_factory=dict)


Phase = Coroutine[Any, Any, None]
PHASES = ("kills", "zombies", "resets", "slow", "restarts", "disk", "clock")


def _phase(name: str, campaign: Campaign, size: Size, done: Done, postgres: Postgres | None) -> Phase | None:
    """One way of breaking it; None where it does not apply."""
    if name == "kills":
        return faults.kills(campaign, size.kills, done, until=size.by(0.5))
    if name == "zombies":
        return faults.zombies(campaign, size.zombies, done, until=size.by(0.8))
    if name == "resets":
        return faults.resets(campaign, size.resets, done, until=size.until)
    if name == "slow":
        return faults.slow(campaign, size.slow, done)
    if name == "restarts":
        if postgres is None:
            return None
        return faults.restarts(campaign, postgres, size.restarts, done, until=size.until)
    if name == "disk":
        return None if postgres else faults.disk_full(campaign, size.full, done)
    return faults.clock_jumps(campaign, size.jumps, done)


async def play(
    home: Path, size: Size, *, seed: int, postgres: Postgres | None = None, mutation: str = "", say: Say
) -> Told:
    """Every phase on one database; after each one the world must come right."""
    url = postgres.fresh() if postgres else f"sqlite:///{home / 'airmedic.db'}"
    began, done, late = time.monotonic(), Done(), list[Event]()
    told = Told("PostgreSQL" if postgres else "SQLite", Findings(), done)
    async with open_campaign(home, url, seed=seed, mutation=mutation) as campaign:
        campaign.in_time = size.in_time
        for name in size.phases:
            if (phase := _phase(name, campaign, size, done, postgres)) is None:
                continue
            campaign.go_on()
            async with _progress(campaign, f"{told.database}, {name}", done, say):
                await phase
                late += await campaign.settle()
            told.settled[name] = campaign.settled_in
        told.findings = await campaign.judge(late)
        done.counts["events answered 202"] = len(campaign.tried.accepted)
        done.counts["decisions of people"] = campaign.tried.decided
        for label, number in campaign.fleet.killed_at.items():
            done.counts[f"killed {label}"] += number
    told.seconds = time.monotonic() - began
    return told


@asynccontextmanager
async def _progress(campaign: Campaign, name: str, done: Done, say: Say) -> AsyncIterator[None]:
    async def each_second() -> None:
        while True:
            counts = " · ".join(f"{what} {number}" for what, number in done.counts.items())
            say(f"{name}: {len(campaign.tried.accepted)} events · {counts}")
            await asyncio.sleep(1)

    telling = asyncio.create_task(each_second())
    try:
        yield
    finally:
        telling.cancel()
        await asyncio.gather(telling, return_exceptions=True)


async def stock(url: str, kills: int, seed: int) -> dict[str, float]:
    """Share of killed runs of a stock graph that repeat their side effect, by durability."""
    shares = {}
    for how in ("sync", "async"):
        command = ["-m", "evals.benchmarks.crash.stock", url, str(kills), str(seed), how]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
        out, _ = await process.communicate()
        found = json.loads(out)
        shares[how] = 100 * found["repeated"] / max(found["killed"], 1)
    return shares


def report_of(played: Sequence[Told], *, seed: int) -> Report:
    """The table."""
    rows: list[Row] = []
    for one in played:
        found, name = one.findings, one.database
        counts = [(what, n) for what, n in one.done.counts.items() if not what.startswith("killed ")]
        labels = sum(n for what, n in one.done.counts.items() if what == "killed at a labelled point")
        counts += [("of them killed at a labelled point", labels)]
        counts += [("incidents", found.incidents), ("writes Airflow applied", found.writes)]
        counts += [("operations in the history", found.operations)]
        rows += [Row(name=f"{name}: {what}", value=float(n), unit="") for what, n in counts]
        rows.append(
            Row(
                name=f"{name}: all right again after the faults, at the latest",
                value=max(one.settled.values()),
                unit="s",
                better="lower",
                target=30,
            )
        )
        rows += [
            Row(
                name=f"{name}: {promise}",
                value=float(found.count(promise)),
                unit="",
                better="lower",
                target=0,
            )
            for promise in PROMISES
        ]
        rows += [
            Row(
                name=f"{name}: killed runs of a stock graph that repeat their side effect, {how}",
                value=share,
                unit="%",
                better="lower",
                baseline=True,
            )
            for how, share in one.stock.items()
        ]
    notes = [f"seed {seed}; outcomes: {_outcomes(played)}"]
    notes.append("left out: a full tablespace of PostgreSQL (needs a file system of its own)")
    return Report(name="crash", title="tried by breaking it", rows=tuple(rows), notes=tuple(notes))


def _outcomes(played: Sequence[Told]) -> str:
    words = [
        f"{one.database} " + ", ".join(f"{what} {n}" for what, n in one.findings.outcomes.most_common())
        for one in played
    ]
    return "; ".join(words)


def look_at(played: Sequence[Told], *, seed: int, say: Say) -> None:
    """Where to look when a promise broke."""
    for one in played:
        for broken in one.findings.broken[:SHOWN]:
            say(f"BROKEN on {one.database}, seed {seed}: {broken.promise}: {broken.dag} {broken.words}")
            say(broken.look)


@dataclass(frozen=True)
class Asked:
    """The options."""

    kills: int
    zombies: int
    resets: int
    seed: int
    database: Database
    minutes: float
    mutation: str = ""
    phases: tuple[str, ...] = PHASES
    stock: bool = True

    def sizes(self) -> dict[str, Size]:
        """Halves of it for two databases; most zombies on Postgres, where they are found by their silence."""
        both = self.database == "both"
        now = time.monotonic()
        share = self.minutes * 60 / (2 if both else 1)
        some = self.zombies // 20 if both else self.zombies
        sizes = {
            "sqlite": Size(
                self._half(both), some, self._half(both, "resets"), now + share, phases=self.phases
            ),
            "postgres": Size(
                self.kills - self._half(both) if both else self.kills,
                self.zombies - some if both else self.zombies,
                self.resets - self._half(both, "resets") if both else self.resets,
                now + self.minutes * 60,
                phases=self.phases,
            ),
        }
        return {name: size for name, size in sizes.items() if self.database in {name, "both"}}

    def _half(self, both: bool, what: str = "kills") -> int:
        number: int = getattr(self, what)
        return number // 2 if both else number


async def play_all(asked: Asked, home: Path, say: Say) -> list[Told]:
    """One database after the other, each beside the stock graph."""
    played = []
    for name, size in asked.sizes().items():
        with ExitStack() as stack:
            folder = home / name
            folder.mkdir()
            postgres = stack.enter_context(open_postgres(folder)) if name == "postgres" else None
            told = await play(
                folder, size, seed=asked.seed, postgres=postgres, mutation=asked.mutation, say=say
            )
            if asked.stock:
                address = postgres.fresh() if postgres else ""
                told.stock = await stock(address, STOCK_KILLS, asked.seed)
            played.append(told)
    return played


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    kills: Annotated[int, typer.Option(min=0, help="processes killed with -9")] = 2000,
    zombies: Annotated[int, typer.Option(min=0, help="processes stopped beyond their lease")] = 200,
    resets: Annotated[
        int, typer.Option(min=0, help="connections broken after a write reached Airflow")
    ] = 200,
    seed: Annotated[int, typer.Option(help="of what is drawn by lot")] = 1,
    database: Annotated[Database, typer.Option(help="sqlite, postgres or both")] = "both",
    minutes: Annotated[float, typer.Option(help="what does not fit is left out, and said")] = 60.0,
    mutation: Annotated[str, typer.Option(help=f"break a promise on purpose: {', '.join(MUTATIONS)}")] = "",
    only: Annotated[str, typer.Option(help=f"some of {', '.join(PHASES)}")] = ",".join(PHASES),
    report: Annotated[Path | None, typer.Option(help="folder for the JSON")] = None,
) -> None:
    """Break it; status 1 when a promise broke."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # nothing is left running either way
    asked = Asked(kills, zombies, resets, seed, database, minutes, mutation, tuple(only.split(",")))
    with tempfile.TemporaryDirectory(prefix="airmedic-crash-", ignore_cleanup_errors=True) as folder:
        os.chmod(folder, 0o755)  # PostgreSQL runs as somebody else when we are root
        played = run_loop(play_all(asked, Path(folder), typer.echo))
    finish(report_of(played, seed=seed), report, typer.echo)
    look_at(played, seed=seed, say=typer.echo)
    if any(one.findings.broken for one in played):
        raise typer.Exit(BROKEN)


if __name__ == "__main__":
    quiet()
    app()
