"""The judge's Airflow: a process of its own that keeps the truth and counts every write that arrives.

`python -m evals.benchmarks.crash.airflow SEED`; it prints its port. Under `/_/` the harness plants failures,
sets faults and reads the truth; Airmedic sees the REST API only.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

from evals.benchmarks.crash.http import HOLD, RESET, Request, Said, serve
from evals.benchmarks.crash.rest import RestDoor
from evals.benchmarks.herd import REPORT, SAFE, Herd
from evals.benchmarks.shared_herd import LOST
from graph.domain import TaskRef, TaskSnapshot
from server.loop import run as run_loop
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try
from tools.gateway import AirflowGateway

RUN, TASK = "manual__1", "load"
STARTS = (0.02, 0.3)  # seconds until a cleared task has run
CODE = """[2026-03-01T03:00:01.000Z] INFO - started
[2026-03-01T03:00:02.000Z] ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/dags/orders.py", line 41, in load
    total = price * quantity
NameError: name 'quantity' is not defined
"""
FAILED = Try(state="failed", log=LOST)
GOOD = Try(xcom=cast(Any, REPORT))
KINDS: Mapping[str, tuple[Try, ...]] = {
    "heals": (FAILED, GOOD),
    "asks": (FAILED, GOOD),  # not declared safe to run again: a person decides
    "again": (FAILED, FAILED, GOOD),
    "broken": (Try(state="failed", log=CODE),),
}
# What becomes of a clear besides being answered: (applied, what is done instead of answering, status).
FATES: Mapping[str, tuple[bool, str, int]] = {
    "reset_applied": (True, RESET, 0),
    "reset_lost": (False, RESET, 0),
    "hold_applied": (True, HOLD, 0),
    "hold_lost": (False, HOLD, 0),
    "error_applied": (True, "", 500),
    "error_lost": (False, "", 503),
}


def now() -> datetime:
    """Airflow's clock, which nobody bends."""
    return datetime.now(UTC)


def ref(name: str) -> TaskRef:
    """The one task of a DAG here."""
    return TaskRef(dag_id=name, run_id=RUN, task_id=TASK)


