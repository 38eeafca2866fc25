"""Actions that make tasks run again, and the one that waits before that."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from pydantic import Field, JsonValue

from graph.domain import (
    ACTIVE_STATES,
    RUNNING_STATES,
    Action,
    ActionClass,
    BlastRadius,
    TaskRef,
    TaskSnapshot,
)
from graph.errors import Conflict, NotFound
from tools.actions.kind import ActionKind, Confirmation, Found, Harmless, Parameters, Preview, listed
from tools.gateway import TEARDOWN, AirflowGateway

NEVER_RAN = frozenset({"none", "upstream_failed", "skipped", "removed", "scheduled", "queued"})
NOTE = 1000  # characters, Airflow's limit
DAY = 86_400.0


class Nothing(Parameters):
    """No target."""


class WaitArgs(Parameters):
    """How long."""

    seconds: float = Field(ge=0, le=DAY)


class Wait(Harmless[Nothing, WaitArgs]):
    """Stands first in a plan: the plan begins that much later. The clock waits, not this action."""

    name: ClassVar[str] = "wait"
    kind: ClassVar[ActionClass] = ActionClass.REVERSIBLE
    target = Nothing
    args = WaitArgs

    def describe(self, action: Action) -> str:
        _, args = self.read(action)
        return f"wait {args.seconds:g} s"


class MappedTask(Parameters):
    """One task instance of a run."""

    task_id: str
    map_index: int = -1

    @classmethod
    def of(cls, image: dict[str, JsonValue]) -> MappedTask:
        """The task instance of a before-image."""
        return cls.model_validate({"task_id": image["task_id"], "map_index": image["map_index"]})


class TasksOfRun(Parameters):
    """Exactly these task instances of one run."""

    dag_id: str
    run_id: str
    tasks: tuple[MappedTask, ...] = Field(min_length=1)

    @property
    def refs(self) -> tuple[TaskRef, ...]:
        """The same as references."""
        return tuple(
            TaskRef(dag_id=self.dag_id, run_id=self.run_id, task_id=one.task_id, map_index=one.map_index)
            for one in self.tasks
        )


class ClearArgs(Parameters):
    """How far the clear reaches."""

    downstream: bool = True  #: also what these tasks hold back
    latest_version: bool = False  #: run the DAG's newest version instead of the run's own


class Clearing(ActionKind[TasksOfRun, ClearArgs]):
    """What both clears share. The ledger's key in Airflow's note tells our clear from anyone else's."""

    kind: ClassVar[ActionClass] = ActionClass.IRREVERSIBLE
    undoable: ClassVar[bool] = False
    only_failed: ClassVar[bool]
    target = TasksOfRun
    args = ClearArgs

    def reruns(self, action: Action) -> tuple[TaskRef, ...]:
        return self.read(action)[0].refs

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        target, args = self.read(action)
        chosen = partial(airflow.clear, target.dag_id, target.run_id, dry_run=True)
        whole, tasks = await asyncio.gather(
            self._whole(airflow, target, args), airflow.run_tasks(target.dag_id, target.run_id)
        )
        touched = whole or await chosen(target.refs, downstream=args.downstream, only_failed=self.only_failed)
        states = {one.task: one.state for one in tasks}
        again = tuple(one for one in touched if states.get(one, "none") not in NEVER_RAN)
        words = f"{self.describe(action)}: {len(touched)} task instances, {len(again)} of them ran before"
        radius = BlastRadius(task_instances=len(touched), dag_runs=1, dags=1)
        return Preview(words=(words,), radius=radius, tasks=again)

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        target, args = self.read(action)
        whole = await self._whole(airflow, target, args)
        return [_image(one) for one in await self._rows(airflow, _of(target, whole))]

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        target, args = self.read(action)
        named = _captured(before, target)
        whole = not set(named) <= set(target.refs)
        await airflow.clear(
            target.dag_id,
            target.run_id,
            named if whole else target.refs,
            dry_run=False,
            downstream=args.downstream and not whole,
            only_failed=self.only_failed and not whole,
            latest_version=args.latest_version,
            note=_note(before, key),
        )

    async def _whole(
        self, airflow: AirflowGateway, target: TasksOfRun, args: ClearArgs
    ) -> tuple[TaskRef, ...]:
        """All that must be cleared by name, where a teardown took away what the tasks work on; else nothing.

        Airflow takes setup and teardown along when it clears a task, but not when it clears what failed only:
        those two succeeded.
        """
        if not self.only_failed or not await has_teardown(airflow, target.dag_id):
            return ()
        chosen = partial(airflow.clear, target.dag_id, target.run_id, target.refs, dry_run=True)
        failed, scope = await asyncio.gather(
            chosen(downstream=args.downstream, only_failed=True), chosen(downstream=False, only_failed=False)
        )
        if not set(scope) - set(target.refs):
            return ()
        own = [ref for ref in target.refs if ref in failed]
        beside = [ref for ref in scope if ref not in target.refs]
        return tuple(dict.fromkeys([*own, *beside, *failed])) if own else ()

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        try:
            target, _ = self.read(action)
            rows = await self._rows(airflow, _of(target, _captured(before, target)))
        except NotFound:
            return Confirmation(found=Found.OVERTAKEN, why="the task instances are gone")
        now = [_image(one) for one in rows]
        if any(_has_key(one.note, key) for one in rows):
            return Confirmation(found=Found.DONE, after=list(now))
        if now == before:
            return Confirmation(found=Found.NOT_DONE, why="the tasks stand as they stood")
        return Confirmation(found=Found.OVERTAKEN, after=list(now), why="somebody else moved the tasks")

    async def finished(self, airflow: AirflowGateway, action: Action, *, key: str) -> bool:
        """Asked only when the plan goes on after it: with the consumer, or with the rest of a batch."""
        rows = await self._rows(airflow, self.read(action)[0])
        if bad := [str(one.task) for one in rows if one.state in {"failed", "upstream_failed"}]:
            raise Conflict(f"failed again: {listed(bad)}")
        if any(one.state in RUNNING_STATES for one in rows):
            return False
        return await self._run_at_rest(airflow, self.read(action)[0])

    async def _run_at_rest(self, airflow: AirflowGateway, target: TasksOfRun) -> bool:
        """A clear that comes while the scheduler ends the run is lost: the run has ended, or goes on."""
        run = await airflow.run(target.dag_id, target.run_id)
        if run.state not in RUNNING_STATES:
            return True
        return any(
            one.state in ACTIVE_STATES for one in await airflow.run_tasks(target.dag_id, target.run_id)
        )

    async def _rows(self, airflow: AirflowGateway, target: TasksOfRun) -> Sequence[TaskSnapshot]:
        """One request for all of them, however many map indexes there are."""
        if len(target.tasks) == 1:
            return [await airflow.task(target.refs[0])]
        found = {one.task: one for one in await airflow.run_tasks(target.dag_id, target.run_id)}
        if gone := [str(ref) for ref in target.refs if ref not in found]:
            raise NotFound(f"task instances are gone: {listed(gone)}")
        return [found[ref] for ref in target.refs]


