"""All actions that may stand in a plan, and what can be asked of a plan without Airflow's writing."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract

from pydantic import JsonValue

from graph.domain import Action, ActionClass, BlastRadius, FixPlan, TaskRef
from graph.errors import ActionRefused, SettingsInvalid
from tools.actions.kind import ActionKind, AnyKind, Preview, Rerun
from tools.actions.notes import AddNote, Notify
from tools.actions.running import ClearTask, MarkTask, RerunUpstream, Wait
from tools.actions.runs import Backfill, TriggerDag
from tools.actions.settings import PatchConnection, PauseDag, SetPoolSlots, SetVariable, UnpauseDag
from tools.gateway import AirflowGateway

GROUP = "airmedic.actions"


class ActionCatalogue:
    """Looks actions up by name."""

    def __init__(self, kinds: Iterable[AnyKind]) -> None:
        self._kinds: dict[str, AnyKind] = {}
        for kind in kinds:
            if kind.name in self._kinds:
                raise SettingsInvalid(f"two actions are called {kind.name!r}")
            self._kinds[kind.name] = kind

    @classmethod
    def default(cls, plugins: Iterable[EntryPoint] | None = None) -> ActionCatalogue:
        """Airmedic's own actions and those of installed packages (entry-point group `airmedic.actions`)."""
        found = entry_points(group=GROUP) if plugins is None else plugins
        return cls([*built_in(), *(_load(one) for one in found)])

    @property
    def names(self) -> tuple[str, ...]:
        """Every action there is."""
        return tuple(sorted(self._kinds))

    def get(self, name: str) -> AnyKind:
        """The action of this name; `ActionRefused` when there is none."""
        if name not in self._kinds:
            raise ActionRefused(f"no action is called {name!r}; there are {', '.join(self.names)}")
        return self._kinds[name]

    def validate(self, action: Action) -> None:
        """`ActionRefused` when the action or one of its parameters is out of bounds."""
        self.get(action.name).read(action)

    def validate_plan(self, plan: FixPlan) -> None:
        """Every action, and that a wait stands first or nowhere."""
        if not plan.actions:
            raise ActionRefused("the plan has no action")
        for position, action in enumerate(plan.actions):
            self.validate(action)
            if action.name == "wait" and position:
                raise ActionRefused("a wait stands first in a plan, or nowhere")

    def describe(self, action: Action) -> str:
        """One sentence for a person."""
        return self.get(action.name).describe(action)

    def args_schema(self, name: str) -> dict[str, JsonValue]:
        """JSON schema of what a person may edit."""
        schema: dict[str, JsonValue] = self.get(name).args.model_json_schema(by_alias=True)
        return schema

    def missing(self, plan: FixPlan) -> tuple[str, ...]:
        """`action.argument` of everything a person must give before the plan can be approved."""
        return tuple(
            f"{action.name}.{name}"
            for action in plan.actions
            for name in self.get(action.name).missing(action)
        )

    def reruns(self, plan: FixPlan) -> tuple[TaskRef, ...]:
        """The task instances that the plan names for another run."""
        return tuple(ref for action in plan.actions for ref in self.get(action.name).reruns(action))

    def changes_settings(self, plan: FixPlan) -> bool:
        """Whether the plan may be what breaks the next task: one that only runs again cannot."""
        kinds = [self.get(action.name) for action in plan.actions]
        return any(kind.writes and kind.kind is ActionClass.REVERSIBLE for kind in kinds)

    def with_args(self, plan: FixPlan, edited: Sequence[dict[str, JsonValue]]) -> FixPlan:
        """The plan with a person's arguments: one object per action, merged over the old ones.

        Targets cannot be named here at all. `ActionRefused` when the count or a value is wrong.
        """
        if len(edited) != len(plan.actions):
            raise ActionRefused(f"the plan has {len(plan.actions)} actions, the edit {len(edited)}")
        actions, given = [], list[str]()
        for action, args in zip(plan.actions, edited, strict=True):
            changed = action.model_copy(update={"args": {**action.args, **args}})
            kind = self.get(action.name)
            _, typed = kind.read(changed)
            plain = typed.model_dump(mode="json", by_alias=True, exclude_unset=True)
            actions.append(changed.model_copy(update={"args": plain}))
            given += [name for name, value in plain.items() if action.args.get(name) != value]
        diff = "\n".join(text for one in actions if (text := self.get(one.name).diff(one)))
        # Its words are those of before: they name no value, for that may be a secret.
        summary = f"{plan.summary} (edited: {', '.join(given)})" if given else plan.summary
        made = plan.model_copy(update={"actions": tuple(actions), "diff": diff, "summary": summary})
        self.validate_plan(made)
        return made

    async def preview(self, airflow: AirflowGateway, plan: FixPlan) -> Preview:
        """What the whole plan would touch, and which tasks would run a second time."""
        parts = [await self.get(action.name).preview(airflow, action) for action in plan.actions]
        tasks = tuple(dict.fromkeys(task for part in parts for task in part.tasks))
        return Preview(
            words=tuple(word for part in parts for word in part.words),
            radius=_together(plan, parts),
            diff="\n".join(part.diff for part in parts if part.diff),
            tasks=tasks,
            reruns=await _declared(airflow, tasks),
        )


