"""The catalogue: parameters in bounds, edits of arguments only, previews in numbers, your own actions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from importlib.metadata import EntryPoint
from typing import ClassVar

import pytest
from pydantic import JsonValue

from graph.domain import Action, ActionClass, BlastRadius, FixPlan
from graph.errors import ActionRefused, SettingsInvalid
from tests.factories import make_clear, make_task
from tests.unit.fix_world import (
    BASE,
    CATALOGUE,
    CONTRACT,
    NEW_TEXT,
    OLD_TEXT,
    SETTINGS,
    TASK,
    clear,
    failed_airflow,
    make_fix,
    set_contract,
    verbs,
)
from tools.actions import ActionCatalogue, ActionKind, Confirmation, Found, NoArgs, Parameters, Preview
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try
from tools.gateway import TEARDOWN, AirflowGateway

CLASSES = {
    "add_note": ActionClass.REVERSIBLE,
    "backfill": ActionClass.IRREVERSIBLE,
    "clear_task": ActionClass.IRREVERSIBLE,
    "mark_task": ActionClass.COMPENSABLE,
    "notify": ActionClass.IRREVERSIBLE,
    "patch_connection": ActionClass.REVERSIBLE,
    "pause_dag": ActionClass.REVERSIBLE,
    "rerun_upstream": ActionClass.IRREVERSIBLE,
    "set_pool_slots": ActionClass.REVERSIBLE,
    "set_variable": ActionClass.REVERSIBLE,
    "trigger_dag": ActionClass.IRREVERSIBLE,
    "unpause_dag": ActionClass.COMPENSABLE,
    "wait": ActionClass.REVERSIBLE,
}


def test_every_action_declares_its_class() -> None:
    assert {name: CATALOGUE.get(name).kind for name in CATALOGUE.names} == CLASSES


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_action_has_a_closed_schema_of_its_arguments(name: str) -> None:
    schema = CATALOGUE.args_schema(name)

    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False


def test_an_unknown_action_is_refused() -> None:
    with pytest.raises(ActionRefused, match="no action is called 'delete_dag'"):
        CATALOGUE.get("delete_dag")


@pytest.mark.parametrize(
    "action",
    [
        pytest.param(Action(name="wait", args={"seconds": -1}), id="a wait into the past"),
        pytest.param(Action(name="wait", args={"seconds": 86_401}), id="a wait of more than a day"),
        pytest.param(
            Action(name="wait", target={"dag_id": "x"}, args={"seconds": 1}), id="a target too many"
        ),
        pytest.param(
            Action(name="clear_task", target={"dag_id": "d", "run_id": "r", "tasks": []}), id="no task"
        ),
        pytest.param(
            make_clear().model_copy(update={"args": {"only_failed": False}}), id="an argument it has not"
        ),
        pytest.param(
            Action(name="set_variable", target={"key": "api_url", "base": "x"}, args={"value": "y"}),
            id="an existing Variable that is no contract",
        ),
        pytest.param(
            Action(name="set_variable", target={"key": "api_token", "base": None}, args={"value": "y"}),
            id="a secret",
        ),
        pytest.param(set_contract("{"), id="a contract that is no JSON"),
        pytest.param(set_contract('{"columns": {}}'), id="a contract without columns"),
        pytest.param(set_contract(NEW_TEXT.replace("note", "***")), id="a masked value"),
        pytest.param(
            Action(
                name="patch_connection",
                target={"conn_id": "c", "base": BASE},
                args={"password": "x"},
            ),
            id="a password",
        ),
        pytest.param(
            Action(name="patch_connection", target={"conn_id": "c", "base": BASE}, args={}),
            id="no field to change",
        ),
        pytest.param(
            Action(name="set_pool_slots", target={"pool": "p", "base": 0}, args={"slots": 5000}),
            id="a pool too large",
        ),
        pytest.param(
            Action(name="mark_task", target=dict(TASK.model_dump()), args={"state": "failed"}),
            id="a mark that heals nothing",
        ),
    ],
)
def test_parameters_out_of_bounds_are_refused(action: Action) -> None:
    with pytest.raises(ActionRefused):
        CATALOGUE.validate(action)


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(make_fix(), id="no action"),
        pytest.param(make_fix(clear(), Action(name="wait", args={"seconds": 5})), id="a wait that is late"),
        pytest.param(make_fix(Action(name="drop_table")), id="an unknown action"),
    ],
)
def test_a_plan_must_make_sense(plan: FixPlan) -> None:
    with pytest.raises(ActionRefused):
        CATALOGUE.validate_plan(plan)


# --- edits ------------------------------------------------------------------------------------------------


def test_an_edit_changes_arguments_and_the_diff() -> None:
    plan = make_fix(set_contract(), clear())
    other = NEW_TEXT.replace("note", "remark")

    edited = CATALOGUE.with_args(plan, [{"value": other}, {}])

    assert edited.actions[0].args == {"value": other}
    assert edited.actions[0].target == plan.actions[0].target
    assert edited.actions[1] == plan.actions[1]
    assert '+    "remark": {' in edited.diff
    assert edited.id != plan.id


def test_values_from_an_inbox_come_as_texts() -> None:
    plan = make_fix(SETTINGS["pool"])

    edited = CATALOGUE.with_args(plan, [{"slots": "5"}])

    assert edited.actions[0].args == {"slots": 5}


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param([{}], id="an action is missing"),
        pytest.param([{"key": "airmedic_contract_other"}, {}], id="a target among the arguments"),
        pytest.param([{"value": "{}"}, {}], id="a value that is no contract"),
        pytest.param([{}, {"tasks": [{"task_id": "other"}]}], id="other tasks"),
    ],
)
def test_an_edit_never_changes_a_target(edit: list[dict[str, JsonValue]]) -> None:
    with pytest.raises(ActionRefused):
        CATALOGUE.with_args(make_fix(set_contract(), clear()), edit)


def test_a_value_that_a_person_must_give_is_named() -> None:
    plan = make_fix(Action(name="set_variable", target={"key": "orders_path", "base": None}), clear())

    assert CATALOGUE.missing(plan) == ("set_variable.value",)
    assert CATALOGUE.missing(CATALOGUE.with_args(plan, [{"value": "/api"}, {}])) == ()


# --- previews ---------------------------------------------------------------------------------------------


async def test_a_preview_counts_by_airflows_own_dry_run() -> None:
    airflow = await failed_airflow()

    preview = await CATALOGUE.preview(airflow, make_fix(set_contract(), clear()))

    assert preview.radius == BlastRadius(task_instances=2, dag_runs=1, dags=1, settings=1)
    assert [task.task_id for task in preview.tasks] == ["load"]  # `report` never ran
    assert preview.reruns[0].tags == ("airmedic:rerun-safe",)
    assert verbs(airflow) == []


async def test_two_clears_of_one_run_touch_one_run() -> None:
    preview = await CATALOGUE.preview(await failed_airflow(), make_fix(clear(), clear()))

    assert (preview.radius.dag_runs, preview.radius.dags) == (1, 1)


async def test_a_preview_shows_the_diff() -> None:
    preview = await CATALOGUE.preview(await failed_airflow(), make_fix(set_contract()))

    assert f"--- {CONTRACT} (now)" in preview.diff
    assert '+    "note": {' in preview.diff


async def test_a_task_is_cleared_with_what_it_works_on() -> None:
    airflow = MemoryAirflow()
    airflow.auto = False
    airflow.add_dag(
        "orders",
        [
            TaskSpec("make", downstream=("load",)),
            TaskSpec("load", (Try("failed"), Try()), ("report", "drop"), scope=("make", "drop")),
            TaskSpec("report"),
            TaskSpec("drop", trigger_rule=TEARDOWN),
        ],
    )
    airflow.start("orders", "manual__1")
    await airflow.settle()
    kind, action = CATALOGUE.get("clear_task"), make_clear()

    preview = await kind.preview(airflow, action)
    before = await kind.capture(airflow, action)
    await kind.apply(airflow, action, before=before, key="airmedic:7.1.0")

    assert preview.radius.task_instances == 4
    assert {one.task_id for one in preview.tasks} == {"make", "load", "drop"}  # policy judges all three
    assert {one.state for one in await airflow.run_tasks("orders", "manual__1")} == {"none"}
    seen = await kind.confirm(airflow, action, before=before, key="airmedic:7.1.0")
    assert seen.found is Found.DONE


async def test_a_batch_is_read_in_one_request() -> None:
    airflow = MemoryAirflow()
    many = TaskSpec("load", (Try("failed"), Try()), map_indexes=tuple(range(50)))
    airflow.add_dag("orders", [many])
    airflow.start("orders", "manual__1")
    await airflow.settle()
    failed = [make_task(map_index=number) for number in range(50)]
    target: dict[str, JsonValue] = {
        "dag_id": "orders",
        "run_id": "manual__1",
        "tasks": [{"task_id": one.task_id, "map_index": one.map_index} for one in failed],
    }
    action = Action(name="clear_task", target=target, args={"downstream": False})
    airflow.calls.clear()

    await CATALOGUE.get("clear_task").capture(airflow, action)

    assert airflow.calls == ["dag_tasks", "run_tasks"]
    assert "50 instances of load" in CATALOGUE.describe(action)


# --- runs -------------------------------------------------------------------------------------------------


async def test_a_trigger_asked_twice_starts_one_run() -> None:
    airflow = await failed_airflow()
    kind, action = CATALOGUE.get("trigger_dag"), Action(name="trigger_dag", target={"dag_id": "feed"})

    for _ in range(2):
        await kind.apply(airflow, action, before=None, key="airmedic:7.1.0")

    assert len(await airflow.recent_runs("feed")) == 1


async def test_a_backfill_makes_what_is_missing() -> None:
    airflow = MemoryAirflow()
    airflow.add_dag("hourly", [TaskSpec("load")], schedule=timedelta(hours=1))
    since, until = datetime(2026, 1, 1, 0, tzinfo=UTC), datetime(2026, 1, 1, 2, tzinfo=UTC)
    target: dict[str, JsonValue] = {
        "dag_id": "hourly",
        "since": since.isoformat(),
        "until": until.isoformat(),
    }
    kind, action = CATALOGUE.get("backfill"), Action(name="backfill", target=target)
    before = await kind.capture(airflow, action)

    preview = await kind.preview(airflow, action)
    assert preview.radius.dag_runs == 3
    assert (await kind.confirm(airflow, action, before=before, key="k")).found is Found.NOT_DONE
    await kind.apply(airflow, action, before=before, key="k")

    assert (await kind.confirm(airflow, action, before=before, key="k")).found is Found.DONE


async def test_a_mark_lets_the_rest_run() -> None:
    airflow = await failed_airflow()
    kind = CATALOGUE.get("mark_task")
    action = Action(name="mark_task", target=dict(TASK.model_dump()), args={"state": "success"})
    before = await kind.capture(airflow, action)

    await kind.apply(airflow, action, before=before, key="airmedic:7.1.0")
    await airflow.settle()

    assert (await kind.confirm(airflow, action, before=before, key="airmedic:7.1.0")).found is Found.DONE
    assert (await airflow.task(make_task(task_id="report"))).state == "success"


# --- your own action --------------------------------------------------------------------------------------


class Topic(Parameters):
    """The target: set by your planner, never edited."""

    name: str


class PauseConsumer(ActionKind[Topic, NoArgs]):
    """An action of your own. In your package's pyproject.toml:

    [project.entry-points."airmedic.actions"]
    pause_consumer = "your_package.actions:PauseConsumer"
    """

    name: ClassVar[str] = "pause_consumer"
    kind: ClassVar[ActionClass] = ActionClass.REVERSIBLE
    target = Topic
    args = NoArgs

    def describe(self, action: Action) -> str:
        return f"pause the consumer of {self.read(action)[0].name!r}"

    async def preview(self, airflow: AirflowGateway, action: Action) -> Preview:
        return Preview(words=(self.describe(action),), radius=BlastRadius(settings=1))

    async def capture(self, airflow: AirflowGateway, action: Action) -> JsonValue:
        return "running"

    async def apply(self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str) -> None:
        """Call your own system here."""

    async def confirm(
        self, airflow: AirflowGateway, action: Action, *, before: JsonValue, key: str
    ) -> Confirmation:
        return Confirmation(found=Found.DONE, after="paused")


def point(value: str, name: str = "pause_consumer") -> EntryPoint:
    return EntryPoint(name=name, value=value, group="airmedic.actions")


def test_your_own_action_is_found_by_its_entry_point() -> None:
    catalogue = ActionCatalogue.default([point(f"{__name__}:PauseConsumer")])

    action = Action(name="pause_consumer", target={"name": "orders"})
    assert catalogue.describe(action) == "pause the consumer of 'orders'"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        pytest.param("no_such_package:Action", "does not load", id="a package that is not there"),
        pytest.param(f"{__name__}:Topic", "is no complete ActionKind", id="something that is no action"),
        pytest.param("tools.actions.running:Wait", "two actions are called 'wait'", id="a name taken"),
    ],
)
def test_a_wrong_entry_point_stops_the_start(value: str, words: str) -> None:
    with pytest.raises(SettingsInvalid, match=words):
        ActionCatalogue.default([point(value)])


def test_old_text_is_the_base_of_the_edit() -> None:
    assert set_contract().target["base"] == OLD_TEXT
