"""Answers shared for a moment: fewer questions, never an old answer after a write, never a kept error."""

from __future__ import annotations

import asyncio

import pytest

from gradio_ui.glances import Glances


class Counter:
    """How often it was looked at."""

    def __init__(self) -> None:
        self.looks = 0

    async def look(self) -> int:
        self.looks += 1
        await asyncio.sleep(0)
        return self.looks


async def test_all_who_ask_at_once_share_one_look() -> None:
    counter, glances = Counter(), Glances(timer=lambda: 0.0)

    seen = await asyncio.gather(*(glances.at(("status", "token"), counter.look) for _ in range(5)))

    assert seen == [1] * 5


async def test_another_token_looks_for_itself() -> None:
    counter, glances = Counter(), Glances(timer=lambda: 0.0)

    assert await glances.at(("status", "one"), counter.look) == 1
    assert await glances.at(("status", "two"), counter.look) == 2


async def test_after_a_moment_it_is_looked_at_again() -> None:
    now = [0.0]
    counter, glances = Counter(), Glances(timer=lambda: now[0], fresh=1.0)
    await glances.at(("status",), counter.look)

    now[0] = 1.0

    assert await glances.at(("status",), counter.look) == 2


async def test_after_a_write_it_is_looked_at_again() -> None:
    counter, glances = Counter(), Glances(timer=lambda: 0.0)
    await glances.at(("status",), counter.look)

    glances.clear()

    assert await glances.at(("status",), counter.look) == 2


async def test_an_error_is_not_kept() -> None:
    counter, glances = Counter(), Glances(timer=lambda: 0.0)

    async def fails() -> int:
        raise OSError("away")

    with pytest.raises(OSError, match="away"):
        await glances.at(("status",), fails)
    assert await glances.at(("status",), counter.look) == 1
