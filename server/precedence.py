"""Who goes first within a process that drives incidents: a failure that nobody has looked at yet.

Its diagnosis is what people wait for. While one is looked into, drives that go on after a wait take their
steps in what time it leaves, one after the other; without one nothing here holds anybody up.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from server.turns import Turns

LOOK = 0.002  # seconds from one look at how idle the thread is to the next
IDLE = 0.0005  # seconds of an idle thread, since the last look, that let one go on
LONGEST = 0.1  # seconds from one step to the next, however busy: nothing stands still


class Precedence:
    """Counts the newcomers, and says when others may take a step."""

    def __init__(
        self, *, timer: Callable[[], float] = time.monotonic, busy: Callable[[], float] = time.thread_time
    ) -> None:
        self._timer = timer
        self._busy = busy  #: seconds of processor time that this thread has used
        self.newcomers = 0
        self._waiting = Turns()
        self._alarm: asyncio.TimerHandle | None = None
        self._looked = self._stepped = timer()
        self._used = busy()

    @contextmanager
    def taken_up(self, *, new: bool) -> Iterator[Newcomer]:
        """A drive; one that is new goes first until it is over, at the latest until the block is left."""
        one = Newcomer(self, new=new)
        try:
            yield one
        finally:
            one.over()

    def came(self) -> None:
        """One more goes first."""
        self.newcomers += 1

    def gone(self) -> None:
        """One goes first no more."""
        self.newcomers -= 1
        if not self.newcomers:
            while self._waiting:
                self._let_go()

    async def step(self) -> None:
        """Wait until there is time for a step of somebody who is no newcomer."""
        if not self.newcomers:
            return
        mine = self._waiting.join()
        if self._alarm is None:
            self._note()
            self._watch()
        await mine

    def _watch(self) -> None:
        self._alarm = asyncio.get_running_loop().call_later(LOOK, self._look)

    def _look(self) -> None:
        self._alarm = None
        now = self._timer()
        idle = (now - self._looked) - (self._busy() - self._used)
        if idle >= IDLE or now - self._stepped >= LONGEST:
            self._let_go()
        self._note()
        if self._waiting:
            self._watch()

    def _note(self) -> None:
        self._looked, self._used = self._timer(), self._busy()

    def _let_go(self) -> None:
        self._stepped = self._timer()
        self._waiting.give()


class Newcomer:
    """One drive's place in it."""

    def __init__(self, precedence: Precedence, *, new: bool) -> None:
        self._precedence = precedence
        self._new = new
        if new:
            precedence.came()

    def over(self) -> None:
        """What was found is on record, or the drive has ended: it is new no more."""
        if self._new:
            self._new = False
            self._precedence.gone()

    async def step(self) -> None:
        """Before each step: who is new goes on, the others wait for their time."""
        if not self._new:
            await self._precedence.step()
