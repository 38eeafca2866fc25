"""How many incidents are driven at the same time: many while they wait, few while this thread only works.

Drives that wait for Airflow cost nothing beside each other. Drives that work share one thread: the more of
them, the later each is done, and a diagnosis with them.
"""

from __future__ import annotations

import time
from collections.abc import Callable

MOST = 32
FEWEST = 16  # with fewer, each commit would carry fewer of them
WINDOW = 0.2  # seconds over which it is seen how busy the thread is
BUSY = 0.85  # share of a window from which on there are too many
SPARE = 0.6  # share below which there may be more again


class Hands:
    """Watches how busy this thread is, each time it is asked."""

    def __init__(
        self, *, timer: Callable[[], float] = time.monotonic, busy: Callable[[], float] = time.thread_time
    ) -> None:
        self._timer = timer
        self._busy = busy  #: seconds of processor time that this thread has used
        self._since, self._used = timer(), busy()
        self._most = MOST

    def at_once(self) -> int:
        """How many may be driven now."""
        passed = self._timer() - self._since
        if passed >= WINDOW:
            share = (self._busy() - self._used) / passed
            if share > BUSY:
                self._most = FEWEST
            elif share < SPARE:
                self._most = MOST
            self._since, self._used = self._timer(), self._busy()
        return self._most
