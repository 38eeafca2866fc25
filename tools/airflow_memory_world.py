"""What `tools.airflow_memory` holds, and the script by which a test makes it move and fail."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import JsonValue

from graph.domain import AirflowHealth, DagInfo, ImportFailure, Pool, RunSnapshot, TaskRef, TaskSnapshot
from graph.errors import AirmedicError, Conflict, InvalidRequest, NotFound
from tools import airflow_translate as translate
from tools.airflow_memory_state import (
    FAILED,
    DagRow,
    RunRow,
    Scheduler,
    TaskRow,
    TaskSpec,
    Ticking,
    Try,
    new_run,
    respec,
)
from tools.redaction import redact

# Key names under which Airflow 3.3.2 hides values.
SENSITIVE = (
    "access_key", "access_token", "api_key", "apikey", "auth_header", "authorization", "bearer",
    "connection_string", "dsn", "keyfile_dict", "passphrase", "passwd", "password", "private_key", "proxy",
    "proxies", "secret", "service_account", "service_key", "token", "webhook_url",
)  # fmt: skip


@dataclass(frozen=True)
class Write:
    """One change that was made through the gateway."""

    verb: str
    args: dict[str, JsonValue]


@dataclass
class _Failure:
    verb: str
    error: AirmedicError
    after_effect: bool


@dataclass
class _StoredConnection:
    fields: dict[str, JsonValue]
    password: str


class MemoryWorld:
    """The inside of an Airflow, without its API. With `auto`, cleared and triggered tasks run at once."""

    def __init__(self, *, clock: Callable[[], datetime] | None = None, auto: bool = False) -> None:
        self.clock = clock or Ticking()
        self.auto = auto
        self.writes: list[Write] = []  #: what was changed, in order
        self.calls: list[str] = []  #: every verb that was asked for, reads too
        self.status = AirflowHealth(version="3.3.2", scheduler=True, dag_processor=True)
        self._dags: dict[str, DagRow] = {}
        self._runs: dict[tuple[str, str], RunRow] = {}
        self._variables: dict[str, tuple[str, str | None]] = {}
        self._connections: dict[str, _StoredConnection] = {}
        self._pools: dict[str, Pool] = {}
        self._imports: dict[str, ImportFailure] = {}
        self._clears: list[tuple[TaskRef, ...]] = []
        self._failures: list[_Failure] = []
        self._recording = True
        self._scheduler = Scheduler(self._dags, self._runs, self.clock)
        self.add_pool("default_pool", 128)

    # --- the script of a test ---

    def add_dag(
        self,
        dag_id: str,
        tasks: Sequence[TaskSpec],
        *,
        tags: Sequence[str] = (),
        source: str = "",
        paused: bool = False,
        schedule: timedelta | None = None,
        max_active_runs: int = 16,
    ) -> None:
        """A new DAG, or a new version of one that is there."""
        known = self._dags.get(dag_id)
        row = respec(known, tasks) if known else DagRow(dag_id, {one.task_id: one for one in tasks})
        row.tags, row.source, row.schedule = tuple(sorted(tags)), source, schedule
        row.max_active_runs = max_active_runs
        row.is_paused, row.fileloc = paused, f"/opt/airflow/dags/{dag_id}.py"
        self._dags[dag_id] = row

    def start(
        self,
        dag_id: str,
        run_id: str,
        *,
        conf: dict[str, JsonValue] | None = None,
        run_type: str = "manual",
        logical_date: datetime | None = None,
    ) -> RunSnapshot:
        """Start a run as Airflow itself would (not a write of ours)."""
        return self._new_run(dag_id, run_id, conf=conf, run_type=run_type, logical_date=logical_date).now

    async def settle(self, *, retries: bool = True) -> int:
        """Let the scheduler work until nothing moves; how many tries ran. Without `retries`, retries wait."""
        ran = 0
        while self._scheduler.step(retries=retries) is not None:
            ran += 1
        return ran

    async def step(self, *, retries: bool = True) -> TaskRef | None:
        """Let the scheduler run one try of one task."""
        return self._scheduler.step(retries=retries)

    async def finish(self, task: TaskRef, result: Try) -> None:
        """End a try that is `running`."""
        self._scheduler.finish(self._row(task), result)

    def fail_next(
        self, verb: str, error: AirmedicError, *, after_effect: bool = False, times: int = 1
    ) -> None:
        """Make the next calls of a verb raise; `after_effect` plays an answer that got lost."""
        self._failures.extend(_Failure(verb, error, after_effect) for _ in range(times))

    @contextmanager
    def by_someone_else(self) -> Iterator[None]:
        """What happens inside is a person's doing: it is not in `writes` and no failure is injected."""
        self._recording = False
        try:
            yield
        finally:
            self._recording = True

    def change_dag(self, dag_id: str, **settings: object) -> None:
        """Other settings of a DAG; its tasks and its version stay."""
        for name, value in settings.items():
            setattr(self._dags[dag_id], name, value)

    def add_variable(self, key: str, value: str, description: str | None = None) -> None:
        """Store a Variable as it is."""
        self._variables[key] = (value, description)

    def stored_variable(self, key: str) -> str | None:
        """The unmasked text of a Variable, as a DAG would get it."""
        return self._variables[key][0] if key in self._variables else None

    def add_connection(
        self, conn_id: str, conn_type: str, *, password: str = "", **fields: JsonValue
    ) -> None:
        """Store a Connection; `fields` are host, schema, login, port, extra, description."""
        self._connections[conn_id] = _StoredConnection({"conn_type": conn_type, **fields}, password)

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """A person sets a run's state by hand: Airflow leaves the tasks in it that failed as they are."""
        run = self._run(dag_id, run_id)
        run.now = run.now.model_copy(update={"state": state, "end": self.clock()})

    def time_out(self, dag_id: str, run_id: str) -> None:
        """The run's `dagrun_timeout` is over: it fails, and what has not ended is skipped."""
        for row in self._run(dag_id, run_id).rows.values():
            if not row.now.final:
                row.now = row.now.model_copy(update={"state": "skipped", "end": self.clock()})
        self.mark_run(dag_id, run_id, "failed")

    def remove_index(self, task: TaskRef) -> None:
        """What the task maps over became shorter: Airflow removes the index instead of running it again."""
        row = self._run(task.dag_id, task.run_id).rows[task.task_id, task.map_index]
        row.now = row.now.model_copy(update={"state": "removed"})

    def delete_dag(self, dag_id: str) -> None:
        """A person deletes a DAG: its runs and their tasks go with it."""
        del self._dags[dag_id]
        for key in [key for key in self._runs if key[0] == dag_id]:
            del self._runs[key]

    def add_pool(self, name: str, slots: int, *, include_deferred: bool = False) -> None:
        """Store a pool."""
        self._pools[name] = Pool(name=name, slots=slots, include_deferred=include_deferred)
        self._scheduler.slots[name] = slots

    def remove_pool(self, name: str) -> None:
        """A pool is deleted: what waits in it is never started."""
        del self._pools[name]
        self._scheduler.slots[name] = 0

    def add_import_failure(self, filename: str, stacktrace: str) -> None:
        """A DAG file that does not import."""
        self._imports[filename] = ImportFailure(filename=filename, stacktrace=stacktrace, seen=self.clock())

    def remove_import_failure(self, filename: str) -> None:
        """The file imports again."""
        self._imports.pop(filename, None)

    # --- inside ---

    def _reading(self, verb: str) -> None:
        self.calls.append(verb)
        self._fail(verb, after_effect=False)

    @contextmanager
    def _writing(self, verb: str, args: dict[str, JsonValue]) -> Iterator[None]:
        self.calls.append(verb)
        self._fail(verb, after_effect=False)
        yield
        if self._recording:
            self.writes.append(Write(verb, args))
        self._fail(verb, after_effect=True)

    def _fail(self, verb: str, *, after_effect: bool) -> None:
        for failure in self._failures if self._recording else ():
            if failure.verb == verb and failure.after_effect == after_effect:
                self._failures.remove(failure)
                raise failure.error

    def lose_clear(self, task: TaskRef) -> None:
        """A clear met the scheduler ending the run, as in Airflow 3.3.2: the run fails, the task waits."""
        run = self._run(task.dag_id, task.run_id)
        run.now = run.now.model_copy(update={"state": "failed"})

    async def _react(self) -> None:
        if self.auto:
            await self.settle()

    def _dag(self, dag_id: str) -> DagRow:
        if dag_id not in self._dags:
            raise NotFound(f"DAG {dag_id!r} not found")
        return self._dags[dag_id]

    def _run(self, dag_id: str, run_id: str) -> RunRow:
        if (dag_id, run_id) not in self._runs:
            raise NotFound(f"run {run_id!r} of {dag_id!r} not found")
        return self._runs[dag_id, run_id]

    def _row(self, task: TaskRef) -> TaskRow:
        row = self._run(task.dag_id, task.run_id).rows.get((task.task_id, task.map_index))
        if row is None:
            raise NotFound(f"{task} not found")
        return row

    def _pool(self, name: str) -> Pool:
        if name not in self._pools:
            raise NotFound(f"pool {name!r} not found")
        return self._pools[name]

    def _filled(self, pool: Pool) -> Pool:
        states = Counter(one.state for one in self._all() if one.pool == pool.name)
        counts = {"occupied": states["running"], "queued": states["queued"], "scheduled": states["scheduled"]}
        return pool.model_copy(update=counts)

    def _connection(self, conn_id: str) -> _StoredConnection:
        if conn_id not in self._connections:
            raise NotFound(f"connection {conn_id!r} not found")
        return self._connections[conn_id]

    def _newest(self, dag_id: str) -> list[RunRow]:
        found = [run for (dag, _), run in self._runs.items() if dag == dag_id]
        return sorted(reversed(found), key=lambda run: run.run_after, reverse=True)

    def _all(self) -> Iterator[TaskSnapshot]:
        for run in self._runs.values():
            for row in run.rows.values():
                yield self._shown(row.now)

    def _shown(self, one: TaskSnapshot) -> TaskSnapshot:
        return one.model_copy(update={"note": redact(one.note)}) if one.note else one

    def _chosen(
        self, dag_id: str, run_id: str, tasks: Sequence[TaskRef], *, downstream: bool, only_failed: bool
    ) -> list[TaskRow]:
        dag, run = self._dag(dag_id), self._run(dag_id, run_id)
        if not tasks:
            raise InvalidRequest(f"clear tasks of run {run_id!r}: no task named")
        exact = {(one.task_id, one.map_index) for one in tasks}
        after = {name for one in tasks for name in dag.after(one.task_id)} if downstream else set()
        if not only_failed:
            exact |= {
                (name, -1) for one in tasks if (spec := dag.tasks.get(one.task_id)) for name in spec.scope
            }
        rows = [row for key, row in run.rows.items() if key in exact or key[0] in after]
        return [row for row in rows if not only_failed or row.now.state in FAILED]

    def _new_run(
        self,
        dag_id: str,
        run_id: str,
        *,
        conf: dict[str, JsonValue] | None = None,
        note: str = "",
        run_type: str = "manual",
        logical_date: datetime | None = None,
    ) -> RunRow:
        dag = self._dag(dag_id)
        if (dag_id, run_id) in self._runs:
            raise Conflict(f"trigger {dag_id!r} as {run_id!r}: the run exists")
        run = RunSnapshot(
            dag_id=dag_id,
            run_id=run_id,
            state="queued",
            run_type=run_type,
            logical_date=logical_date,
            conf=conf or {},
            note=note,
        )
        self._runs[dag_id, run_id] = new_run(dag, run, self.clock())
        return self._runs[dag_id, run_id]

    def _described(self, row: DagRow) -> DagInfo:
        dates = [run.now.logical_date for run in self._newest(row.dag_id) if run.now.logical_date]
        return DagInfo(
            dag_id=row.dag_id,
            is_paused=row.is_paused,
            tags=row.tags,
            owners=row.owners,
            fileloc=row.fileloc,
            has_import_errors=row.has_import_errors,
            is_stale=row.is_stale,
            latest_version=row.version,
            next_run=max(dates) + row.schedule if dates and row.schedule else None,
            periodic=row.schedule is not None,
        )

    def _missing(self, dag_id: str, since: datetime, until: datetime) -> list[datetime]:
        step = self._dag(dag_id).schedule
        if step is None:
            raise InvalidRequest(f"backfill {dag_id!r}: it has no periodic schedule")
        have = {run.now.logical_date for run in self._newest(dag_id)}
        dates = [since + step * number for number in range(int((until - since) / step) + 1)]
        return [date for date in dates if date not in have]


def _sensitive(key: str) -> bool:
    return any(word in re.sub(r"\W+", "_", key.strip().lower()) for word in SENSITIVE)


def masked_text(text: str, key: str) -> str:
    """A stored text as Airflow shows it: JSON reformatted, values under secret-looking keys masked."""
    try:
        value = json.loads(text)
    except ValueError:
        return translate.MASK if _sensitive(key) else text
    return json.dumps(_masked(value, key))


def _masked(value: JsonValue, key: str) -> JsonValue:
    """Airflow hides texts, not numbers; under a secret key all texts below it."""
    hidden = _sensitive(key)
    if isinstance(value, dict):
        return {name: _masked(item, key if hidden else name) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked(item, key) for item in value]
    return translate.MASK if hidden and isinstance(value, str) else value
