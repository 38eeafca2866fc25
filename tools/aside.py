"""Long texts are worked on beside the event loop, short ones on it: a thread costs more than they do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LONG = 50_000  # characters; reading as many takes some milliseconds


async def aside(work: Callable[[], T], *, size: int) -> T:
    """Do the work, which is about so many characters. In a thread it goes on when the caller is cancelled."""
    if size <= LONG:
        return work()
    return await asyncio.to_thread(work)
