"""Many consoles look at the same thing: one question to the server answers all who ask within a moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

FRESH = 1.0  # seconds

Seen = TypeVar("Seen")


class Glances:
    """Answers kept for a moment. The key must hold the token: who may not look shares nothing."""

    def __init__(self, *, timer: Callable[[], float] = time.monotonic, fresh: float = FRESH) -> None:
        self._timer = timer
        self._fresh = fresh
        self._kept: dict[tuple[Any, ...], tuple[float, asyncio.Future[Any]]] = {}

    async def at(self, key: tuple[Any, ...], look: Callable[[], Awaitable[Seen]]) -> Seen:
        """What `look` gives, or gave a moment ago. An error goes to all who waited and is not kept."""
        self._forget_old()
        if (kept := self._kept.get(key)) is not None:
            seen: Seen = await asyncio.shield(kept[1])
            return seen
        future: asyncio.Future[Seen] = asyncio.ensure_future(look())
        self._kept[key] = (self._timer() + self._fresh, future)
        try:
            return await asyncio.shield(future)
        finally:
            if future.done() and (future.cancelled() or future.exception() is not None):
                self.clear()

    def clear(self) -> None:
        """After a write of ours the world is another."""
        self._kept.clear()

    def _forget_old(self) -> None:
        now = self._timer()
        for key in [key for key, (until, _) in self._kept.items() if until <= now]:
            del self._kept[key]
