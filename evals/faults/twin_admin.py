"""The bench's own hands on the in-memory Airflow: as `AirflowAdmin`, without HTTP.

What is done here is somebody else's doing: the twin's list of writes holds Airmedic's alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from evals.faults.airflow_admin import AirflowAdmin, BenchFailed, wait_until
from evals.faults.twin_airflow import TwinAirflow
from graph.domain import TaskRef, TaskSnapshot
from graph.errors import NotFound

MOVING = frozenset({"running"})
# What Airflow's audit log calls the twin's verbs.
EVENTS = {
    "clear": "post_clear_task_instances",
    "trigger": "trigger_dag_run",
    "set_variable": "patch_variable",
    "delete_variable": "delete_variable",
    "patch_connection": "patch_connection",
    "set_pool_slots": "patch_pool",
    "set_paused": "patch_dag",
    "mark_task": "patch_task_instance",
    "set_task_note": "patch_task_instance",
    "backfill": "create_backfill",
}


class TwinAdmin(AirflowAdmin):
    """An administrator of the twin."""

    def __init__(self, twin: TwinAirflow) -> None:
        self._twin = twin

    async def put_variable(self, key: str, value: str) -> None:
        self._twin.add_variable(key, value)

    async def variable(self, key: str) -> str | None:
        return self._twin.stored_variable(key)

    async def put_connection(self, conn_id: str, fields: Mapping[str, Any]) -> None:
        self._twin.add_connection(conn_id, **fields)

    async def put_pool(self, name: str, slots: int) -> None:
        self._twin.add_pool(name, slots)

    async def delete(self, kind: str, key: str) -> None:
        self._twin.remove(kind, key)

    async def unpause(self, dag_id: str) -> None:
        await self._pause(dag_id, paused=False)

    async def pause(self, dag_id: str) -> None:
        await self._pause(dag_id, paused=True)

    async def _pause(self, dag_id: str, *, paused: bool) -> None:
        with self._twin.by_someone_else():
            await self._twin.set_paused(dag_id, paused=paused)

    async def trigger(self, dag_id: str, run_id: str) -> None:
        self._twin.start(dag_id, run_id)

    async def run_state(self, dag_id: str, run_id: str) -> str:
        return (await self._twin.run(dag_id, run_id)).state

    async def clear(self, dag_id: str, run_id: str, tasks: Sequence[str]) -> None:
        refs = [TaskRef(dag_id=dag_id, run_id=run_id, task_id=one) for one in tasks]
        with self._twin.by_someone_else():
            await self._twin.clear(dag_id, run_id, refs, dry_run=False, downstream=True, only_failed=False)

    async def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        with self._twin.by_someone_else():
            await self._twin.mark_task(TaskRef(dag_id=dag_id, run_id=run_id, task_id=task_id), state)

    async def runs(self, dag_id: str, **query: Any) -> list[dict[str, Any]]:
        found = await self._twin.recent_runs(dag_id, limit=100)
        states = query.get("state")
        return [
            {"dag_run_id": one.run_id, "state": one.state, "logical_date": one.logical_date}
            for one in found
            if states is None or one.state in states
        ]

    async def end_active_runs(self, dag_id: str) -> None:
        for run in await self.runs(dag_id, state=["queued", "running"]):
            run_id = str(run["dag_run_id"])

            async def still(run_id: str = run_id) -> bool:
                return all(one.state not in MOVING for one in await self._twin.run_tasks(dag_id, run_id))

            await wait_until(f"run {run_id!r}", still, within=60)
            self._twin.end_run(dag_id, run_id)

    async def delete_runs(self, dag_id: str) -> None:
        self._twin.forget_runs(dag_id)

    async def writes_of(self, user: str, *, since: datetime) -> list[dict[str, Any]]:
        return [
            {
                "event": EVENTS[one.verb],
                "dag_id": one.args.get("dag_id"),
                "run_id": one.args.get("run_id"),
                "when": since,
            }
            for one in self._twin.writes
        ]

    async def event_log(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return []

    async def stored(self, kind: str, key: str) -> dict[str, Any] | None:
        return self._twin.shown(kind, key)

    async def wait_import_error(self, filename: str, *, within: float) -> None:
        async def broken() -> bool:
            return any(one.filename.endswith(filename) for one in await self._twin.import_failures())

        await wait_until(f"file {filename!r}", broken, within=within)

    async def wait_tag(self, dag_id: str, tag: str, *, within: float) -> None:
        async def tagged() -> bool:
            try:
                return tag in (await self._twin.dag(dag_id)).tags
            except NotFound:
                return False

        await wait_until(f"tag {tag!r} of {dag_id!r}", tagged, within=within)

    async def paused(self, dag_id: str) -> bool:
        return (await self._twin.dag(dag_id)).is_paused

    async def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        try:
            return _shown(await self._twin.task(TaskRef(dag_id=dag_id, run_id=run_id, task_id=task_id)))
        except NotFound as exc:
            raise BenchFailed(str(exc)) from exc

    async def tries(self, dag_id: str, run_id: str, task_id: str) -> list[dict[str, Any]]:
        found = await self._twin.tries(TaskRef(dag_id=dag_id, run_id=run_id, task_id=task_id))
        return [_shown(one) for one in found]

    async def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[Any]:
        ref = TaskRef(dag_id=dag_id, run_id=run_id, task_id=task_id)
        return list((await self._twin.log(ref, try_number)).content)

    async def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        return await self._twin.xcom(TaskRef(dag_id=dag_id, run_id=run_id, task_id=task_id), key)


def _shown(one: TaskSnapshot) -> dict[str, Any]:
    return {
        "task_id": one.task.task_id,
        "state": one.state,
        "try_number": one.try_number,
        "start_date": one.start.isoformat() if one.start else None,
        "end_date": one.end.isoformat() if one.end else None,
    }
