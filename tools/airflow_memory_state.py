"""The world inside `tools.airflow_memory`: DAGs, runs, task instances, and a scheduler that moves them.

What moves how was observed in Airflow 3.3.2: the try number rises when a task is scheduled, a clear sets
`max_tries` to the present try plus the task's retries, a waiting retry is already in the history.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue

from graph.domain import STARTED_STATES, RunSnapshot, TaskRef, TaskSnapshot

FINISHED_RUN = frozenset({"success", "failed"})
FAILED = frozenset({"failed", "upstream_failed"})
WAITING = frozenset({"none", "up_for_retry", "scheduled"})
GOOD = frozenset({"success"})


@dataclass(frozen=True)
class Try:
    """How one try of a task ends: `success`, `failed`, `skipped`, or `running` until `finish` is called."""

    state: str = "success"
    log: str = ""
    xcom: Mapping[str, JsonValue] = field(default_factory=dict)
    content: tuple[dict[str, JsonValue], ...] = ()
    seconds: float = 1.0
    lost_heartbeat: str = ""  #: what the scheduler notes when it ends the try for want of a heartbeat


Behaviour = Sequence[Try] | Callable[[TaskRef, int], Try]


@dataclass(frozen=True)
class TaskSpec:
    """A task of a DAG. `tries` in order (the last one repeats), or a function of task and try number."""

    task_id: str
    tries: Behaviour = (Try(),)
    downstream: tuple[str, ...] = ()
    retries: int = 0
    pool: str = "default_pool"
    operator: str = "PythonOperator"
    map_indexes: tuple[int, ...] = (-1,)
    in_mapped_group: bool = False  #: its indexes are its group's: in the group it sees its own index only
    trigger_rule: str = "all_success"  #: or all_done: runs whatever became of what is before it
    depends_on_past: bool = False  #: waits for its instance in the run before
    scope: tuple[str, ...] = ()  #: its setup and teardown, which a clear of everything named takes along


@dataclass
class DagRow:
    """A DAG as Airflow parsed it last."""

    dag_id: str
    tasks: dict[str, TaskSpec]
    tags: tuple[str, ...] = ()
    source: str = ""
    fileloc: str = ""
    is_paused: bool = False
    schedule: timedelta | None = None
    version: int = 1
    owners: tuple[str, ...] = ("airflow",)
    has_import_errors: bool = False
    is_stale: bool = False
    max_active_runs: int = 16

    def after(self, task_id: str) -> set[str]:
        """Every task downstream of this one."""
        found: set[str] = set()
        todo = list(self.tasks[task_id].downstream) if task_id in self.tasks else []
        while todo:
            one = todo.pop()
            if one not in found:
                found.add(one)
                todo.extend(self.tasks[one].downstream)
        return found

    def before(self, task_id: str) -> list[str]:
        """The tasks directly upstream."""
        return [one.task_id for one in self.tasks.values() if task_id in one.downstream]

    def one_group(self, *task_ids: str) -> bool:
        """Whether these are tasks of one mapped group, which their names begin with."""
        groups = {one.rpartition(".")[0] for one in task_ids}
        return len(groups) == 1 and all(self.tasks[one].in_mapped_group for one in task_ids)


@dataclass
class TaskRow:
    """A task instance and its past tries."""

    now: TaskSnapshot
    past: list[TaskSnapshot] = field(default_factory=list)
    logs: dict[int, Try] = field(default_factory=dict)
    xcom: dict[str, JsonValue] = field(default_factory=dict)

    def remember(self) -> None:
        """Put the present try into the history, as a retry and a clear do."""
        self.past.append(self.now.model_copy(update={"note": ""}))


@dataclass
class RunRow:
    """A DAG run and its task instances."""

    now: RunSnapshot
    rows: dict[tuple[str, int], TaskRow]
    run_after: datetime


class Ticking:
    """A clock of the twin's own: moves only when a task runs or a test says so."""

    def __init__(self, start: datetime | None = None) -> None:
        self.now = start or datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)