def built_in() -> tuple[AnyKind, ...]:
    """Airmedic's own actions."""
    kinds: tuple[type[AnyKind], ...] = (
        AddNote,
        Backfill,
        ClearTask,
        MarkTask,
        Notify,
        PatchConnection,
        PauseDag,
        RerunUpstream,
        SetPoolSlots,
        SetVariable,
        TriggerDag,
        UnpauseDag,
        Wait,
    )
    return tuple(kind() for kind in kinds)


def _load(point: EntryPoint) -> AnyKind:
    try:
        found = point.load()
    except (ImportError, AttributeError) as exc:
        raise SettingsInvalid(f"action {point.name!r} ({point.value}) does not load: {exc}") from exc
    if isinstance(found, type) and issubclass(found, ActionKind) and not isabstract(found):
        return found()
    if isinstance(found, ActionKind):
        return found
    raise SettingsInvalid(f"action {point.name!r} ({point.value}) is no complete ActionKind")


def _together(plan: FixPlan, parts: Sequence[Preview]) -> BlastRadius:
    """Sums, but a run or a DAG that two actions touch counts once."""
    pairs = list(zip(plan.actions, parts, strict=True))
    dags = {action.target["dag_id"] for action, _ in pairs if "dag_id" in action.target}
    runs = {(action.target["dag_id"], action.target["run_id"]) for action, _ in pairs if _in_a_run(action)}
    new_runs = sum(part.radius.dag_runs for action, part in pairs if not _in_a_run(action))
    return BlastRadius(
        task_instances=sum(part.radius.task_instances for part in parts),
        dag_runs=len(runs) + new_runs,
        dags=max(len(dags), *(part.radius.dags for part in parts), 0),
        settings=sum(part.radius.settings for part in parts),
    )


def _in_a_run(action: Action) -> bool:
    return "dag_id" in action.target and "run_id" in action.target


async def _declared(airflow: AirflowGateway, tasks: Sequence[TaskRef]) -> tuple[Rerun, ...]:
    """What the DAGs of these tasks say about running them again."""
    found: dict[tuple[str, str], Rerun] = {}
    for dag_id in dict.fromkeys(task.dag_id for task in tasks):
        dag, infos = await asyncio.gather(airflow.dag(dag_id), airflow.dag_tasks(dag_id))
        retries = {info.task_id: info.retries for info in infos}
        for task in tasks:
            if task.dag_id == dag_id:
                found[dag_id, task.task_id] = Rerun(
                    dag_id=dag_id,
                    task_id=task.task_id,
                    tags=dag.tags,
                    retries=retries.get(task.task_id, 0),
                    is_paused=dag.is_paused,
                )
    return tuple(found.values())
