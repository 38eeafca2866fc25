"""What many ask for in one moment is read once, and never for longer than that moment."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from graph.domain import Pool, TaskSnapshot
from graph.errors import AirflowUnreachable
from tests.factories import make_snapshot
from tools.airflow_around import GRID, KEEP, SharedAround

NOON = datetime(2026, 3, 1, 12, 0, 3, tzinfo=UTC)


class Counting:
    """Tells of one failure each second, answers when told, and counts what it is asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.away = False

    async def failures_since(self, since: datetime, *, limit: int) -> tuple[TaskSnapshot, ...]:
        self.asked.append((since, limit))
        await self.ready.wait()
        if self.away:
            raise AirflowUnreachable("away")
        return tuple(make_snapshot(end=since + timedelta(seconds=n)) for n in range(limit))

    async def pool(self, name: str) -> Pool:
        self.asked.append(name)
        return Pool(name=name, slots=len(self.asked))


class Watch:
    """Time that moves when told."""

    def __init__(self) -> None:
        self.now = 50.0


@pytest.fixture
def airflow() -> Counting:
    return Counting()


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def around(airflow: Counting, watch: Watch) -> SharedAround:
    return SharedAround(airflow, timer=lambda: watch.now)


async def test_who_asks_in_the_same_moment_shares_an_answer(around: SharedAround, airflow: Counting) -> None:
    one, other = await asyncio.gather(
        around.failures_since(NOON, limit=20),
        around.failures_since(NOON + timedelta(seconds=1), limit=20),
    )

    assert airflow.asked == [(NOON - timedelta(seconds=NOON.second % GRID), 20)]
    assert min(item.end for item in one if item.end) == NOON
    assert [item for item in one if item.end and item.end > NOON] == list(other)


async def test_a_moment_later_it_is_asked_again(
    around: SharedAround, airflow: Counting, watch: Watch
) -> None:
    assert await around.pool("loads") == await around.pool("loads")
    watch.now += KEEP

    assert (await around.pool("loads")).slots == 2
    assert (await around.pool("other")).slots == 3


async def test_who_goes_away_takes_nobodys_answer(around: SharedAround, airflow: Counting) -> None:
    airflow.ready.clear()
    first, second = (asyncio.create_task(around.failures_since(NOON, limit=5)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    airflow.ready.set()

    assert len(await second) == 2  # of five since the full ten seconds, those since noon


async def test_an_airflow_that_is_away_is_so_for_all_who_ask_then_and_no_longer(
    around: SharedAround, airflow: Counting, watch: Watch
) -> None:
    airflow.away = True
    for _ in range(2):
        with pytest.raises(AirflowUnreachable):
            await around.failures_since(NOON, limit=5)
    airflow.away = False
    watch.now += KEEP

    assert await around.failures_since(NOON, limit=5)
