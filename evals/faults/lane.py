"""One lane of the bench: a process with an Airflow, a world and an Airmedic of its own.

Started with `python -m evals.faults.lane HOME`: takes orders as JSON lines on standard input, says as JSON
lines on standard output what it does, and ends when its input closes.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextlib import suppress
from pathlib import Path

import structlog

from evals.faults.catalogue import CATALOGUE
from evals.faults.ground import open_ground
from evals.faults.playing import Order, play_once
from evals.faults.results import Result
from graph.domain import DomainType
from graph.errors import AirmedicError, SandboxFailed


class Said(DomainType):
    """One line of a lane: exactly one of these."""

    told: str = ""
    shown: str = ""  #: the fault whose symptom was seen without Airmedic
    ready: bool = False
    result: Result | None = None
    broken: str = ""  #: why the lane cannot go on


def say(**said: object) -> None:
    """Tell whoever gives the orders."""
    sys.stdout.write(f"{Said.model_validate(said).model_dump_json(exclude_defaults=True)}\n")
    sys.stdout.flush()


async def work(home: Path, orders: asyncio.Queue[Order]) -> None:
    """Play what is ordered, on ground that stays; never returns by itself."""
    async with open_ground(home, progress=_tell) as ground:
        say(ready=True)
        while True:
            order = await orders.get()
            result = await play_once(
                ground, CATALOGUE[order.fault], order, shown=_shown, tell=_tell if order.verbose else _silent
            )
            say(result=result)
            if not ground.sandbox.running:
                raise SandboxFailed("the lane's Airflow has ended")


async def main(home: Path) -> None:
    """Work until the orders end; what is being played then is dropped."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    orders: asyncio.Queue[Order] = asyncio.Queue()
    working = asyncio.create_task(work(home, orders))
    listening = asyncio.create_task(_listen(reader, orders))
    await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
    listening.cancel()
    working.cancel()
    with suppress(asyncio.CancelledError):
        try:
            await working
        except AirmedicError as exc:
            say(broken=str(exc))


async def _listen(reader: asyncio.StreamReader, orders: asyncio.Queue[Order]) -> None:
    while line := await reader.readline():
        orders.put_nowait(Order.model_validate_json(line))


def _tell(message: str) -> None:
    say(told=message)


def _shown(fault: str) -> None:
    say(shown=fault)


def _silent(message: str) -> None:
    """The progress of callers that do not want it."""


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    asyncio.run(main(Path(sys.argv[1])))
