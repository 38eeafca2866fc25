"""Who goes first when failures pour in: taking them does. The rest goes on meanwhile, a little at a time.

One process takes events, asks Airflow about them and drives incidents. A sender waits for its answer; the
rest waits in tables. Without a rush nothing here holds anybody up, and in one nothing stands still.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

WINDOW = 0.25  # seconds
RUSH = 50  # events in a window
EVENTS = 150  # from one turn to the next in a rush; a turn's work takes as long as some twenty of them
LONGEST = 0.25  # seconds from one turn to the next, however few
SHARE = 32  # of what may be done at the same time, one part of so many may in a rush


class Rush:
    """Counts what comes in, and says how fast the rest may go."""

    def __init__(self, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._since = -WINDOW
        self._count = 0
        self._before = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._passed = 0
        self._alarm: asyncio.TimerHandle | None = None

    def note(self) -> None:
        """An event came in."""
        self._turn_over()
        self._count += 1
        self._passed += 1
        if self._passed >= EVENTS and self._waiting:
            self._release()

    @property
    def on(self) -> bool:
        """Whether events are pouring in now."""
        self._turn_over()
        return max(self._count, self._before) >= RUSH

    def _turn_over(self) -> None:
        passed = self._timer() - self._since
        if passed >= WINDOW:
            self._before = self._count if passed < 2 * WINDOW else 0
            self._since, self._count = self._timer(), 0

    def at_once(self, most: int) -> int:
        """How much may be done at the same time, of what is `most` without a rush."""
        return max(1, most // SHARE) if self.on else most

    async def turn(self) -> None:
        """Wait for a turn to do a small piece of work; without a rush there is nothing to wait for."""
        if not self.on:
            return
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        self._watch()
        await mine

    def _watch(self) -> None:
        if self._alarm is None:
            self._alarm = asyncio.get_running_loop().call_later(LONGEST, self._look)

    def _look(self) -> None:
        """Nobody waits for ever, nor for a rush that is over."""
        self._alarm = None
        self._release()
        while self._waiting and not self.on:
            self._release()
        if self._waiting:
            self._watch()

    def _release(self) -> None:
        self._passed = 0
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():  # whoever waited may have been cancelled
                first.set_result(None)
                return
