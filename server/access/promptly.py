"""Waits with a limit, set only where there is something to wait for: a timer costs more than a short body."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar

T = TypeVar("T")


async def promptly(awaitable: Awaitable[T], until: float) -> T:
    """What the awaitable gives; raises `TimeoutError` when it is not there at `until` (loop time)."""
    steps = awaitable.__await__()
    try:
        waits_for = next(steps)
    except StopIteration as done:
        given: T = done.value
        return given
    async with asyncio.timeout_at(until):
        return await _Rest(waits_for, steps)


class _Rest(Generic[T]):
    """What is left of an awaitable after its first step, which waits for something."""

    def __init__(self, waits_for: Any, steps: Generator[Any, Any, T]) -> None:
        self._waits_for = waits_for
        self._steps = steps

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            yield self._waits_for
        except BaseException as exc:  # cancelled: it is told at the place where it waits
            with suppress(StopIteration):
                self._steps.throw(exc)
            raise
        return (yield from self._steps)
