"""The fault of a DAG that runs by the clock: paused by mistake, it misses intervals."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from functools import partial

from evals.faults.airflow_admin import BenchFailed, wait_until
from evals.faults.world import World

INTERVALS = "employees_intervals"
EVERY = timedelta(seconds=15)  # as its DAG file has it
MISSED = 2  # intervals
HEALTHY = 2  # runs before the mistake
PARSED_WITHIN = 60.0  # seconds until Airflow has read a new DAG file
RAN_WITHIN = 120.0  # seconds until the healthy runs are done
GONE_WITHIN = 60.0  # seconds until Airflow lets go of the DAG
CLEAR_OF_THE_NEXT = timedelta(seconds=4)
AFTER = timedelta(seconds=2)  # by which a scheduler would have started a run
LOOK = 0.5  # seconds between two looks


async def run_by_the_clock(world: World) -> None:
    """The DAG is there and has run for a while."""
    if not world.has_dag(INTERVALS):
        await remove(world)  # what an earlier, interrupted bench left
        world.add_dag(INTERVALS)
        world.on_reset(partial(remove, world))
        await wait_until("the DAG", partial(_is_there, world), within=PARSED_WITHIN)
        await world.airflow.unpause(INTERVALS)
    await wait_until("the DAG's first runs", partial(_has_run, world), within=RAN_WITHIN)


async def pause_by_mistake(world: World) -> None:
    """Somebody pauses it; two intervals pass."""
    await run_by_the_clock(world)
    last = await _between_two_runs(world)
    await world.airflow.pause(INTERVALS)
    if left := await _runs(world, "queued", "running"):
        raise BenchFailed(f"{len(left)} runs of {INTERVALS!r} began while it was paused")
    missed = [last + EVERY * number for number in range(1, MISSED + 1)]
    noted = {"missed": [one.isoformat() for one in missed], "every": EVERY.total_seconds()}
    world.layout.missed.write_text(json.dumps(noted))
    wait = missed[-1] + AFTER - datetime.now(UTC)
    await asyncio.sleep(max(0.0, wait.total_seconds()))


async def nothing_ran(world: World, run_id: str) -> None:
    """The DAG is paused and none of the missed intervals has a run."""
    noted = {datetime.fromisoformat(one) for one in json.loads(world.layout.missed.read_text())["missed"]}
    there = {_tick(one) for one in await _runs(world)}
    if not await world.airflow.paused(INTERVALS) or noted & there:
        raise BenchFailed("the intervals were not missed")


async def is_missed(world: World, run_id: str) -> None:
    """It stays as it is until somebody does something about it."""


async def remove(world: World) -> None:
    """No such DAG."""
    if await world.airflow.stored("dags", INTERVALS) is not None:
        await world.airflow.pause(INTERVALS)
        await world.airflow.end_active_runs(INTERVALS)
    world.remove_dag(INTERVALS)
    async with asyncio.timeout(GONE_WITHIN):
        # Airflow reads a file that was there a moment ago once more, and the DAG is back.
        while await world.airflow.stored("dags", INTERVALS) is not None:
            await world.airflow.delete("dags", INTERVALS)
            await asyncio.sleep(AFTER.total_seconds())


async def _between_two_runs(world: World) -> datetime:
    """Wait until the present interval's run is done and the next one is not near; the interval."""
    async with asyncio.timeout(RAN_WITHIN):
        while True:
            last = max(_tick(one) for one in await _runs(world, "success"))
            since = datetime.now(UTC) - last
            if since < EVERY - CLEAR_OF_THE_NEXT and not await _runs(world, "queued", "running"):
                return last
            await asyncio.sleep(LOOK)


async def _is_there(world: World) -> bool:
    return await world.airflow.stored("dags", INTERVALS) is not None


async def _has_run(world: World) -> bool:
    return len(await _runs(world, "success")) >= HEALTHY and not await _runs(world, "queued", "running")


async def _runs(world: World, *states: str) -> list[dict[str, object]]:
    found = await world.airflow.runs(INTERVALS)
    return [one for one in found if not states or one["state"] in states]


def _tick(run: dict[str, object]) -> datetime:
    return datetime.fromisoformat(str(run["logical_date"]))
