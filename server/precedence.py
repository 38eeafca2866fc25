"""A diagnosis is what people wait for: while new failures are looked at, healings that go on take turns.

Both work on one thread. Each step of a healing waits for its turn, and turns come however many new failures
pour in: one after each pause, so that none is more pauses away than there are healings in hand.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

PAUSE = 0.01  # seconds from one turn to the next while new failures are looked at: a step takes a few ms
AFTER = 0.002  # seconds when there are none
LEAST = (
    4  # the part of a process's hands that the rest has whatever comes in; of a single one each fourth turn
)
MOST = 2  # the part that it has at the most while there are new failures


def kept_for_others(most: int, free: int, *, others: int, turn: int) -> int:
    """Of the free hands those that new failures leave to the rest, of which so many are in hand already."""
    if most < LEAST:
        return free if turn % LEAST == 0 else 0
    return min(free, max(most // LEAST - others, 0))


def room_for_others(most: int, free: int, *, others: int, fresh: int) -> int:
    """How many of the rest may be taken up beside so many new failures."""
    return free if not fresh else max(0, min(free, max(most // MOST, 1) - others))


class Precedence:
    """Lets new failures go first, and the rest go on."""

    def __init__(self) -> None:
        self._first = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    @contextmanager
    def first(self) -> Iterator[None]:
        """A new failure is looked at."""
        self._first += 1
        try:
            yield
        finally:
            self._first -= 1

    async def turn(self) -> None:
        """Wait for a turn to take a step; where nothing goes first there is nothing to wait for."""
        if not self._first and not self._waiting:
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self._watch()
        await mine

    def _watch(self) -> None:
        if self._alarm is None and self._waiting:
            pause = PAUSE if self._first else AFTER
            self._alarm = asyncio.get_running_loop().call_later(pause, self._release)

    def _release(self) -> None:
        self._alarm = None
        while self._waiting:
            mine = self._waiting.popleft()
            if not mine.done():  # whoever waited may have been cancelled
                mine.set_result(None)
                break
        self._watch()
