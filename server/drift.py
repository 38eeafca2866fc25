"""Notices that the clock was put back: whatever sleeps until a time of before would sleep too long."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

STEP = 5.0  # seconds between two looks that are a step, not a clock that is being slowed


class Drift:
    """The clock beside one that only goes forward."""

    def __init__(self, clock: Callable[[], datetime], *, timer: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._timer = timer
        self._last = self._now()

    def went_back(self) -> bool:
        """Whether it was put back since the last look."""
        before, self._last = self._last, self._now()
        return self._last < before - STEP

    def _now(self) -> float:
        return self._clock().timestamp() - self._timer()
