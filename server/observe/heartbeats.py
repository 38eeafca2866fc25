"""Signs of life of the background jobs: one that hangs is still a running task, and only this shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

PERIODS = 5  # of silence, after which a job counts as hung
LEAST = 120.0  # seconds of silence that are never held against a job: a dead Airflow takes that long to ask


@dataclass
class _Job:
    every: float
    beat_at: float


class Heartbeats:
    """When each job last came round."""

    def __init__(self, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._jobs: dict[str, _Job] = {}

    def expect(self, name: str, *, every: float) -> None:
        """This job begins now and comes round every so many seconds."""
        self._jobs[name] = _Job(every, self._timer())

    def beat(self, name: str) -> None:
        """It came round."""
        self._jobs[name].beat_at = self._timer()

    def silence(self) -> dict[str, float]:
        """Seconds since each job's last sign."""
        now = self._timer()
        return {name: now - job.beat_at for name, job in self._jobs.items()}

    def hung(self) -> dict[str, float]:
        """The jobs that have been silent for too long, with the seconds."""
        silent = self.silence()
        return {
            name: silent[name]
            for name, job in self._jobs.items()
            if silent[name] > max(LEAST, PERIODS * job.every)
        }
