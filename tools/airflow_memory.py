"""An Airflow in memory: the twin of `tools.airflow_rest`, held to the same contract tests.

For tests, evaluations and a demo without Airflow. A test describes DAGs by how their tries end, starts runs,
lets the scheduler work (`settle`), looks at `writes`, and makes the API fail where it wants (`fail_next`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import JsonValue

from graph.domain import (
    ACTIVE_STATES,
    STARTED_STATES,
    AirflowHealth,
    Connection,
    DagInfo,
    ImportFailure,
    Pool,
    RunSnapshot,
    TaskInfo,
    TaskLog,
    TaskRef,
    TaskSnapshot,
    Variable,
)
from graph.errors import Conflict, InvalidRequest, NotFound
from tools import airflow_translate as translate
from tools.airflow_memory_state import TaskSpec, Ticking, Try
from tools.airflow_memory_world import MemoryWorld, Write, masked_text
from tools.redaction import redact, redact_json

NOTE = 1000  # characters
MARKS = frozenset({"success", "failed", "skipped"})

__all__ = ["MemoryAirflow", "TaskSpec", "Ticking", "Try", "Write"]


class MemoryAirflow(MemoryWorld):
    """`AirflowGateway` without an Airflow. With `auto`, cleared and triggered tasks run at once."""

    # --- reading ---

    async def health(self) -> AirflowHealth:
        self._reading("health")
        return self.status

    async def task(self, task: TaskRef) -> TaskSnapshot:
        self._reading("task")
        return self._shown(self._row(task).now)

    async def tasks(self, refs: Sequence[TaskRef]) -> tuple[TaskSnapshot, ...]:
        self._reading("tasks")
        found = []
        for ref in dict.fromkeys(refs):
            run = self._runs.get((ref.dag_id, ref.run_id))
            row = run.rows.get((ref.task_id, ref.map_index)) if run else None
            if row is not None:
                found.append(self._shown(row.now))
        return tuple(found)

    async def tries(self, task: TaskRef) -> tuple[TaskSnapshot, ...]:
        self._reading("tries")
        row = self._row(task)
        present = [] if row.now.state == "up_for_retry" else [row.now.model_copy(update={"note": ""})]
        return (*row.past, *present)

    async def run(self, dag_id: str, run_id: str) -> RunSnapshot:
        self._reading("run")
        return self._run(dag_id, run_id).now

    async def run_tasks(self, dag_id: str, run_id: str) -> tuple[TaskSnapshot, ...]:
        self._reading("run_tasks")
        return tuple(self._shown(row.now) for row in self._run(dag_id, run_id).rows.values())

    async def recent_runs(self, dag_id: str, *, limit: int = 10) -> tuple[RunSnapshot, ...]:
        self._reading("recent_runs")
        self._dag(dag_id)
        return tuple(run.now for run in self._newest(dag_id)[:limit])

    async def history(self, dag_id: str, task_id: str, *, limit: int = 20) -> tuple[TaskSnapshot, ...]:
        self._reading("history")
        self._dag(dag_id)
        found = [row for run in self._newest(dag_id) for row in run.rows.values()]
        return tuple(self._shown(row.now) for row in found if row.now.task.task_id == task_id)[:limit]

    async def failures_since(self, since: datetime, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        self._reading("failures_since")
        failed = (one for one in self._all() if one.state == "failed" and one.end and one.end >= since)
        return translate.oldest_first(failed)[:limit]

    async def failed_runs_since(self, since: datetime, *, limit: int = 100) -> tuple[RunSnapshot, ...]:
        self._reading("failed_runs_since")
        failed = [run.now for run in self._runs.values() if run.now.state == "failed"]
        ended = [(run.end, run) for run in failed if run.end is not None and run.end >= since]
        return tuple(run for _, run in sorted(ended, key=lambda one: one[0]))[:limit]

    async def runs_in(self, state: str, *, dag_id: str = "", limit: int = 100) -> tuple[RunSnapshot, ...]:
        self._reading("runs_in")
        found = [one for one in self._runs.values() if one.now.state == state]
        ours = [one for one in found if not dag_id or one.now.dag_id == dag_id]
        return tuple(one.now for one in sorted(ours, key=lambda one: one.run_after))[:limit]

    async def at_work(self, dag_id: str) -> bool:
        self._reading("at_work")
        return any(one.state in ACTIVE_STATES for one in self._all() if one.task.dag_id == dag_id)

    async def updates_since(self, since: datetime, *, limit: int = 1000) -> tuple[TaskSnapshot, ...]:
        self._reading("updates_since")
        changed = (one for one in self._all() if one.updated and one.updated >= since)
        return translate.oldest_first(changed)[:limit]

    async def waiting_tasks(self, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        self._reading("waiting_tasks")
        waiting = (one for one in self._all() if one.state in {"scheduled", "queued"})
        return translate.oldest_first(waiting)[:limit]

    async def running_tasks(self, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        self._reading("running_tasks")
        running = (one for one in self._all() if one.state in STARTED_STATES and one.start)
        return tuple(sorted(running, key=lambda one: one.start or self.clock()))[:limit]

    async def log(self, task: TaskRef, try_number: int) -> TaskLog:
        self._reading("log")
        row = self._runs.get((task.dag_id, task.run_id))
        found = row.rows.get((task.task_id, task.map_index)) if row else None
        result = found.logs.get(try_number) if found else None
        if result is None or found is None:
            return TaskLog(text="")
        running = found.now.state == "running" and found.now.try_number == try_number
        if result.content:
            return translate.task_log(list(result.content), complete=not running)
        return TaskLog(text=redact(result.log), complete=not running)

    async def lost_heartbeat(self, task: TaskRef, try_number: int) -> str:
        self._reading("lost_heartbeat")
        row = self._runs.get((task.dag_id, task.run_id))
        found = row.rows.get((task.task_id, task.map_index)) if row else None
        noted = found.logs.get(try_number) if found else None
        return redact(noted.lost_heartbeat) if noted else ""

    async def xcom(self, task: TaskRef, key: str) -> JsonValue:
        self._reading("xcom")
        run = self._runs.get((task.dag_id, task.run_id))
        row = run.rows.get((task.task_id, task.map_index)) if run else None
        return redact_json(row.xcom.get(key)) if row else None

    async def dag(self, dag_id: str) -> DagInfo:
        self._reading("dag")
        return self._described(self._dag(dag_id))

    async def dags(self, *, offset: int = 0, limit: int = 100) -> tuple[DagInfo, ...]:
        self._reading("dags")
        rows = [self._dags[dag_id] for dag_id in sorted(self._dags)][offset : offset + limit]
        return tuple(self._described(row).model_copy(update={"latest_version": None}) for row in rows)

    async def dag_tasks(self, dag_id: str) -> tuple[TaskInfo, ...]:
        self._reading("dag_tasks")
        return tuple(
            TaskInfo(
                task_id=one.task_id,
                downstream=tuple(sorted(one.downstream)),
                retries=one.retries,
                operator=one.operator,
                pool=one.pool,
                trigger_rule=one.trigger_rule,
                mapped=one.map_indexes != (-1,) and not one.in_mapped_group,
            )
            for one in sorted(self._dag(dag_id).tasks.values(), key=lambda spec: spec.task_id)
        )

    async def dag_source(self, dag_id: str) -> str:
        self._reading("dag_source")
        return redact(self._dag(dag_id).source)

    async def variable(self, key: str) -> Variable:
        self._reading("variable")
        if key not in self._variables:
            raise NotFound(f"read variable {key!r}: not found")
        value, description = self._variables[key]
        return translate.variable({"key": key, "value": masked_text(value, key), "description": description})

    async def connection(self, conn_id: str) -> Connection:
        self._reading("connection")
        fields = self._connection(conn_id).fields
        extra = fields.get("extra")
        shown = masked_text(extra, "") if isinstance(extra, str) and extra else extra
        return translate.connection({**fields, "connection_id": conn_id, "extra": shown})

    async def connections(self) -> tuple[Connection, ...]:
        self._reading("connections")
        return tuple([await self.connection(conn_id) for conn_id in sorted(self._connections)])

    async def pool(self, name: str) -> Pool:
        self._reading("pool")
        return self._filled(self._pool(name))

    async def pools(self) -> tuple[Pool, ...]:
        self._reading("pools")
        return tuple(self._filled(self._pools[name]) for name in sorted(self._pools))

    async def import_failures(self) -> tuple[ImportFailure, ...]:
        self._reading("import_failures")
        return tuple(
            one.model_copy(update={"stacktrace": redact(one.stacktrace)}) for one in self._imports.values()
        )

    async def clear_count(self, task: TaskRef) -> int:
        self._reading("clear_count")
        return sum(task in cleared for cleared in self._clears)

    # --- writing ---

    async def clear(
        self,
        dag_id: str,
        run_id: str,
        tasks: Sequence[TaskRef],
        *,
        dry_run: bool,
        downstream: bool = True,
        only_failed: bool = True,
        latest_version: bool = False,
        note: str = "",
    ) -> tuple[TaskRef, ...]:
        if dry_run:
            self._reading("clear_dry_run")
            rows = self._chosen(dag_id, run_id, tasks, downstream=downstream, only_failed=only_failed)
            if gone := {one.task_id for one in tasks} - set(self._dag(dag_id).tasks):
                raise NotFound(f"clear tasks of run {run_id!r}: DAG {dag_id!r} has no task {gone} any more")
            return tuple(row.now.task for row in rows)
        args: dict[str, JsonValue] = {"dag_id": dag_id, "run_id": run_id, "note": note}
        args |= {"tasks": [one.model_dump() for one in tasks], "downstream": downstream}
        with self._writing("clear", {**args, "only_failed": only_failed}):
            _check_note(note)
            run = self._run(dag_id, run_id)
            rows = self._chosen(dag_id, run_id, tasks, downstream=downstream, only_failed=only_failed)
            if not rows or any(row.now.state == "running" for row in rows):
                raise Conflict(f"clear tasks of run {run_id!r}: none of them can be cleared as they are now")
            version = self._dag(dag_id).version if latest_version else None
            self._scheduler.reset(run, rows, note=note, version=version)
            self._clears.append(tuple(tasks))
            cleared = tuple(row.now.task for row in rows)
            await self._react()
        return cleared

    async def set_task_note(self, task: TaskRef, note: str) -> None:
        with self._writing("set_task_note", {"task": task.model_dump(), "note": note}):
            _check_note(note)
            row = self._row(task)
            row.now = row.now.model_copy(update={"note": note})

    async def mark_task(self, task: TaskRef, state: str, *, note: str = "") -> None:
        with self._writing("mark_task", {"task": task.model_dump(), "state": state, "note": note}):
            _check_note(note)
            if state not in MARKS:
                raise InvalidRequest(f"mark {task} {state}: not one of {sorted(MARKS)}")
            row = self._row(task)
            if row.now.state == state:
                raise Conflict(f"mark {task} {state}: already in that state")
            self._scheduler.mark(row, state, note)
            await self._react()

    async def set_variable(self, key: str, value: str, *, description: str | None = None) -> None:
        translate.refuse_masked(f"set variable {key!r}", value)
        with self._writing("set_variable", {"key": key, "value": value}):
            old = self._variables.get(key)
            kept = old[1] if old and description is None else description
            self._variables[key] = (value, kept)

    async def delete_variable(self, key: str) -> None:
        with self._writing("delete_variable", {"key": key}):
            if self._variables.pop(key, None) is None:
                raise NotFound(f"delete variable {key!r}: not found")

    async def patch_connection(self, conn_id: str, fields: dict[str, JsonValue]) -> None:
        action = f"change connection {conn_id!r}"
        translate.refuse_other_fields(action, fields)
        translate.refuse_masked(action, *fields.values())
        with self._writing("patch_connection", {"conn_id": conn_id, "fields": dict(fields)}):
            self._connection(conn_id).fields.update(fields)

    async def set_pool_slots(self, name: str, slots: int) -> None:
        with self._writing("set_pool_slots", {"name": name, "slots": slots}):
            pool = self._pool(name)
            if slots < -1:
                raise InvalidRequest(f"resize pool {name!r}: {slots} slots")
            self._pools[name] = pool.model_copy(update={"slots": slots})
            self._scheduler.slots[name] = slots
            await self._react()

    async def set_paused(self, dag_id: str, *, paused: bool) -> None:
        with self._writing("set_paused", {"dag_id": dag_id, "paused": paused}):
            self._dag(dag_id).is_paused = paused
            await self._react()

    async def trigger(
        self, dag_id: str, *, run_id: str, conf: dict[str, JsonValue] | None = None, note: str = ""
    ) -> RunSnapshot:
        with self._writing("trigger", {"dag_id": dag_id, "run_id": run_id, "conf": conf, "note": note}):
            started = self._new_run(dag_id, run_id, conf=conf, note=note).now
            await self._react()
        return started

    async def backfill(
        self, dag_id: str, *, since: datetime, until: datetime | None, dry_run: bool
    ) -> tuple[str, ...]:
        until = until or self.clock()
        if dry_run:
            self._reading("backfill_dry_run")
            return tuple(date.isoformat() for date in self._missing(dag_id, since, until))
        args: dict[str, JsonValue] = {"since": since.isoformat(), "until": until.isoformat()}
        with self._writing("backfill", {"dag_id": dag_id, **args}):
            missing = self._missing(dag_id, since, until)
            for date in missing:
                run_id = f"backfill__{date.isoformat()}"
                self._new_run(dag_id, run_id, run_type="backfill", logical_date=date)
            await self._react()
        return tuple(date.isoformat() for date in missing)

    async def aclose(self) -> None:
        """Nothing is held."""


def _check_note(note: str) -> None:
    if len(note) > NOTE:
        raise InvalidRequest(f"a note may have {NOTE} characters")
