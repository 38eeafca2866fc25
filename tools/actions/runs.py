"""Actions that start new runs: of a DAG that did not run, of intervals that were missed."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from pydantic import AwareDatetime, Field, JsonValue, model_validator

from graph.domain import RUNNING_STATES, Action, ActionClass, BlastRadius, digest
from graph.errors import ActionRefused, Conflict, NotFound
from tools.actions.kind import ActionKind, Confirmation, Found, NoArgs, Parameters, Preview, listed
from tools.gateway import AirflowGateway

GROWTH = 20  # runs by which an open gap may grow between question and answer, beyond twice what was shown


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
    """The gap in a DAG's runs: up to `until`, or still open and growing until the moment it is filled."""

    dag_id: str = Field(min_length=1)
    since: AwareDatetime
    until: AwareDatetime | None = None
    shown: tuple[AwareDatetime, ...] = ()  #: the intervals that were missing when the plan was made

    @model_validator(mode="after")
    def _bounded(self) -> BackfillTarget:
        if self.until is None and not self.shown:
            raise ValueError("an open gap names the intervals that were shown")
        return self

    def holds(self, date: datetime | None) -> bool:
        """Whether the run of this logical date belongs to the gap."""
        return date is not None and self.since <= date and (self.until is None or date <= self.until)

    @property
    def most(self) -> int:
        """How many runs an open gap may have become by the time it is filled."""
        return 2 * len(self.shown) + GROWTH


class Backfill(ActionKind[BackfillTarget, NoArgs]):
    """Creates the runs that are missing in an interval, and no others."""

    name: ClassVar[str] = "backfill"
    kind: ClassVar[ActionClass] = ActionClass.IRREVERSIBLE
    undoable: ClassVar[bool] = False
    target = BackfillTarget
    args = NoArgs

    def describe(self, action: Action) -> str:
        target, _ = self.read(action)
        end = f"to {target.until:%Y-%m-%d %H:%M}" if target.until else "up to the moment it is filled"
        return f"backfill {target.dag_id!r} from {target.since:%Y-%m-%d %H:%M} {end}"

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        missing = await self._missing(airflow, action)
        tasks = await airflow.dag_tasks(self.read(action)[0].dag_id)
        words = f"{self.describe(action)}: {len(missing)} runs ({listed(missing)})"
        radius = BlastRadius(task_instances=len(missing) * len(tasks), dag_runs=len(missing), dags=1)
        return Preview(words=(words,), radius=radius)

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        target, _ = self.read(action)
        if target.until is None:
            # It grows while one looks: what was shown is what the read-back asks for.
            return [one.isoformat() for one in target.shown]
        return list(await self._missing(airflow, action))

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        target, _ = self.read(action)
        if target.until is None and (now := len(await self._missing(airflow, action))) > target.most:
            raise ActionRefused(f"backfill: {now} runs are missing by now and {len(target.shown)} were shown")
        await airflow.backfill(target.dag_id, since=target.since, until=target.until, dry_run=False)

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        missing = {datetime.fromisoformat(one) for one in await self._missing(airflow, action)}
        wanted = [one for one in before if isinstance(one, str)] if isinstance(before, list) else []
        left = [date for date in wanted if datetime.fromisoformat(date) in missing]
        if wanted and left == wanted:
            return Confirmation(found=Found.NOT_DONE, why="the runs are still missing")
        return Confirmation(found=Found.DONE, after=[date for date in wanted if date not in left])

    async def finished(self, airflow: AirflowGateway, action: Action, *, key: str) -> bool:
        target, _ = self.read(action)
        if (await airflow.dag(target.dag_id)).is_paused:
            return True  # its runs begin when the plan's next action unpauses it
        runs = await airflow.recent_runs(target.dag_id, limit=100)
        return all(run.state not in RUNNING_STATES for run in runs if target.holds(run.logical_date))

    async def _missing(self, airflow: AirflowGateway, action: Action) -> tuple[str, ...]:
        target, _ = self.read(action)
        return await airflow.backfill(target.dag_id, since=target.since, until=target.until, dry_run=True)