class Scheduler:
    """Runs what may run, one try at a time, in topological order."""

    def __init__(
        self, dags: dict[str, DagRow], runs: dict[tuple[str, str], RunRow], clock: Callable[[], datetime]
    ) -> None:
        self._dags = dags
        self._runs = runs
        self._clock = clock
        self.slots: dict[str, int] = {}

    def step(self, *, retries: bool) -> TaskRef | None:
        """One try of one task; None when nothing can move."""
        for run in list(self._runs.values()):
            dag = self._dags[run.now.dag_id]
            if run.now.state in FINISHED_RUN or dag.is_paused:
                continue
            if run.now.state == "queued":
                if self._active(dag.dag_id) >= dag.max_active_runs:
                    continue
                run.now = run.now.model_copy(update={"state": "running", "start": self._clock(), "end": None})
            self._propagate(dag, run)
            for row in self._ready(dag, run, retries=retries):
                if self._start(dag, row):
                    self._propagate(dag, run)
                    self._close(run)
                    return row.now.task
            self._close(run)
        return None

    def _active(self, dag_id: str) -> int:
        return sum(one.now.state == "running" for one in self._runs.values() if one.now.dag_id == dag_id)

    def finish(self, row: TaskRow, result: Try) -> None:
        """End the try that is running."""
        task, number = row.now.task, row.now.try_number
        spec = self._dags[task.dag_id].tasks[task.task_id]
        row.logs[number] = result
        row.xcom = dict(result.xcom)
        if isinstance(self._clock, Ticking):
            self._clock.advance(result.seconds)
        self._set(row, state=result.state, end=self._clock(), duration=result.seconds, pool=spec.pool)
        if result.state == "failed" and number <= row.now.max_tries:
            row.remember()
            self._set(row, state="up_for_retry")
        run = self._runs[task.dag_id, task.run_id]
        self._propagate(self._dags[task.dag_id], run)
        self._close(run)

    def reset(
        self, run: RunRow, rows: Iterable[TaskRow], *, note: str = "", version: int | None = None
    ) -> None:
        """What a clear does to task instances and their run."""
        dag = self._dags[run.now.dag_id]
        for row in rows:
            if row.now.state != "none":
                row.remember()
            spec = dag.tasks.get(row.now.task.task_id)
            most = row.now.try_number + (spec.retries if spec else 0)
            self._set(row, state="none", max_tries=most, **({"note": note} if note else {}))
            if version is not None:
                self._set(row, dag_version=version)
        if run.now.state in FINISHED_RUN:
            run.now = run.now.model_copy(update={"state": "queued", "start": None, "end": None})

    def mark(self, row: TaskRow, state: str, note: str) -> None:
        """What setting a state by hand does: failures downstream are cleared with it."""
        ended = {} if row.now.final else {"end": self._clock()}
        self._set(row, state=state, **ended, **({"note": note} if note else {}))
        task = row.now.task
        run = self._runs[task.dag_id, task.run_id]
        after = self._dags[task.dag_id].after(task.task_id)
        held = [one for one in run.rows.values() if one.now.task.task_id in after and one.now.state in FAILED]
        if held:
            self.reset(run, held)
        self._close(run)

    def _ready(self, dag: DagRow, run: RunRow, *, retries: bool) -> Iterator[TaskRow]:
        for row in run.rows.values():
            waiting = row.now.state in WAITING and (retries or row.now.state != "up_for_retry")
            ready = waiting and all(state in GOOD for state in self._upstream(dag, run, row))
            if ready and self._past_is_well(dag, run, row):
                yield row

    def _past_is_well(self, dag: DagRow, run: RunRow, row: TaskRow) -> bool:
        """What `depends_on_past` asks: its instance in the run before succeeded or was skipped."""
        task = row.now.task
        if not dag.tasks[task.task_id].depends_on_past:
            return True
        earlier = [
            one for one in self._runs.values() if one.now.dag_id == dag.dag_id and _due(one) < _due(run)
        ]
        if not earlier:
            return True
        before = max(earlier, key=_due).rows.get((task.task_id, task.map_index))
        return before is None or before.now.state in GOOD

    def _upstream(self, dag: DagRow, run: RunRow, row: TaskRow) -> list[str]:
        ref = row.now.task
        before = dag.before(ref.task_id)
        rows = [
            one.now
            for (name, index), one in run.rows.items()
            if name in before and (index == ref.map_index or not dag.one_group(name, ref.task_id))
        ]
        if dag.tasks[row.now.task.task_id].trigger_rule.startswith("all_done"):
            return ["success" if one.final else one.state for one in rows]
        return [one.state for one in rows]

    def _propagate(self, dag: DagRow, run: RunRow) -> None:
        """`upstream_failed` and `skipped` travel down to what has not started."""
        moved = True
        while moved:
            moved = False
            for row in run.rows.values():
                states = self._upstream(dag, run, row) if row.now.state == "none" else []
                consequence = "upstream_failed" if FAILED & set(states) else ""
                if not consequence and "skipped" in states:
                    consequence = "skipped"
                if consequence:
                    self._set(row, state=consequence, start=self._clock(), end=self._clock(), duration=0.0)
                    moved = True

    def _start(self, dag: DagRow, row: TaskRow) -> bool:
        """Schedule, queue and run one try; False when the pool has no room."""
        task = row.now.task
        spec = dag.tasks[task.task_id]
        scheduled = row.now.state == "scheduled"
        if not scheduled:
            self._set(row, state="scheduled", try_number=row.now.try_number + 1)
        if self.slots.get(spec.pool, 1) == 0:
            return False
        row.xcom = {}
        self._set(row, state="running", start=self._clock(), end=None, duration=None)
        number = row.now.try_number
        if callable(spec.tries):
            result = spec.tries(task, number)
        else:
            result = spec.tries[min(number, len(spec.tries)) - 1]
        row.logs[number] = result
        if result.state in STARTED_STATES:
            self._set(row, state=result.state)
        else:
            self.finish(row, result)
        return True

    def _close(self, run: RunRow) -> None:
        states = {row.now.state for row in run.rows.values()}
        if run.now.state in FINISHED_RUN or not all(row.now.final for row in run.rows.values()):
            return
        if run.now.state == "queued":
            return
        state = "failed" if states & FAILED else "success"
        run.now = run.now.model_copy(update={"state": state, "end": self._clock()})

    def _set(self, row: TaskRow, **changes: object) -> None:
        row.now = row.now.model_copy(update={"updated": self._clock(), **changes})


def _due(run: RunRow) -> datetime:
    return run.now.logical_date or run.run_after


def new_run(dag: DagRow, run: RunSnapshot, now: datetime) -> RunRow:
    """A run whose tasks have not started."""
    rows = {}
    for spec in dag.tasks.values():
        for index in spec.map_indexes:
            task = TaskRef(dag_id=dag.dag_id, run_id=run.run_id, task_id=spec.task_id, map_index=index)
            snapshot = TaskSnapshot(
                task=task,
                state="none",
                max_tries=spec.retries,
                operator=spec.operator,
                pool=spec.pool,
                queue="default",
                hostname="worker",
                updated=now,
                dag_version=dag.version,
            )
            rows[spec.task_id, index] = TaskRow(snapshot)
    return RunRow(run, rows, run_after=now)


def respec(dag: DagRow, tasks: Sequence[TaskSpec]) -> DagRow:
    """The DAG with other tasks: a new version of it."""
    return replace(dag, tasks={one.task_id: one for one in tasks}, version=dag.version + 1)
