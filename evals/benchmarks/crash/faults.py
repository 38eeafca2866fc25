"""The ways in which a campaign is broken. Each is a phase; after each everything must come right."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

from evals.benchmarks.crash.campaign import Campaign
from evals.benchmarks.crash.databases import Postgres, Restart
from evals.benchmarks.crash.fleet import Child
from evals.benchmarks.crash.points import labels
from tools.carry_out import LOOKS

LIFE = 0.3  # seconds a server works before it is killed, on average; more where its start takes long
START = 20.0  # seconds a start may take
STARTING = 0.2  # share of those that may be killed before they have started
CALM = 0.1  # share of servers that live on until a write in doubt is settled: else none ever would be
UNREACHED = 4.0  # seconds after which a point that is not reached is given up
TAKEOVER = 20.0  # seconds for another process to drive what a stopped one drove
REVIVED = 2.0  # seconds a zombie may do what it likes
LEASE = 31.0  # seconds: a lease, and one more
DIES = 0.1  # share of zombies that are killed when they are back
LANES = 3  # processes that are stopped at the same time
# Where a process that is stopped holds a lock of the file: nobody could take over from it.
LOCKED = frozenset({"before transaction", "after transaction", "before commit", "after commit"})
DRIVING = frozenset(
    f"{end} {name}"
    for end in ("before", "after")
    for name in ("intent", "sent", "request", "answer", "read back", "confirmed", "settle", "suspend")
) - {"after suspend"}


@dataclass
class Done:
    """What was broken, and how often."""

    counts: Counter[str] = field(default_factory=Counter)

    @property
    def kills(self) -> int:
        """Processes that were killed, wherever they were."""
        return self.counts["killed"]


async def kills(campaign: Campaign, count: int, done: Done, *, until: float) -> None:
    """SIGKILL: half of them at random moments, half at the labelled points, one after the other."""
    points = itertools.cycle(labels())
    victims: list[Child] = []
    for number in range(count):
        campaign.check()
        if time.monotonic() > until:
            done.counts["left out: kills"] += count - number
            break
        label = next(points) if number % 2 else ""
        victims.append(await campaign.fill(label, after=campaign.chance.randrange(3) if label else 0))
        if len(victims) >= campaign.workers:
            await _kill(campaign, victims.pop(0), done)
    for child in victims:
        await _kill(campaign, child, done)


async def _kill(campaign: Campaign, child: Child, done: Done) -> None:
    """Let it work for a while, longer where everything takes longer; one in five dies while it starts."""
    early = campaign.chance.random() < STARTING
    patience = time.monotonic() + START
    while not (early or child.took or child.pid not in campaign.fleet.children):
        if time.monotonic() > patience:
            break
        await campaign.fleet.moved()
    slower = 1.5 * child.took
    life = UNREACHED / 2 + slower if child.at else campaign.chance.expovariate(1 / (LIFE + slower))
    if campaign.chance.random() < CALM:
        life += sum(LOOKS)
    end = time.monotonic() + life
    while child.pid in campaign.fleet.children and (left := end - time.monotonic()) > 0:
        await campaign.fleet.moved(min(left, 0.1))
    campaign.fleet.kill(child)
    await campaign.fleet.gone(child)
    done.counts["killed"] += 1
    done.counts["killed at a labelled point"] += child.reached


async def zombies(campaign: Campaign, count: int, done: Done, *, until: float) -> None:
    """SIGSTOP beyond the lease, another takes over, SIGCONT."""
    left = itertools.count()
    if campaign.start.database_url.startswith("sqlite"):
        while done.counts["zombies"] < count and next(left) < count * 3 and time.monotonic() < until:
            campaign.check()
            await _zombie_on_file(campaign, done)
        campaign.forward(-campaign.offset)  # a clock a minute ahead of Airflow's sees no news in the poll
    else:
        # Few that are not to be stopped, and much to do: so that those who are hold something.
        usual, campaign.workers, campaign.open = (campaign.workers, campaign.open), 2, 2 * campaign.open
        await campaign.fill()

        async def lane() -> None:
            child: Child | None = None
            while done.counts["zombies"] < count and next(left) < count * 3 and time.monotonic() < until:
                campaign.check()
                child = await _zombie(campaign, child, done)
            if child is not None:
                await _bury(campaign, child)

        await asyncio.gather(*(lane() for _ in range(min(LANES, count))))
        campaign.workers, campaign.open = usual
    if (short := count - done.counts["zombies"]) > 0:
        done.counts["left out: zombies"] += short


async def _zombie(campaign: Campaign, child: Child | None, done: Done) -> Child | None:
    """Its silence is noticed by the others: three seconds, not thirty. One in ten dies when it is back."""
    if child is None:
        child = await _to_be_stopped(campaign, sorted(DRIVING))
    if not await _stopped(campaign, child):
        return None
    held = await held_by(campaign, child)
    taken = bool(held) and await taken_over(campaign, held, TAKEOVER)
    _count_zombie(done, child, held, taken=taken)
    done.counts["not taken over in time"] += bool(held) and not taken
    child.reached = False
    campaign.fleet.send(child, signal.SIGCONT)
    await asyncio.sleep(REVIVED)
    if campaign.chance.random() > DIES:
        return child
    await _bury(campaign, child)
    return None


async def _zombie_on_file(campaign: Campaign, done: Done) -> None:
    """On a file nobody notices; the lease runs out, by the injected clock."""
    for standing in list(campaign.fleet.children.values()):
        await _bury(campaign, standing)
    child = await _to_be_stopped(campaign, sorted(DRIVING - LOCKED))
    if not await _stopped(campaign, child):
        return
    held = await held_by(campaign, child)
    campaign.forward(LEASE)
    other = await campaign.fleet.start()
    taken = bool(held) and await taken_over(campaign, held, TAKEOVER / 2)
    campaign.fleet.send(child, signal.SIGCONT)
    await asyncio.sleep(REVIVED)
    await _bury(campaign, child)
    await _bury(campaign, other)
    _count_zombie(done, child, held, taken=taken)
    done.counts["held the file while stopped"] += bool(held) and not taken


def _count_zombie(done: Done, child: Child, held: dict[int, int], *, taken: bool) -> None:
    done.counts["zombies"] += taken
    done.counts["zombies, of them stopped at a labelled point"] += taken and child.reached
    done.counts["incidents taken from zombies"] += len(held) if taken else 0
    done.counts["stopped without a lease"] += not held


async def _to_be_stopped(campaign: Campaign, points: list[str]) -> Child:
    """A server that stops itself at one point after the other."""
    first, *others = campaign.chance.sample(points, len(points))
    child = await campaign.fleet.start(first, sign=signal.SIGSTOP, then=others)
    child.stopped = True
    return child


async def _stopped(campaign: Campaign, child: Child) -> bool:
    """Wait until it has stopped itself, or stop it wherever it is."""
    end = time.monotonic() + UNREACHED
    while not child.reached and child.pid in campaign.fleet.children and time.monotonic() < end:
        await campaign.fleet.moved()
    campaign.fleet.send(child, signal.SIGSTOP)
    return child.pid in campaign.fleet.children


async def _bury(campaign: Campaign, child: Child) -> None:
    campaign.fleet.send(child, signal.SIGKILL)
    await campaign.fleet.gone(child)


async def held_by(campaign: Campaign, child: Child) -> dict[int, int]:
    """The incidents whose lease it holds, with their epochs."""
    query = "SELECT id, epoch FROM incident WHERE lease_owner LIKE :owner"
    return {row[0]: row[1] for row in await campaign.rows(query, owner=f"%:{child.pid}")}


async def taken_over(campaign: Campaign, held: dict[int, int], within: float) -> bool:
    """Whether every one of them has been driven by somebody else, in time."""
    end = time.monotonic() + within
    while time.monotonic() < end:
        rows = await campaign.rows("SELECT id, epoch FROM incident WHERE outcome IS NULL")
        now = {row[0]: row[1] for row in rows}
        if all(now.get(one, epoch + 1) > epoch for one, epoch in held.items()):
            return True
        await asyncio.sleep(0.1)
    return False


async def resets(campaign: Campaign, count: int, done: Done, *, until: float) -> None:
    """The connection breaks after a write has reached Airflow; it was applied, or it was not."""
    some = count // 20
    left = {"reset_applied": count - count // 2, "reset_lost": count // 2}
    left |= {"error_applied": some, "error_lost": some, "hold_applied": some, "hold_lost": some}
    await campaign.fake.order("faults", left=left)
    await campaign.fill()
    now: dict[str, int] = left
    while any(now.values()) and time.monotonic() < until:
        campaign.check()
        await asyncio.sleep(0.1)
        now = await campaign.fake.order("left")
        while len(campaign.fleet.children) < campaign.workers:
            await campaign.fleet.start()
    for fate, asked in left.items():
        done.counts[fate.replace("_", ", ")] += asked - now[fate]
    done.counts["resets"] += sum(left[one] - now[one] for one in ("reset_applied", "reset_lost"))
    if short := now["reset_applied"] + now["reset_lost"]:
        done.counts["left out: resets"] += short


async def slow(campaign: Campaign, seconds: float, done: Done) -> None:
    """Every other answer of Airflow's takes 0.1 to 5 s, some writes lose theirs, and processes die."""
    rates = {"reset_applied": 0.05, "error_applied": 0.05, "error_lost": 0.05}
    await campaign.fake.order("faults", slow=[0.5, 5.0], rates=rates)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        campaign.check()
        child = await campaign.fill()
        await asyncio.sleep(min(campaign.chance.uniform(1.0, 8.0), max(end - time.monotonic(), 0.1)))
        await _bury(campaign, child)
        done.counts["killed while Airflow was slow"] += 1


