"""How long a task usually takes, when a run goes on for too long, and when it grows slower. Pure.

Medians and median deviations, not means: one run that hung does not move what is usual.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from graph.domain import DomainType

GOOD_RUNS = 5  # fewer say nothing about what is usual
SIGMA = 1.4826  # times the median deviation is the standard deviation, of normally distributed durations
FAR = 6.0  # standard deviations: about one in 10^9 by chance
TWICE = 2.0  # times the median, for tasks that never varied
FLOOR = 300.0  # seconds over the median: a short task is not stuck because it took a minute
NEWEST = 5  # runs that are compared with those before
BASE_RUNS = 10  # good runs before them, at the least
SHIFT = 3.0  # standard deviations by which the newest must be slower
SHARE = 0.25  # and by this share of the median
LEAST = 10.0  # and by so many seconds
SLACK = 0.05  # of the median, where past runs hardly varied


class Usual(DomainType):
    """What past good runs of a task took, in seconds."""

    runs: int
    median: float
    deviation: float  #: median absolute deviation

    @property
    def spread(self) -> float:
        """The standard deviation these runs would have without their outliers."""
        return max(SIGMA * self.deviation, SLACK * self.median)


class Drift(DomainType):
    """A task that has grown slower."""

    before: Usual
    now: float  #: median of the newest runs, in seconds

    @property
    def factor(self) -> float:
        """How many times as long as before."""
        return self.now / self.before.median if self.before.median else 0.0


def usual(seconds: Sequence[float]) -> Usual | None:
    """From the durations of good runs; None when there are too few."""
    if len(seconds) < GOOD_RUNS:
        return None
    centre = median(seconds)
    return Usual(runs=len(seconds), median=centre, deviation=median(abs(one - centre) for one in seconds))


def too_long(past: Usual, *, floor: float = FLOOR) -> float:
    """Seconds after which a run of this task counts as stuck."""
    return max(past.median + FAR * past.spread, TWICE * past.median, past.median + floor)


def drift(seconds: Sequence[float]) -> Drift | None:
    """Whether the newest runs (last in the list) are slower than those before; None when not or unknown."""
    if len(seconds) < BASE_RUNS + NEWEST:
        return None
    before = usual(seconds[:-NEWEST])
    if before is None:
        return None
    now = median(seconds[-NEWEST:])
    more = now - before.median
    if more < SHIFT * before.spread or more < SHARE * before.median or more < LEAST:
        return None
    return Drift(before=before, now=now)


def in_words(seconds: float) -> str:
    """A duration as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
