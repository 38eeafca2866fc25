"""Real processes on a real database are broken on purpose; an Airflow beside them is the judge.

`airmedic bench crash` does the same for as long as one likes.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from evals.benchmarks.crash import campaign as campaign_of
from evals.benchmarks.crash import faults
from evals.benchmarks.crash.__main__ import PHASES, Size, Told, play
from evals.benchmarks.crash.campaign import open_campaign
from evals.benchmarks.crash.databases import Postgres, open_postgres
from evals.benchmarks.crash.faults import Done
from evals.benchmarks.crash.judge import HISTORY, LEDGER
from evals.benchmarks.crash.points import PLACES, Place, find, labels

pytestmark = pytest.mark.timeout(600)  # seconds: for what hangs; on a busy machine all takes its time

NEVER = math.inf  # when a phase is broken off


def size(*phases: str, kills: int = 0, zombies: int = 0, resets: int = 0) -> Size:
    """A small one, played to its end."""
    return Size(kills, zombies, resets, NEVER, slow=0, restarts=2, full=1, jumps=4, phases=phases, in_time=90)


@pytest.fixture(autouse=True)
def no_second_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait ten seconds before the next attempt; the benchmark has them."""
    monkeypatch.setitem(campaign_of.MIX, "again", 0.0)


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    # Not below pytest's own folder, which another session closes to PostgreSQL's user when we are root.
    with TemporaryDirectory(prefix="airmedic-crash-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        with open_postgres(home) as server:
            yield server


def check(told: Told) -> None:
    """Every promise held."""
    words = [f"{one.promise}: {one.words}\n{one.look}" for one in told.findings.broken]
    assert not words, "\n".join(words)
    assert told.findings.incidents > 0
    assert told.findings.writes > 0


def silent(_line: str) -> None:
    """Nobody watches."""


async def test_one_process_on_sqlite_keeps_its_promises(tmp_path: Path) -> None:
    small = size("kills", "resets", "disk", "zombies", kills=30, zombies=2, resets=5)

    told = await play(tmp_path, small, seed=1, say=silent)

    check(told)
    assert told.done.kills == 30
    assert told.done.counts["killed at a labelled point"] >= 5
    assert told.done.counts["resets"] == 5
    assert told.done.counts["zombies"] >= 1


async def test_three_processes_on_postgres_keep_their_promises(tmp_path: Path, postgres: Postgres) -> None:
    told = await play(tmp_path, size("kills", "restarts", kills=15), seed=2, postgres=postgres, say=silent)

    check(told)
    assert told.done.kills == 15
    assert told.done.counts["Postgres restarts"] == 2


async def test_two_workers_on_one_postgres_heal_while_one_is_killed(
    tmp_path: Path, postgres: Postgres
) -> None:
    async with open_campaign(tmp_path, postgres.fresh(), seed=3) as campaign:
        campaign.workers, campaign.in_time = 2, 90
        victim = await campaign.fill()
        while not await faults.held_by(campaign, victim):
            await campaign.fleet.moved()
        held = await faults.held_by(campaign, victim)

        campaign.fleet.send(victim, signal.SIGKILL)

        assert await faults.taken_over(campaign, held, within=30)
        late = await campaign.settle()
        found = await campaign.judge(late)
    assert not found.broken, found.broken
    assert found.outcomes["healed"] > 0


async def test_the_judge_finds_a_write_that_was_not_on_record(tmp_path: Path) -> None:
    async with open_campaign(
        tmp_path, f"sqlite:///{tmp_path / 'a.db'}", seed=4, mutation="sent-not-flushed"
    ) as campaign:
        await faults.kills(campaign, 3, Done(), until=NEVER)
        found = await campaign.judge(await campaign.settle())

    assert found.count(HISTORY) + found.count(LEDGER) > 0


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.name)
def test_every_labelled_point_is_in_the_product(place: Place) -> None:
    assert callable(find(place)[2])


def test_points_and_phases_are_told_apart() -> None:
    assert len(set(labels())) == len(labels())
    assert len(set(PHASES)) == len(PHASES)
