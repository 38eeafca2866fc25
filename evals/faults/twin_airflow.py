"""The in-memory Airflow with the demo's own DAG files: every try runs its real code in a process of its own.

What Airflow's scheduler, task runner and DAG processor do is played by one loop here; the API is the twin's.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from evals.faults.airflow_admin import BenchFailed
from graph.domain import TaskRef
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try
from tools.airflow_memory_world import masked_text

PROGRAM = Path(__file__).with_name("twin_task.py")
AT_ONCE = 3  # tries, as the real sandbox has it
LOOK = 0.03  # seconds between two looks at what may run
RETRY_DELAY = 1.0  # seconds
RUNNING = Try(state="running")

Told = Callable[[TaskRef, int, str], Coroutine[Any, Any, None]]


class TwinAirflow(MemoryAirflow):
    """The twin, and what a bench needs to change behind its API."""

    def remove(self, kind: str, key: str) -> None:
        """Take a Variable, Connection or pool away."""
        stores: dict[str, dict[str, Any]] = {
            "variables": self._variables,
            "connections": self._connections,
            "pools": self._pools,
        }
        stores[kind].pop(key, None)

    def shown(self, kind: str, key: str) -> dict[str, Any] | None:
        """One of them as Airflow shows it, or a DAG's own settings."""
        if kind == "variables":
            text = self.stored_variable(key)
            return None if text is None else {"key": key, "value": masked_text(text, key)}
        if kind == "connections":
            found = self._connections.get(key)
            return None if found is None else {"connection_id": key, **found.fields}
        if kind == "pools":
            return None if key not in self._pools else self._pools[key].model_dump(include={"name", "slots"})
        dag = self._dags.get(key)
        return None if dag is None else {"dag_id": key, "is_paused": dag.is_paused, "tags": list(dag.tags)}

    def settings(self) -> dict[str, Any]:
        """What a task may read."""
        empty = {"host": None, "schema": None, "login": None, "port": None}
        return {
            "variables": {key: value for key, (value, _) in self._variables.items()},
            "connections": {key: {**empty, **one.fields} for key, one in self._connections.items()},
        }

    def end_run(self, dag_id: str, run_id: str) -> None:
        """A person marks the run as failed: what had not begun is skipped."""
        run = self._runs[dag_id, run_id]
        for row in run.rows.values():
            if not row.now.final:
                row.now = row.now.model_copy(update={"state": "skipped", "end": self.clock()})
        run.now = run.now.model_copy(update={"state": "failed", "end": self.clock()})

    def forget_runs(self, dag_id: str) -> None:
        """Delete every run of a DAG."""
        for key in [key for key in self._runs if key[0] == dag_id]:
            del self._runs[key]

    def forget(self, *, but: str) -> None:
        """Delete the runs of every DAG but this one, and what was written."""
        for dag_id in {dag_id for dag_id, _ in self._runs} - {but}:
            self.forget_runs(dag_id)
        self._clears.clear()
        self.writes.clear()

    def running(self) -> list[TaskRef]:
        """The tries under way."""
        return [one.task for one in self._all() if one.state == "running"]

    def waiting_for_retry(self) -> set[TaskRef]:
        """The task instances that will be tried again."""
        return {one.task for one in self._all() if one.state == "up_for_retry"}

    def number(self, task: TaskRef) -> int:
        """The try a task instance is at."""
        return self._row(task).now.try_number


