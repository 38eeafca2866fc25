"""The in-memory Airflow as a process of its own: `python -m evals.benchmarks.twin PORT`.

Whatever DAG is asked about has a task that failed once and succeeds when it is run again, so that a benchmark
can tell Airmedic of any number of failures and all of them are true.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, cast

from evals.benchmarks.crash.http import Request, Said, serve
from evals.benchmarks.crash.rest import RestDoor
from evals.benchmarks.herd import Herd
from evals.faults.sandbox import free_port
from graph.domain import TaskRef
from server.loop import run as run_loop
from tools.gateway import AirflowGateway

RUN, TASK = "manual__1", "load"
KEPT = 20_000  # DAGs that are remembered
START = 90.0  # seconds a server may take to answer
LOG = """[2026-03-01T03:00:01.000Z] INFO - starting load of {name}
[2026-03-01T03:00:02.000Z] INFO - 5000 rows read, page {number}
[2026-03-01T03:00:04.000Z] ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/dags/{name}.py", line 41, in load
    connection = psycopg2.connect(dsn)
psycopg2.OperationalError: connection to server at "db-{name}.internal" (10.0.0.5), port 5432 failed: """
LOG += "Connection refused\n"
LOG += "[2026-03-01T03:00:04Z] INFO - ::group::Post Execute\n[2026-03-01T03:00:04Z] INFO - ::endgroup::\n"


class Failing(Herd):
    """Every DAG exists, and its run has failed."""

    def __getattr__(self, verb: str) -> Any:
        inner = super().__getattr__(verb)

        async def asked(*args: Any, **kwargs: Any) -> Any:
            if not args:
                return await getattr(self._plain, verb)(**kwargs)
            name = args[0].dag_id if isinstance(args[0], TaskRef) else args[0]
            if isinstance(name, str) and name.startswith("dag_") and name not in self.worlds:
                await self.add(name, len(self.worlds), log=LOG)
                if len(self.worlds) > KEPT:
                    del self.worlds[next(iter(self.worlds))]
            return await inner(*args, **kwargs)

        return asked


async def run(port: int) -> None:
    """Serve until killed."""
    door = RestDoor(cast(AirflowGateway, Failing(lambda: datetime.now(UTC))))

    async def answer(request: Request) -> Said:
        return Said(*await door.answer(request.method, request.target, request.body))

    server = await serve(answer, port)
    async with server:
        await server.serve_forever()


@asynccontextmanager
async def open_twin() -> AsyncIterator[str]:
    """One of these, until the block is left; its address."""
    port = free_port()
    command = [sys.executable, "-m", "evals.benchmarks.twin", str(port)]
    process = await asyncio.create_subprocess_exec(*command)
    try:
        await opened(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def opened(port: int) -> None:
    """Wait until somebody listens there."""
    async with asyncio.timeout(START):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.1)
            else:
                writer.close()
                return


if __name__ == "__main__":
    run_loop(run(int(sys.argv[1])))
