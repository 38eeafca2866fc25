"""A failure that nobody has looked at goes first, and the others go on in what time it leaves."""

from __future__ import annotations

import asyncio

import pytest

from server.precedence import IDLE, LONGEST, LOOK, Precedence


class Thread:
    """The event loop's thread: time that passes, and how much of it was work."""

    def __init__(self) -> None:
        self.now, self.used = 100.0, 5.0

    def passes(self, seconds: float, *, idle: float) -> None:
        self.now += seconds
        self.used += seconds - idle


@pytest.fixture
def thread() -> Thread:
    return Thread()


@pytest.fixture
def precedence(thread: Thread) -> Precedence:
    return Precedence(timer=lambda: thread.now, busy=lambda: thread.used)


def others(precedence: Precedence, number: int) -> list[asyncio.Task[None]]:
    async def step() -> None:
        with precedence.taken_up(new=False) as one:
            await one.step()

    return [asyncio.create_task(step()) for _ in range(number)]


async def gone_on(steps: list[asyncio.Task[None]]) -> int:
    """How many have taken their step, a look or two later."""
    await asyncio.sleep(3 * LOOK)
    return sum(one.done() for one in steps)


async def test_without_a_newcomer_nobody_waits(precedence: Precedence) -> None:
    steps = others(precedence, 50)
    await asyncio.sleep(0)

    assert all(one.done() for one in steps)


async def test_a_newcomer_itself_never_waits(precedence: Precedence) -> None:
    with precedence.taken_up(new=True) as one, precedence.taken_up(new=True) as another:
        async with asyncio.timeout(LONGEST):
            await one.step()
            await another.step()


async def test_while_it_works_the_others_wait(precedence: Precedence, thread: Thread) -> None:
    with precedence.taken_up(new=True):
        steps = others(precedence, 3)
        await asyncio.sleep(0)
        thread.passes(10 * IDLE, idle=IDLE / 2)

        assert await gone_on(steps) == 0


async def test_while_it_waits_the_others_go_on_one_after_the_other(
    precedence: Precedence, thread: Thread
) -> None:
    with precedence.taken_up(new=True):
        steps = others(precedence, 3)
        await asyncio.sleep(0)
        for done in (1, 2, 3):
            thread.passes(2 * IDLE, idle=1.5 * IDLE)
            assert await gone_on(steps) == done


async def test_however_busy_nothing_stands_still(precedence: Precedence, thread: Thread) -> None:
    with precedence.taken_up(new=True):
        steps = others(precedence, 2)
        await asyncio.sleep(0)
        thread.passes(1.01 * LONGEST, idle=0)
        assert await gone_on(steps) == 1
        thread.passes(1.01 * LONGEST, idle=0)
        assert await gone_on(steps) == 2


async def test_once_it_is_over_all_go_on(precedence: Precedence, thread: Thread) -> None:
    with precedence.taken_up(new=True) as one:
        steps = others(precedence, 20)
        await asyncio.sleep(0)
        one.over()
        one.over()  # once is enough
        await asyncio.gather(*steps)

        assert precedence.newcomers == 0
        await one.step()


async def test_the_end_of_a_drive_is_the_end_of_its_precedence(precedence: Precedence) -> None:
    with pytest.raises(OSError, match="away"), precedence.taken_up(new=True):
        raise OSError("away")

    assert precedence.newcomers == 0


async def test_who_goes_away_takes_nobodys_step(precedence: Precedence, thread: Thread) -> None:
    with precedence.taken_up(new=True):
        first, second = others(precedence, 2)
        await asyncio.sleep(0)
        first.cancel()
        thread.passes(2 * IDLE, idle=1.5 * IDLE)

        assert await gone_on([second]) == 1