class Engine:
    """Moves the twin: starts what may run, ends what has run, reads the DAG files when they change."""

    def __init__(self, twin: TwinAirflow, dags: Path, work: Path, env: Mapping[str, str]) -> None:
        self.twin = twin
        self.told: Told | None = None  #: who hears of tries that fail, as the listener plugin does
        self._dags = dags
        self._work = work
        self._env = dict(env)
        self._tries: dict[TaskRef, asyncio.Task[None]] = {}
        self._telling: list[asyncio.Task[None]] = []
        self._failed_at: dict[TaskRef, float] = {}
        self._read: dict[str, float] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                await self.parse()
                for task in [task for task in self._tries.values() if task.done()]:
                    await task  # a defect of the engine is not to be waited for
                self._tries = {ref: task for ref, task in self._tries.items() if not task.done()}
                for task in [task for task in self._telling if task.done()]:
                    await task
                self._telling = [task for task in self._telling if not task.done()]
                await self._start()
                await asyncio.sleep(LOOK)
        finally:
            left = (*self._tries.values(), *self._telling)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def parse(self) -> None:
        """Read the DAG files if one of them has changed."""
        seen = {path.name: path.stat().st_mtime for path in self._dags.glob("*.py")}
        if seen == self._read:
            return
        self._read = seen
        out, _, _ = await self._program("parse")
        found = json.loads(out)
        for dag_id, one in found["dags"].items():
            known = self.twin.shown("dags", dag_id)
            paused = bool(known and known["is_paused"])
            tasks = [_spec(task) for task in one["tasks"]]
            self.twin.add_dag(dag_id, tasks, tags=one["tags"], source=one["source"], paused=paused)
        for failure in await self.twin.import_failures():
            self.twin.remove_import_failure(failure.filename)
        for name, why in found["broken"].items():
            self.twin.add_import_failure(str(self._dags / name), why)

    async def _start(self) -> None:
        clock = asyncio.get_running_loop().time
        waiting = self.twin.waiting_for_retry()
        self._failed_at = {ref: at for ref, at in self._failed_at.items() if ref in waiting}
        due = any(at + RETRY_DELAY <= clock() for at in self._failed_at.values())
        while len(self._tries) < AT_ONCE:
            ref = await self.twin.step(retries=due)
            if ref is None:
                return
            if ref in self.twin.running() and ref not in self._tries:
                self._tries[ref] = asyncio.create_task(self._try(ref, self.twin.number(ref)))

    async def _try(self, ref: TaskRef, number: int) -> None:
        out = self._work / f"{ref.run_id}.{ref.task_id}.{ref.map_index}.{number}.jsonl"
        order = {**ref.model_dump(), **self.twin.settings(), "out": str(out)}
        began = asyncio.get_running_loop().time()
        _, status, said = await self._program("run", json.dumps(order).encode())
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        logged = tuple(line["log"] for line in lines if "log" in line)
        ended: dict[str, Any] = next((line for line in lines if "state" in line), {})
        if status < 0:
            killed = {"level": "critical", "signal": status, "signal_name": signal.Signals(-status).name}
            logged = (*logged, {"event": "Process terminated by signal", "logger": "task", **killed})
        elif said and status:
            logged = (*logged, {"event": said.decode(errors="replace")[-2000:], "level": "error"})
        result = Try(
            state=ended.get("state", "failed"),
            content=logged,
            xcom=ended.get("xcom", {}),
            seconds=asyncio.get_running_loop().time() - began,
        )
        await self.twin.finish(ref, result)
        if result.state == "failed":
            self._failed_at[ref] = asyncio.get_running_loop().time()
            if self.told is not None:
                # Beside the try, which has ended: the next one may begin while this is still being told.
                telling = self.told(ref, number, _last_words(logged))
                self._telling.append(asyncio.create_task(telling))

    async def _program(self, verb: str, given: bytes = b"") -> tuple[bytes, int, bytes]:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(PROGRAM),
            verb,
            str(self._dags),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self._env,
            cwd=self._work,
            start_new_session=True,
        )
        try:
            out, said = await process.communicate(given)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if verb == "parse" and process.returncode:
            raise BenchFailed(f"the DAG files cannot be read: {said.decode(errors='replace')[-500:]}")
        return out, process.returncode or 0, said


def _spec(found: Mapping[str, Any]) -> TaskSpec:
    return TaskSpec(
        found["task_id"],
        tries=(RUNNING,),
        downstream=tuple(found["downstream"]),
        retries=int(found["retries"]),
        pool=str(found["pool"]),
        map_indexes=tuple(found["indexes"]),
    )


def _last_words(logged: tuple[dict[str, Any], ...]) -> str:
    details = logged[-1].get("error_detail") if logged else None
    return f"{details[0]['exc_type']}: {details[0]['exc_value']}" if details else ""


@asynccontextmanager
async def moving(engine: Engine) -> AsyncIterator[asyncio.Task[None]]:
    """The engine at work until the block is left; the DAG files have been read. Its end is a defect."""
    await engine.parse()
    running = asyncio.create_task(engine.run(), name="twin")
    try:
        yield running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
