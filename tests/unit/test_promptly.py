"""A wait that has a limit only where it waits."""

from __future__ import annotations

import asyncio

import pytest

from server.access.promptly import promptly


def soon() -> float:
    return asyncio.get_running_loop().time() + 0.02


async def test_what_is_there_is_given_even_when_the_time_is_over() -> None:
    async def there() -> str:
        return "body"

    assert await promptly(there(), until=0) == "body"


async def test_what_comes_in_time_is_given() -> None:
    async def later() -> str:
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)
        return "body"

    assert await promptly(later(), asyncio.get_running_loop().time() + 60) == "body"


async def test_what_never_comes_ends_in_time_and_is_told() -> None:
    ended: list[str] = []

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with pytest.raises(TimeoutError):
        await promptly(never(), soon())
    assert ended == ["cancelled"]


async def test_an_error_passes() -> None:
    async def broken() -> None:
        await asyncio.sleep(0)
        raise ValueError("cut off")

    with pytest.raises(ValueError, match="cut off"):
        await promptly(broken(), soon())


async def test_whoever_waits_may_be_cancelled() -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    waiting = asyncio.create_task(promptly(never(), asyncio.get_running_loop().time() + 60))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