class ClearTask(Clearing):
    """Runs the failed task instances again, in their own run."""

    name: ClassVar[str] = "clear_task"
    only_failed: ClassVar[bool] = True

    def describe(self, action: Action) -> str:
        target, args = self.read(action)
        after = " and what they hold back" if args.downstream else ""
        return f"clear {_named(target)} of run {target.run_id!r} of {target.dag_id!r}{after}"


class RerunUpstream(Clearing):
    """Runs the task again that made the bad input, in its own run; the plan goes on when it has ended."""

    name: ClassVar[str] = "rerun_upstream"
    only_failed: ClassVar[bool] = False

    def describe(self, action: Action) -> str:
        target, _ = self.read(action)
        return f"run upstream {_named(target)} of run {target.run_id!r} of {target.dag_id!r} again"


class OneTask(Parameters):
    """One task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    @property
    def ref(self) -> TaskRef:
        """The same as a reference."""
        return TaskRef(**self.model_dump())


class MarkArgs(Parameters):
    """What it is marked as."""

    state: str = Field("skipped", pattern="^(success|skipped)$")


class MarkTask(ActionKind[OneTask, MarkArgs]):
    """Declares a task done or skipped, so that what comes after it can run."""

    name: ClassVar[str] = "mark_task"
    kind: ClassVar[ActionClass] = ActionClass.COMPENSABLE
    undoable: ClassVar[bool] = False
    target = OneTask
    args = MarkArgs

    def describe(self, action: Action) -> str:
        target, args = self.read(action)
        return f"mark {target.ref} as {args.state}, without running it"

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        radius = BlastRadius(task_instances=1, dag_runs=1, dags=1)
        return Preview(words=(self.describe(action),), radius=radius)

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return _image(await airflow.task(self.read(action)[0].ref))

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        target, args = self.read(action)
        await airflow.mark_task(target.ref, args.state, note=_note([before], key))

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        target, args = self.read(action)
        row = await airflow.task(target.ref)
        now = _image(row)
        if row.state == args.state and _has_key(row.note, key):
            return Confirmation(found=Found.DONE, after=now)
        if now == before:
            return Confirmation(found=Found.NOT_DONE, why="the task stands as it stood")
        return Confirmation(found=Found.OVERTAKEN, after=now, why="somebody else moved the task")


async def has_teardown(airflow: AirflowGateway, dag_id: str) -> bool:
    """Whether anything in this DAG is torn down after use."""
    return any(info.trigger_rule == TEARDOWN for info in await airflow.dag_tasks(dag_id))


def _of(target: TasksOfRun, refs: Sequence[TaskRef]) -> TasksOfRun:
    """The same target, with these task instances when there are any."""
    named = tuple(MappedTask(task_id=one.task_id, map_index=one.map_index) for one in refs)
    return target.model_copy(update={"tasks": named or target.tasks})


def _captured(before: JsonValue, target: TasksOfRun) -> tuple[TaskRef, ...]:
    """The task instances in a before-image."""
    images = before if isinstance(before, list) else []
    named = tuple(MappedTask.of(one) for one in images if isinstance(one, dict))
    return target.model_copy(update={"tasks": named or target.tasks}).refs


def images_of(rows: Sequence[TaskSnapshot]) -> JsonValue:
    """The before-image of a clear of these, as `capture` makes it."""
    return [_image(one) for one in rows]


def _image(row: TaskSnapshot) -> JsonValue:
    return {
        "task_id": row.task.task_id,
        "map_index": row.task.map_index,
        "state": row.state,
        "try_number": row.try_number,
        "note": row.note,
    }


def _note(before: JsonValue, key: str) -> str:
    """The key, after what a person wrote when the note is one task's own."""
    only = before[0] if isinstance(before, list) and len(before) == 1 else None
    words = str(only.get("note") or "") if isinstance(only, dict) else ""
    return f"{words[: NOTE - len(key) - 1]}\n{key}" if words else key


def _has_key(note: str, key: str) -> bool:
    """Whole words only: attempt 1.1.1 is not 1.1.10."""
    return key in note.split()


def _named(target: TasksOfRun) -> str:
    if len(target.tasks) > 5:
        return f"{len(target.tasks)} instances of {listed(sorted({one.task_id for one in target.tasks}))}"
    return listed(
        one.task_id if one.map_index < 0 else f"{one.task_id}[{one.map_index}]" for one in target.tasks
    )