class CrashAirflow(Herd):
    """Many DAGs of one task; a cleared one runs a little later, by itself."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__(now)
        self._chance = chance
        self._moved: deque[tuple[datetime, str]] = deque(maxlen=5000)
        self._running: set[asyncio.Task[None]] = set()
        self.news: list[dict[str, Any]] = []  #: what the listener plugin would tell

    async def plant(self, name: str, kind: str) -> None:
        """One more DAG; its run has failed."""
        world = self.worlds[name] = MemoryAirflow(clock=now)
        tags = () if kind == "asks" else SAFE
        world.add_dag(name, [TaskSpec(TASK, tries=KINDS[kind])], tags=tags)
        world.start(name, RUN)
        await self._run(name)

    async def started(self, name: str) -> None:
        """It was cleared: it runs, in a moment."""
        self._moved.append((now(), name))
        task = asyncio.create_task(self._later(name))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _later(self, name: str) -> None:
        await asyncio.sleep(self._chance.uniform(*STARTS))
        await self._run(name)

    async def _run(self, name: str) -> None:
        await self.worlds[name].settle()
        snapshot = await self.worlds[name].task(ref(name))
        self._moved.append((now(), name))
        failed = snapshot.state == "failed"
        event = "task_instance_failed" if failed else "task_instance_recovered"
        told = {"event": event, "dag_id": name, "run_id": RUN, "task_id": TASK}
        self.news.append({**told, "try_number": snapshot.try_number})

    async def _since(self, since: datetime, state: str = "") -> tuple[TaskSnapshot, ...]:
        names = dict.fromkeys(name for at, name in self._moved if at >= since)
        found = [await self.worlds[name].task(ref(name)) for name in names]
        return tuple(one for one in found if not state or one.state == state)

    async def updates_since(self, since: datetime, *, limit: int = 1000) -> tuple[TaskSnapshot, ...]:
        """What moved."""
        return await self._since(since)

    async def failures_since(self, since: datetime, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        """What failed."""
        return await self._since(since, "failed")

    async def _nothing(self, *_args: Any, **_kwargs: Any) -> tuple[()]:
        return ()

    waiting_tasks = running_tasks = import_failures = dags = connections = _nothing

    async def pools(self) -> Any:
        """The one there is."""
        return await self._plain.pools()


class Judge:
    """What arrives goes through here, is written down with its time, and meets its fate."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._airflow = CrashAirflow(self._chance)
        self._door = RestDoor(cast(AirflowGateway, self._airflow))
        self._rates: dict[str, float] = {}  #: fate of a clear: share of clears
        self._slow = (0.0, 0.0)  #: share of the answers that come late, and how many seconds at most
        self._left: dict[str, int] = {}  #: fates that are dealt out so many times
        self.arrivals: list[dict[str, Any]] = []
        self.effects: list[str] = []

    async def handle(self, request: Request) -> Said:
        """One request."""
        if request.target.startswith("/_/"):
            return Said(200, await self._order(request.target.removeprefix("/_/"), request.body))
        if request.target.endswith("/clearTaskInstances") and request.body["dry_run"] is False:
            return await self._clear(request)
        await self._late()
        return Said(*await self._door.answer(request.method, request.target, request.body))

    async def _late(self) -> None:
        share, most = self._slow
        if share and self._chance.random() < share:
            await asyncio.sleep(self._chance.uniform(0.1, most))

    async def _clear(self, request: Request) -> Said:
        """A write in earnest: noted first, then applied or not, then answered or not."""
        name = request.target.split("/")[4]
        snapshot = await self._airflow.worlds[name].task(ref(name))
        arrival: dict[str, Any] = {"at": time.monotonic(), "dag": name, "try": snapshot.try_number}
        arrival |= {"key": (request.body["note"] or "").split()[-1:], "state": snapshot.state}
        arrival |= {"fate": self._fate(), "applied": False}
        self.arrivals.append(arrival)
        applied, instead, status = FATES.get(arrival["fate"], (True, "", 0))
        said = Said(status or 503, {"detail": "out of order"}, instead)
        if not applied:
            return said
        code, body = await self._door.answer(request.method, request.target, request.body)
        if code == 200 and body["task_instances"]:
            arrival["applied"] = True
            await self._airflow.started(name)
        await self._late()
        return said if arrival["fate"] else Said(code, body)

    def _fate(self) -> str:
        if due := [fate for fate, left in self._left.items() if left]:
            fate = self._chance.choice(due)
            self._left[fate] -= 1
            return fate
        dice = self._chance.random()
        for fate, share in self._rates.items():
            dice -= share
            if dice < 0:
                return fate
        return ""

    async def _order(self, what: str, body: dict[str, Any]) -> Any:
        if what == "plant":
            await self._airflow.plant(body["name"], body["kind"])
            return {}
        if what == "faults":
            self._rates, self._left = body.get("rates", {}), body.get("left", {})
            self._slow = tuple(body.get("slow", (0.0, 0.0)))
            return {}
        if what == "left":
            return self._left
        if what == "effect":
            self.effects.append(body["run"])
            return {}
        if what == "news":
            return self._airflow.news[body["after"] :]
        return await self._truth()

    async def _truth(self) -> dict[str, Any]:
        tasks = {}
        for name, world in self._airflow.worlds.items():
            one = await world.task(ref(name))
            tasks[name] = {"state": one.state, "try": one.try_number}
        return {"tasks": tasks, "arrivals": self.arrivals, "effects": self.effects}


async def main(seed: int) -> None:
    """Until nobody listens."""
    server = await serve(Judge(seed).handle)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        # Until the harness is gone, one way or another.
        await asyncio.to_thread(sys.stdin.read)
        os._exit(0)  # no word about requests that were being answered


if __name__ == "__main__":
    run_loop(main(int(sys.argv[1])))
