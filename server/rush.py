"""Who goes first when failures pour in: taking them does. The rest goes on meanwhile, a little at a time.

One process takes events, asks Airflow about them and drives incidents. A sender waits for its answer; the
rest waits in tables. Without a rush nothing here holds anybody up, and in one nothing stands still.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from server.turns import Turns

WINDOW = 0.25  # seconds
RUSH = 50  # events in a window
IDLE = 0.01  # seconds of an idle thread from one turn to the next: about as long as a turn's work takes
LOOK = 0.01  # seconds from one look at that to the next
LONGEST = 1.0  # seconds from one turn to the next, however busy
SHARE = 32  # of what may be done at the same time, one part of so many may in a rush


class Rush:
    """Counts what comes in, and says how fast the rest may go: as fast as answering leaves time for."""

    def __init__(
        self, *, timer: Callable[[], float] = time.monotonic, busy: Callable[[], float] = time.thread_time
    ) -> None:
        self._timer = timer
        self._busy = busy  #: seconds of processor time that this thread has used
        self._since = -WINDOW
        self._count = 0
        self._before = 0
        self._waiting = Turns()
        self._turn_at, self._busy_at = timer(), busy()
        self._alarm: asyncio.TimerHandle | None = None
        self._look_at = 0.0  # when the next look is due

    def note(self) -> None:
        """An event came in."""
        self._turn_over()
        self._count += 1

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
        mine = self._waiting.join()
        self._watch()
        await mine

    def _watch(self) -> None:
        if self._alarm is None:
            self._look_at = self._timer() + LOOK
            self._alarm = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        """Nobody waits for ever, nor for a rush that is over."""
        self._alarm = None
        now = self._timer()
        if (late := now - self._look_at) > WINDOW:
            # A process that was stopped, or kept from a processor, saw nothing of what came in meanwhile.
            self._since = min(now, self._since + late)
        passed = now - self._turn_at
        idle = max(0.0, passed - (self._busy() - self._busy_at))
        # Weighed with its share: where a thread is nearly always busy, a sender waits for every turn.
        if (passed and idle * idle / passed >= IDLE) or passed >= LONGEST:
            self._release()
        while self._waiting and not self.on:
            self._release()
        if self._waiting:
            self._watch()

    def _release(self) -> None:
        self._turn_at, self._busy_at = self._timer(), self._busy()
        self._waiting.give()
