"""A line of tasks that wait for their turn: who came first goes first."""

from __future__ import annotations

import asyncio
from collections import deque


class Turns:
    """Says nothing about when a turn comes: whoever owns it does."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def join(self) -> asyncio.Future[None]:
        """Stand in line; what comes back is done when it is this one's turn."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(mine)
        return mine

    def give(self) -> None:
        """The next one's turn; whoever waited may have been cancelled."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return
