"""Jobs that go on beside the rest: again and again, until the block they belong to is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import structlog

from graph.errors import AirmedicError
from server.observe.heartbeats import Heartbeats

log = structlog.get_logger("runner")


async def forever(
    name: str,
    step: Callable[[], Awaitable[object]],
    *,
    every: float,
    beats: Heartbeats | None = None,
    bell: asyncio.Event | None = None,
    on_duty: Callable[[str], Awaitable[bool]] | None = None,
) -> None:
    """Run `step` again and again, at once when the bell rings; the outermost loop of a background job.

    With `on_duty` it is one process at a time that does it, of all that share the store.
    """
    bell = bell or asyncio.Event()
    beats = beats or Heartbeats()
    beats.expect(name, every=every)
    while True:
        beats.beat(name)
        try:
            if on_duty is None or await on_duty(name):
                await step()
        except AirmedicError as exc:
            log.warning(f"{name}_failed", error=str(exc))
        except Exception as exc:  # the outermost loop: a defect must not end the job
            log.error(f"{name}_defect", error=type(exc).__name__, exc_info=True)
        # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes with the ring.
        with suppress(TimeoutError):
            async with asyncio.timeout(every):
                await bell.wait()
        bell.clear()


@asynccontextmanager
async def beside(**jobs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the jobs, each a task of its name, until the block is left; they have ended when it is.

    One that ends by an error ends alone, and it is told: neither the others nor the block feel it.
    """
    tasks = [asyncio.create_task(job, name=name) for name, job in jobs.items()]
    for task in tasks:
        task.add_done_callback(_tell)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failed := task.exception()) is not None:
        log.error("job_ended", job=task.get_name(), error=type(failed).__name__, exc_info=failed)
