"""Jobs beside the rest: how long they go on, what ends them, and what does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from graph.errors import StoreUnavailable
from server.background import beside, forever
from server.observe.heartbeats import Heartbeats

AT_ONCE, NEVER = 0.0, 3600.0  # seconds from one round to the next


@asynccontextmanager
async def going_on(job: Any) -> AsyncIterator[asyncio.Task[None]]:
    """The job as a task, which is cancelled in the end."""
    task = asyncio.create_task(job)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def reached(holds: Callable[[], bool]) -> None:
    """Let the others go on until it holds."""
    for _ in range(1000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


class Rounds:
    """A step that counts how often it ran, and fails where it is told to."""

    def __init__(self, *errors: Exception | None) -> None:
        self.count = 0
        self._errors: Sequence[Exception | None] = errors

    async def __call__(self) -> None:
        self.count += 1
        if self.count <= len(self._errors) and (error := self._errors[self.count - 1]) is not None:
            raise error


# --- forever ----------------------------------------------------------------------------------------------


async def test_a_stop_that_comes_with_a_ring_is_a_stop() -> None:
    step, bell = Rounds(), asyncio.Event()
    job = asyncio.create_task(forever("poll", step, every=NEVER, bell=bell))
    await reached(lambda: step.count == 1)
    await asyncio.sleep(0)

    bell.set()
    await asyncio.sleep(0)  # who waits for the bell has heard it, and has not gone on yet
    job.cancel()
    await asyncio.wait([job], timeout=1)

    assert job.cancelled()


async def test_a_job_comes_round_again_and_again() -> None:
    step = Rounds()

    async with going_on(forever("poll", step, every=AT_ONCE)):
        await reached(lambda: step.count >= 3)


async def test_the_bell_brings_the_next_round_forward_and_rings_once() -> None:
    step, bell = Rounds(), asyncio.Event()

    async with going_on(forever("admit", step, every=NEVER, bell=bell)):
        await reached(lambda: step.count == 1)
        bell.set()
        await reached(lambda: step.count == 2)
        for _ in range(20):
            await asyncio.sleep(0)

    assert (step.count, bell.is_set()) == (2, False)


async def test_a_bell_that_rings_during_a_round_is_heard_after_it() -> None:
    bell, ended, rounds = asyncio.Event(), asyncio.Event(), 0

    async def step() -> None:
        nonlocal rounds
        rounds += 1
        if rounds == 1:
            await ended.wait()

    async with going_on(forever("admit", step, every=NEVER, bell=bell)):
        await reached(lambda: rounds == 1)
        bell.set()
        ended.set()
        await reached(lambda: rounds == 2)


@pytest.mark.parametrize(
    ("error", "event", "level"),
    [
        pytest.param(StoreUnavailable("no database"), "poll_failed", "warning", id="what may happen"),
        pytest.param(KeyError("secret of a task"), "poll_defect", "error", id="a defect"),
    ],
)
async def test_a_round_that_fails_is_told_and_the_next_one_comes(
    error: Exception, event: str, level: str
) -> None:
    step = Rounds(error, error)

    with capture_logs() as lines:
        async with going_on(forever("poll", step, every=AT_ONCE)):
            await reached(lambda: step.count >= 4)

    assert [(line["event"], line["log_level"]) for line in lines] == [(event, level)] * 2


@pytest.mark.parametrize(
    "ending", [asyncio.CancelledError, SystemExit], ids=["cancelled", "the process ends"]
)
async def test_what_is_no_error_ends_the_job(ending: type[BaseException]) -> None:
    rounds = 0

    async def step() -> None:
        nonlocal rounds
        rounds += 1
        raise ending

    with pytest.raises(ending):
        await forever("poll", step, every=AT_ONCE)

    assert rounds == 1


async def test_one_process_is_on_duty_and_the_others_come_round_without_doing_it() -> None:
    step, asked = Rounds(), Rounds()
    duty = False

    async def on_duty(name: str) -> bool:
        assert name == "poll"
        await asked()
        return duty

    async with going_on(forever("poll", step, every=AT_ONCE, on_duty=on_duty)):
        await reached(lambda: asked.count >= 3)
        assert step.count == 0
        duty = True
        await reached(lambda: step.count >= 1)


async def test_a_job_that_cannot_learn_whether_it_is_on_duty_does_nothing() -> None:
    step, asked = Rounds(), Rounds(StoreUnavailable("no database"))

    async def on_duty(_name: str) -> bool:
        await asked()
        return True

    with capture_logs() as lines:
        async with going_on(forever("poll", step, every=AT_ONCE, on_duty=on_duty)):
            await reached(lambda: asked.count >= 1)
            assert step.count == 0
            await reached(lambda: step.count >= 1)

    assert [line["event"] for line in lines] == ["poll_failed"]


async def test_each_round_is_a_sign_of_life_and_a_step_that_hangs_gives_none() -> None:
    now = 0.0
    beats = Heartbeats(timer=lambda: now)
    hanging = asyncio.Event()
    step: Callable[[], Awaitable[object]] = hanging.wait

    async with going_on(forever("poll", step, every=1.0, beats=beats)):
        await reached(lambda: "poll" in beats.silence())
        now = 1000.0
        await asyncio.sleep(0)

        assert beats.hung() == {"poll": 1000.0}


# --- beside -----------------------------------------------------------------------------------------------


class Job:
    """Goes on until it is cancelled, and takes its time to tidy up."""

    def __init__(self) -> None:
        self.began = self.ended = False

    async def run(self) -> None:
        self.began = True
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.ended = True


async def failing() -> None:
    """A job that ends by an error at once."""
    raise StoreUnavailable("gone")


async def test_jobs_run_under_their_names_while_the_block_does_and_have_ended_after_it() -> None:
    one, other = Job(), Job()

    async with beside(poll=one.run(), watch=other.run()):
        await reached(lambda: one.began and other.began)
        assert {"poll", "watch"} <= {task.get_name() for task in asyncio.all_tasks()}

    assert one.ended
    assert other.ended


async def test_a_block_that_fails_ends_its_jobs_and_its_error_comes_out() -> None:
    job = Job()

    async def block() -> None:
        async with beside(poll=job.run()):
            await reached(lambda: job.began)
            raise StoreUnavailable("of the block")

    with pytest.raises(StoreUnavailable, match="of the block"):
        await block()

    assert job.ended


async def test_a_job_that_fails_ends_alone_and_is_told() -> None:
    job = Job()

    with capture_logs() as lines:
        async with beside(poll=failing(), watch=job.run()):
            await reached(lambda: bool(lines))
            assert not job.ended

    assert [(line["event"], line["job"], line["error"]) for line in lines] == [
        ("job_ended", "poll", "StoreUnavailable")
    ]
    assert job.ended


async def test_jobs_that_end_as_they_should_are_not_told() -> None:
    async def short() -> None:
        return

    with capture_logs() as lines:
        async with beside(short=short(), long=Job().run()):
            await asyncio.sleep(0)

    assert lines == []


async def test_a_block_that_is_cancelled_waits_for_its_jobs_however_often() -> None:
    job = Job()

    async def block() -> None:
        async with beside(poll=job.run()):
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await reached(lambda: job.began)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # it waits for its jobs already
    with pytest.raises(asyncio.CancelledError):
        await task

    assert job.began
    assert not [one for one in asyncio.all_tasks() if one.get_name() == "poll"]
