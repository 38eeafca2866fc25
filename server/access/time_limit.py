"""How long a task may take for a part of its work."""

from __future__ import annotations

import asyncio


class TimeLimit:
    """`with limit:` raises `TimeoutError` in a task that stays in it for too long.

    One timer looks after all tasks: one for each would cost more than reading a small body.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._ends: dict[asyncio.Task[object], float] = {}  # the earliest first
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        """The task's time begins."""
        loop = asyncio.get_running_loop()
        self._ends[_this_task()] = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_later(self._seconds, self._look)

    def __exit__(self, kind: type[BaseException] | None, raised: object, _trace: object) -> None:
        """The task has ended it in time, or was cancelled by us."""
        task = _this_task()
        if self._ends.pop(task, None) is None and not task.uncancel() and kind is asyncio.CancelledError:
            raise TimeoutError

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        for task, end in list(self._ends.items()):
            if end > loop.time():
                self._timer = loop.call_at(end, self._look)
                return
            del self._ends[task]
            task.cancel()


def _this_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None
    return task
