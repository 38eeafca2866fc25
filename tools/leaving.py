"""How late a write to Airflow may still leave.

A write rests on a look at Airflow and on its entry in the ledger. A process that is stopped between them and
the first byte may have been relieved, and its work done by another: what has not left soon after stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

LEAVES = 2.0  # seconds

_since: ContextVar[list[float] | None] = ContextVar("leaving_since", default=None)


@contextmanager
def leaving(since: float) -> Iterator[None]:
    """Writes within must leave soon after this moment of `time.monotonic()`, or after the last answer."""
    token = _since.set([since])
    try:
        yield
    finally:
        _since.reset(token)


def answered() -> None:
    """Airflow has just answered: what is sent next rests on that."""
    if (since := _since.get()) is not None:
        since[0] = time.monotonic()


def leave_by() -> float:
    """By when a write must have left, by `time.monotonic()`."""
    since = _since.get()
    return (time.monotonic() if since is None else since[0]) + LEAVES
