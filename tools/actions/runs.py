"""Actions that start new runs: of a DAG that did not run, of intervals that were missed."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import AwareDatetime, Field, JsonValue

from graph.domain import RUNNING_STATES, Action, ActionClass, BlastRadius, digest
from graph.errors import Conflict, NotFound
from tools.actions.kind import ActionKind, Confirmation, Found, NoArgs, Parameters, Preview, listed
from tools.gateway import AirflowGateway


class TriggerTarget(Parameters):
    """The DAG to start, and the failure it is started for."""

    dag_id: str = Field(min_length=1)
    on_behalf: str = ""  #: the failed task instance that needs the run


class TriggerArgs(Parameters):
    """What the run is given."""

    conf: dict[str, JsonValue] = Field(default_factory=dict)


class TriggerDag(ActionKind[TriggerTarget, TriggerArgs]):
    """Starts one run under an id made from the ledger's key: asked twice, Airflow starts one."""

    name: ClassVar[str] = "trigger_dag"
    kind: ClassVar[ActionClass] = ActionClass.IRREVERSIBLE
    undoable: ClassVar[bool] = False
    target = TriggerTarget
    args = TriggerArgs

    def describe(self, action: Action) -> str:
        return f"start a run of DAG {self.read(action)[0].dag_id!r}"

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        tasks = await airflow.dag_tasks(self.read(action)[0].dag_id)
        radius = BlastRadius(task_instances=len(tasks), dag_runs=1, dags=1)
        return Preview(words=(f"{self.describe(action)}: {len(tasks)} tasks",), radius=radius)

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return {"is_paused": (await airflow.dag(self.read(action)[0].dag_id)).is_paused}

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        target, args = self.read(action)
        try:
            await airflow.trigger(target.dag_id, run_id=self._run_id(action, key), conf=args.conf, note=key)
        except Conflict:
            # The id is ours alone: the run is there because we asked before.
            await airflow.run(target.dag_id, self._run_id(action, key))

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        target, _ = self.read(action)
        try:
            run = await airflow.run(target.dag_id, self._run_id(action, key))
        except NotFound:
            return Confirmation(found=Found.NOT_DONE, why="there is no such run")
        return Confirmation(found=Found.DONE, after={"run_id": run.run_id})

    async def finished(self, airflow: AirflowGateway, action: Action, *, key: str) -> bool:
        run = await airflow.run(self.read(action)[0].dag_id, self._run_id(action, key))
        if run.state == "failed":
            raise Conflict(f"run {run.run_id!r} of {run.dag_id!r} failed")
        return run.state == "success"

    def _run_id(self, action: Action, key: str) -> str:
        named = digest([action.target, key])[:8]
        return f"{key.replace(':', '__')}__{named}"


class BackfillTarget(Parameters):
    """The gap in a DAG's runs."""

    dag_id: str = Field(min_length=1)
    since: AwareDatetime
    until: AwareDatetime

    @property
    def interval(self) -> tuple[datetime, datetime]:
        """Both ends."""
        return self.since, self.until


class Backfill(ActionKind[BackfillTarget, NoArgs]):
    """Creates the runs that are missing in an interval, and no others."""

    name: ClassVar[str] = "backfill"
    kind: ClassVar[ActionClass] = ActionClass.IRREVERSIBLE
    undoable: ClassVar[bool] = False
    target = BackfillTarget
    args = NoArgs

    def describe(self, action: Action) -> str:
        target, _ = self.read(action)
        return (
            f"backfill {target.dag_id!r} from {target.since:%Y-%m-%d %H:%M} to {target.until:%Y-%m-%d %H:%M}"
        )

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        missing = await self._missing(airflow, action)
        tasks = await airflow.dag_tasks(self.read(action)[0].dag_id)
        words = f"{self.describe(action)}: {len(missing)} runs ({listed(missing)})"
        radius = BlastRadius(task_instances=len(missing) * len(tasks), dag_runs=len(missing), dags=1)
        return Preview(words=(words,), radius=radius)

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return list(await self._missing(airflow, action))

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        target, _ = self.read(action)
        await airflow.backfill(target.dag_id, since=target.since, until=target.until, dry_run=False)

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        missing = await self._missing(airflow, action)
        wanted = before if isinstance(before, list) else []
        left = [date for date in wanted if date in missing]
        if wanted and left == wanted:
            return Confirmation(found=Found.NOT_DONE, why="the runs are still missing")
        return Confirmation(found=Found.DONE, after=[date for date in wanted if date not in left])

    async def finished(self, airflow: AirflowGateway, action: Action, *, key: str) -> bool:
        target, _ = self.read(action)
        runs = await airflow.recent_runs(target.dag_id, limit=100)
        inside = [
            run for run in runs if run.logical_date and target.since <= run.logical_date <= target.until
        ]
        return all(run.state not in RUNNING_STATES for run in inside)

    async def _missing(self, airflow: AirflowGateway, action: Action) -> tuple[str, ...]:
        target, _ = self.read(action)
        return await airflow.backfill(target.dag_id, since=target.since, until=target.until, dry_run=True)
