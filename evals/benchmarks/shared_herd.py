"""An Airflow that several worker processes share, 100 ms away: `python -m evals.benchmarks.shared_herd URL`.

Each process plays the DAGs in memory; what was cleared stands in the benchmark's own table of the same
Postgres, one row for each clear that arrived. So the processes see one world, and two clears of one task
would show.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import psycopg

from evals.benchmarks.herd import Herd, settings_for
from evals.benchmarks.quiet import quiet
from graph.domain import TaskRef
from server.loop import run as run_loop
from server.people.notifier import SilentNotifier
from server.service import open_service, utc_now
from tools.gateway import AirflowGateway

DELAY = 0.1  # seconds for every answer
# The one cause that is retried without a wait.
LOST = "[2026-03-01T03:00:01.000Z] INFO - started\n" + (
    "billiard.exceptions.WorkerLostError: Worker exited prematurely: signal 15 (SIGTERM).\n"
)
TABLE = "CREATE TABLE IF NOT EXISTS bench_clear (dag_id text NOT NULL, at timestamptz DEFAULT now())"


class SharedHerd(Herd):
    """A herd whose DAGs exist as soon as they are asked for."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, delay: float) -> None:
        super().__init__(utc_now)
        self._connection = connection
        self._delay = delay
        self._making = asyncio.Lock()

    def __getattr__(self, verb: str) -> Any:
        async def routed(first: Any, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(self._delay)
            name = first.dag_id if isinstance(first, TaskRef) else first
            if not str(name).startswith("dag_"):
                return await getattr(self._plain, verb)(first, *args, **kwargs)
            await self._catch_up(name)
            if verb == "clear" and not kwargs.get("dry_run"):
                await self._connection.execute("INSERT INTO bench_clear (dag_id) VALUES (%s)", (name,))
            return await getattr(self.worlds[name], verb)(first, *args, **kwargs)

        return routed

    async def _catch_up(self, name: str) -> None:
        """Make the DAG, and clear it when another process has."""
        async with self._making:
            if name not in self.worlds:
                await self.add(name, 1, log=LOST)
            world = self.worlds[name]
            if any(write.verb == "clear" for write in world.writes):
                return
            query = "SELECT 1 FROM bench_clear WHERE dag_id = %s"
            if await (await self._connection.execute(query, (name,))).fetchone():
                ref = TaskRef(dag_id=name, run_id="manual__1", task_id="load")
                await world.clear(name, "manual__1", [ref], dry_run=False)

    async def _nothing(self, *_args: Any, **_kwargs: Any) -> tuple[()]:
        return ()

    updates_since = waiting_tasks = running_tasks = import_failures = pools = dags = _nothing


async def work(database_url: str, delay: float) -> None:
    """One worker until it is killed."""
    with tempfile.TemporaryDirectory() as folder:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute(TABLE)
            settings = settings_for(database_url, Path(folder), watch_window=1)
            herd = cast(AirflowGateway, SharedHerd(connection, delay=delay))
            async with open_service(settings, airflow=herd, notifier=SilentNotifier()):
                await asyncio.Event().wait()


if __name__ == "__main__":
    quiet()
    with suppress(KeyboardInterrupt):
        run_loop(work(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else DELAY))
