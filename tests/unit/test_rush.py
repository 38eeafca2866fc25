"""In a rush taking events goes first, and nothing else stands still."""

from __future__ import annotations

import asyncio

import pytest

from server.rush import IDLE, LONGEST, LOOK, RUSH, SHARE, WINDOW, Rush


class Timer:
    """A timer that moves when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def timer() -> Timer:
    return Timer()


@pytest.fixture
def busy() -> Timer:
    """The processor time of this thread; it is busy for as long as this moves along with the other."""
    return Timer()


@pytest.fixture
def rush(timer: Timer, busy: Timer) -> Rush:
    return Rush(timer=timer, busy=busy)


def come(rush: Rush, number: int) -> None:
    for _ in range(number):
        rush.note()


def test_a_few_events_are_no_rush(rush: Rush) -> None:
    come(rush, RUSH - 1)

    assert not rush.on
    assert rush.at_once(32) == 32


def test_many_at_once_are_one_from_the_first_window_on(rush: Rush) -> None:
    come(rush, RUSH)

    assert rush.on
    assert rush.at_once(10 * SHARE) == 10
    assert rush.at_once(2) == 1  # never nothing


def test_it_lasts_a_window_longer_than_the_events(rush: Rush, timer: Timer) -> None:
    come(rush, RUSH)
    timer.now += 1.5 * WINDOW
    assert rush.on

    timer.now += 2 * WINDOW
    assert not rush.on


def test_what_trickles_in_is_none_however_long(rush: Rush, timer: Timer) -> None:
    for _ in range(20):
        come(rush, RUSH // 2)
        timer.now += WINDOW
        assert not rush.on


async def test_without_a_rush_nobody_waits_for_a_turn(rush: Rush) -> None:
    async with asyncio.timeout(LONGEST):
        for _ in range(1000):
            await rush.turn()


async def turns_after(turns: list[asyncio.Task[None]]) -> int:
    """How many had their turn, some looks later."""
    await asyncio.sleep(5 * LOOK)
    return sum(turn.done() for turn in turns)


async def test_a_busy_thread_gives_no_turn(rush: Rush, timer: Timer, busy: Timer) -> None:
    come(rush, RUSH)
    turns = [asyncio.create_task(rush.turn()) for _ in range(3)]
    timer.now += 10 * IDLE
    busy.now += 9.5 * IDLE

    assert await turns_after(turns) == 0


async def test_time_to_spare_is_one_turn_each(rush: Rush, timer: Timer, busy: Timer) -> None:
    come(rush, RUSH)
    turns = [asyncio.create_task(rush.turn()) for _ in range(3)]

    for done in (1, 2, 3):
        timer.now += 5 * IDLE
        busy.now += 2.5 * IDLE
        assert await turns_after(turns) == done


async def test_nobody_waits_for_ever(rush: Rush, timer: Timer, busy: Timer) -> None:
    """However busy the thread is: one turn after the other all the same."""
    turns = []
    for done in (1, 2, 3):
        come(rush, RUSH)
        turns.append(asyncio.create_task(rush.turn()))
        timer.now += LONGEST
        busy.now += LONGEST
        assert await turns_after(turns) == done


async def test_a_rush_that_is_over_holds_nobody_up(rush: Rush, timer: Timer, busy: Timer) -> None:
    come(rush, RUSH)
    turns = [asyncio.create_task(rush.turn()) for _ in range(200)]
    for _ in range(round(3 * WINDOW / LOOK)):
        await asyncio.sleep(LOOK)
        timer.now += LOOK
        busy.now += LOOK

    async with asyncio.timeout(LONGEST):
        await asyncio.gather(*turns)


async def test_a_process_that_was_stopped_did_not_see_the_rush_end(rush: Rush, timer: Timer) -> None:
    """Its senders are waiting when it goes on: that is no moment to do all the rest."""
    come(rush, RUSH)
    turns = [asyncio.create_task(rush.turn()) for _ in range(3)]
    await asyncio.sleep(0)
    timer.now += 100 * WINDOW

    assert await turns_after(turns) == 1
    assert rush.on


async def test_who_goes_away_takes_nobodys_turn(rush: Rush, timer: Timer) -> None:
    come(rush, RUSH)
    first, second = (asyncio.create_task(rush.turn()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)

    timer.now += 2 * IDLE

    async with asyncio.timeout(LONGEST):
        await second


async def test_the_busier_the_thread_the_rarer_a_turn(rush: Rush, timer: Timer, busy: Timer) -> None:
    """The same time to spare, once of a thread that is half idle and once of one that hardly ever is."""
    come(rush, RUSH)
    turns = [asyncio.create_task(rush.turn()) for _ in range(2)]
    timer.now += 4 * IDLE
    busy.now += 1.5 * IDLE
    assert await turns_after(turns) == 1

    timer.now += 20 * IDLE
    busy.now += 17.5 * IDLE
    assert await turns_after(turns) == 1
