"""Runs the service on uvloop, which does what asyncio's own loop does at less cost."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# New objects before the youngest are looked through, and generations before the older ones are. A drive makes
# thousands that live until its next write: with Python's 700 they are looked through again and again.
COLLECT = (10_000, 15, 15)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` to its end."""
    if sys.platform == "win32":
        return asyncio.run(main)
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def start_up() -> None:
    """What is imported and read at the start is kept: until `settle_heap` nobody looks for garbage in it."""
    gc.disable()


def settle_heap() -> None:
    """What the start has made stays: spare the garbage collector from walking through it again and again.

    A full collection of it stops the process for a fifth of a second, in the middle of whatever it does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
    gc.enable()
    _give_back()


def _give_back() -> None:
    """What the start took for a while goes back to the system; of the C libraries glibc has to be asked."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
