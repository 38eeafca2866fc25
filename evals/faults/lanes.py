"""Several lanes side by side: each a process with its own Airflow, world and Airmedic.

Only this process writes what was found. Whoever plays where and with how many beside it is in the result:
times measured beside others are not times measured alone.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from evals.faults.lane import Said
from evals.faults.notebook import USUAL, Notebook
from evals.faults.playing import Order, Tell
from evals.faults.results import Result
from evals.faults.sandbox import ROOT
from graph.errors import SandboxFailed

LINE = 64 * 1024 * 1024  # bytes of one result with its agent log
START = 600.0  # seconds until a lane is ready: Airflow may have to be installed
STOP = 60.0  # seconds a lane has to end its Airflow
LIVES = 3  # times a lane is opened again after it broke


class Lane:
    """One process that plays."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, book: Notebook, tell: Tell) -> None:
        self.number = number
        self._process = process
        self._book = book
        self._tell = tell

    async def wait_ready(self) -> None:
        """Return when its Airflow is there."""
        try:
            async with asyncio.timeout(START):
                while not (await self._hear()).ready:
                    continue
        except TimeoutError as exc:
            raise SandboxFailed(f"lane {self.number} is not ready after {START:.0f} s") from exc

    async def play(self, order: Order) -> Result:
        """Play one fault to its end. Raises `SandboxFailed` when the lane breaks."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{order.model_dump_json()}\n".encode())
        await self._process.stdin.drain()
        while (said := await self._hear()).result is None:
            continue
        return said.result

    async def _hear(self) -> Said:
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise SandboxFailed(f"lane {self.number} has ended")
        said = Said.model_validate_json(line)
        if said.told:
            self._tell(f"lane {self.number}: {said.told}")
        if said.shown:
            self._book.note_symptom(said.shown, datetime.now(UTC))
        if said.broken:
            raise SandboxFailed(f"lane {self.number}: {said.broken}")
        return said


@asynccontextmanager
async def open_lane(number: int, home: Path, *, book: Notebook, tell: Tell) -> AsyncIterator[Lane]:
    """Start a lane's process; it ends with us, however we end, as its input closes then."""
    place = home / f"lane-{number}"
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lane.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "evals.faults.lane",
            str(place.resolve()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=ROOT,
            limit=LINE,
            start_new_session=True,  # Ctrl-C is ours to hear
        )
    try:
        yield Lane(number, process, book, tell)
    finally:
        await asyncio.shield(_end(process))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(STOP):
            await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()


class _Work:
    """What is left to do, shared by the lanes of this process."""

    def __init__(self, todo: Sequence[Order], book: Notebook, lanes: int) -> None:
        self.waiting = deque(longest_first(todo, book.seconds()))
        self.done: asyncio.Queue[Result | None] = asyncio.Queue()
        self.lanes = lanes
        self._book = book
        self._proving: set[str] = set()
        self.opening = asyncio.Lock()  # one at a time: a free port is free only until it is taken

    def next(self) -> Order | None:
        """The next one, with the proof of its symptom unless that is known or under way."""
        if not self.waiting:
            return None
        order = self.waiting.popleft()
        prove = order.fault not in self._proving and order.fault not in self._book.shown()
        self._proving.add(order.fault)
        return order.model_copy(update={"prove": prove})


def longest_first(todo: Sequence[Order], seconds: dict[str, float]) -> list[Order]:
    """Repetition by repetition; in each the long ones first, so that no lane ends long after the others."""
    return sorted(todo, key=lambda order: (order.repetition, -seconds.get(order.fault, USUAL)))


async def in_lanes(
    todo: Sequence[Order], *, home: Path, book: Notebook, tell: Tell, lanes: int
) -> AsyncIterator[Result]:
    """Results as they come, from `lanes` that share the work."""
    work = _Work(todo, book, lanes)
    running = [
        asyncio.create_task(_run_lane(number, home, work, book=book, tell=tell))
        for number in range(1, lanes + 1)
    ]
    watching = asyncio.create_task(_when_all_are_done(running, work.done.put_nowait))
    try:
        while (result := await work.done.get()) is not None:
            yield result
        for task in running:
            _raise_if_it_matters(task, work)
    finally:
        for task in (*running, watching):
            task.cancel()
        await asyncio.gather(*running, watching, return_exceptions=True)


def _raise_if_it_matters(lane: asyncio.Task[None], work: _Work) -> None:
    """What ended a lane is ours, unless the other lanes have done all there was."""
    error = lane.exception()
    if error is not None and (work.waiting or not isinstance(error, SandboxFailed)):
        raise error


async def _when_all_are_done(running: Sequence[asyncio.Task[None]], tell: Callable[[None], None]) -> None:
    await asyncio.wait(running)
    tell(None)


async def _run_lane(number: int, home: Path, work: _Work, *, book: Notebook, tell: Tell) -> None:
    for left in reversed(range(LIVES)):
        try:
            await _live(number, home, work, book=book, tell=tell)
            return
        except SandboxFailed as exc:
            if not left:
                raise
            tell(f"lane {number} is opened again: {exc}")


async def _live(number: int, home: Path, work: _Work, *, book: Notebook, tell: Tell) -> None:
    """Play until nothing is left or the lane breaks; what it was playing then counts as not played."""
    if not work.waiting:
        return
    async with AsyncExitStack() as stack:
        async with work.opening:
            lane = await stack.enter_async_context(open_lane(number, home, book=book, tell=tell))
            await lane.wait_ready()
        while (order := work.next()) is not None:
            try:
                result = await lane.play(order)
            except SandboxFailed as exc:
                work.done.put_nowait(
                    Result(
                        fault=order.fault,
                        repetition=order.repetition,
                        at=datetime.now(UTC),
                        failed=str(exc),
                        lanes=work.lanes,
                    )
                )
                raise
            work.done.put_nowait(result.model_copy(update={"lanes": work.lanes}))