async def restarts(campaign: Campaign, postgres: Postgres, count: int, done: Done, *, until: float) -> None:
    """The database goes away every few seconds, in an orderly way or by a crash; some processes die too."""
    hows: tuple[Restart, ...] = ("fast", "immediate")
    for number in range(count):
        if time.monotonic() > until:
            done.counts["left out: restarts"] += count - number
            return
        campaign.check()
        child = await campaign.fill()
        await asyncio.sleep(campaign.chance.uniform(1.0, 3.0))
        await postgres.restart(hows[number % 2])
        done.counts["Postgres restarts"] += 1
        if number % 3 == 0:
            await _bury(campaign, child)


async def disk_full(campaign: Campaign, count: int, done: Done) -> None:
    """The file may not grow for a while. Events are refused, not lost; the work goes on by itself."""
    await campaign.fill()
    for _ in range(count):
        campaign.check()
        before = campaign.tried.answers[503]
        campaign.full = True
        campaign.open += 8  # nothing ends meanwhile, and events must come
        await asyncio.sleep(1.5)
        campaign.full = False
        campaign.open -= 8
        await asyncio.sleep(1.5)
        done.counts["disk full"] += 1
        done.counts["events refused with 503"] += campaign.tried.answers[503] - before
        while len(campaign.fleet.children) < campaign.workers:
            await campaign.fleet.start()


async def clock_jumps(campaign: Campaign, count: int, done: Done) -> None:
    """The clock jumps by hours, forth and back, under processes that run and across restarts."""
    for number in range(count):
        campaign.check()
        child = await campaign.fill()
        campaign.forward(campaign.chance.choice((-1, 1)) * campaign.chance.uniform(600, 4 * 3600))
        await asyncio.sleep(campaign.chance.uniform(0.5, 2.0))
        done.counts["clock jumps"] += 1
        if number % 2:
            await _bury(campaign, child)
    campaign.forward(-campaign.offset)
