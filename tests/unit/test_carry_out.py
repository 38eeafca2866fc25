"""Each write exactly once, whatever happens; nothing on a world that moved; undo restores what was there."""

from __future__ import annotations

import pytest
from pydantic import JsonValue

from graph.domain import Action, Step
from graph.errors import (
    ActionRefused,
    AirflowDoubt,
    AirflowUnreachable,
    Conflict,
    LeaseLost,
    NotPermitted,
    NotYet,
    StalePlan,
    UndoBlocked,
)
from tests.factories import make_task
from tests.unit.fix_world import (
    CATALOGUE,
    CONTRACT,
    NEW_TEXT,
    OLD_TEXT,
    SETTINGS,
    TASK,
    WRITE_VERBS,
    Bench,
    clear,
    failed_airflow,
    make_fix,
    set_contract,
    settings_of,
    verbs,
)
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try

WAIT = Action(name="wait", args={"seconds": 20})


async def test_a_plan_is_applied_in_order_and_confirmed() -> None:
    bench = Bench(await failed_airflow())

    entries = await bench.apply(make_fix(WAIT, set_contract(), clear()))

    assert [entry.step for entry in entries] == [Step.CONFIRMED] * 3
    assert verbs(bench.airflow) == ["set_variable", "clear"]
    assert bench.airflow.stored_variable(CONTRACT) == NEW_TEXT
    assert entries[1].before == OLD_TEXT


async def test_the_ledger_key_stands_in_airflows_note() -> None:
    bench = Bench(await failed_airflow())

    (entry,) = await bench.apply(make_fix(clear()))

    assert (await bench.airflow.task(TASK)).note == entry.key


async def test_a_persons_note_is_kept() -> None:
    bench = Bench(await failed_airflow())
    with bench.airflow.by_someone_else():
        await bench.airflow.set_task_note(TASK, "Ada looks at it")

    (entry,) = await bench.apply(make_fix(clear()))

    assert (await bench.airflow.task(TASK)).note == f"Ada looks at it\n{entry.key}"


async def test_the_same_plan_again_writes_nothing() -> None:
    bench = Bench(await failed_airflow())
    plan = make_fix(set_contract(), clear())
    await bench.apply(plan)

    await bench.apply(plan)

    assert verbs(bench.airflow) == ["set_variable", "clear"]


async def test_another_plan_cannot_take_the_place_of_the_first() -> None:
    bench = Bench(await failed_airflow())
    await bench.apply(make_fix(set_contract()))

    with pytest.raises(ActionRefused):
        await bench.ledger.intend(1, 0, clear(), None)


@pytest.mark.parametrize("name", [*SETTINGS, "clear"])
@pytest.mark.parametrize("arrived", [True, False], ids=["it had arrived", "it never arrived"])
async def test_a_lost_answer_is_read_back(name: str, arrived: bool) -> None:
    bench = Bench(await failed_airflow())
    action = SETTINGS.get(name) or clear()
    bench.airflow.fail_next(WRITE_VERBS[action.name], AirflowDoubt("no answer"), after_effect=arrived)

    (entry,) = await bench.apply(make_fix(action))

    assert entry.step is Step.CONFIRMED
    assert verbs(bench.airflow) == [WRITE_VERBS[action.name]]


async def test_a_write_that_never_arrives_is_given_up_for_now() -> None:
    bench = Bench(await failed_airflow())
    bench.airflow.fail_next("clear", AirflowUnreachable("refused"), times=3)

    with pytest.raises(AirflowUnreachable):
        await bench.apply(make_fix(clear()))

    assert await bench.steps() == [Step.INTENT]
    assert (await bench.apply(make_fix(clear())))[0].step is Step.CONFIRMED


async def test_while_airflow_is_away_the_write_stays_sent() -> None:
    bench = Bench(await failed_airflow())
    bench.airflow.fail_next("clear", AirflowDoubt("no answer"), after_effect=True)
    plan = make_fix(clear())
    # The capture, the guard and the second look read the task; the read-back is the fourth.
    bench.airflow.calls.clear()
    await bench.apply(plan)
    reads = bench.airflow.calls.count("task")

    again = Bench(await failed_airflow())
    again.airflow.fail_next("clear", AirflowDoubt("no answer"), after_effect=True)
    original = again.airflow.task

    async def away_after(*args: object) -> object:
        if again.airflow.calls.count("task") == reads - 1:
            raise AirflowUnreachable("away")
        return await original(TASK)

    again.airflow.task = away_after  # type: ignore[method-assign,assignment]
    with pytest.raises(AirflowUnreachable):
        await again.apply(plan)
    assert await again.steps() == [Step.SENT]

    again.airflow.task = original  # type: ignore[method-assign]
    assert (await again.apply(plan))[0].step is Step.CONFIRMED
    assert verbs(again.airflow) == ["clear"]


async def test_a_refused_write_is_failed_and_ends_the_plan() -> None:
    bench = Bench(await failed_airflow())
    bench.airflow.fail_next("set_variable", NotPermitted("no"))

    with pytest.raises(NotPermitted):
        await bench.apply(make_fix(set_contract(), clear()))

    assert await bench.steps() == [Step.FAILED]
    assert verbs(bench.airflow) == []


async def test_a_failed_entry_is_not_tried_again() -> None:
    bench = Bench(await failed_airflow())
    bench.airflow.fail_next("set_variable", NotPermitted("no"))
    plan = make_fix(set_contract(), clear())
    with pytest.raises(NotPermitted):
        await bench.apply(plan)

    with pytest.raises(Conflict):
        await bench.apply(plan)


# --- the world moved --------------------------------------------------------------------------------------


async def test_nothing_is_written_when_the_task_moved() -> None:
    bench = Bench(await failed_airflow())
    with bench.airflow.by_someone_else():
        await bench.airflow.clear("orders", "manual__1", [TASK], dry_run=False)

    with pytest.raises(StalePlan):
        await bench.apply(make_fix(set_contract(), clear()))

    assert verbs(bench.airflow) == []


async def test_a_contract_changed_since_planning_is_not_overwritten() -> None:
    bench = Bench(await failed_airflow())
    with bench.airflow.by_someone_else():
        await bench.airflow.set_variable(CONTRACT, NEW_TEXT.replace("note", "remark"))

    with pytest.raises(StalePlan):
        await bench.apply(make_fix(set_contract()))

    assert verbs(bench.airflow) == []


@pytest.mark.parametrize("name", ["contract", "pause"])
async def test_a_setting_changed_between_intent_and_write_is_left_alone(name: str) -> None:
    bench = Bench(await failed_airflow())
    plan = make_fix(SETTINGS[name])
    before = await CATALOGUE.get(plan.actions[0].name).capture(bench.airflow, plan.actions[0])
    await bench.ledger.intend(1, 0, plan.actions[0], before)
    with bench.airflow.by_someone_else():
        await bench.airflow.set_variable(CONTRACT, NEW_TEXT.replace("note", "remark"))
        await bench.airflow.set_paused("feed", paused=True)

    with pytest.raises(StalePlan):
        await bench.apply(plan)

    assert verbs(bench.airflow) == []


async def test_a_contract_reformatted_by_airflow_is_the_same_contract() -> None:
    bench = Bench(await failed_airflow())
    with bench.airflow.by_someone_else():
        await bench.airflow.set_variable(CONTRACT, OLD_TEXT.replace(" ", "\n  "))

    assert (await bench.apply(make_fix(set_contract())))[0].step is Step.CONFIRMED


async def test_after_a_crash_somebody_elses_clear_is_not_taken_for_ours() -> None:
    bench = Bench(await failed_airflow())
    plan = make_fix(clear())
    image = await CATALOGUE.get("clear_task").capture(bench.airflow, clear())
    entry = await bench.ledger.intend(1, 0, plan.actions[0], image)
    await bench.ledger.advance(entry, Step.SENT)
    with bench.airflow.by_someone_else():
        await bench.airflow.clear("orders", "manual__1", [TASK], dry_run=False)

    with pytest.raises(StalePlan):
        await bench.apply(plan)

    assert await bench.steps() == [Step.FAILED]
    assert verbs(bench.airflow) == []


async def test_a_masked_variable_is_never_captured() -> None:
    bench = Bench(await failed_airflow())
    masked = '{"password": "x"}'
    bench.airflow.add_variable(CONTRACT, masked)

    with pytest.raises(ActionRefused):
        await bench.apply(make_fix(set_contract()))

    assert verbs(bench.airflow) == []
    assert await bench.ledger.entries() == ()


# --- the lease --------------------------------------------------------------------------------------------


async def test_a_lost_lease_stops_before_the_write() -> None:
    bench = Bench(await failed_airflow())
    plan = make_fix(set_contract())
    await bench.ledger.intend(1, 0, plan.actions[0], OLD_TEXT)
    guard = bench.guard

    async def lease_goes_now() -> None:
        await guard()
        bench.ledger.fence = True

    bench.guard = lease_goes_now  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        await bench.apply(plan)

    assert verbs(bench.airflow) == []


# --- one action after another -----------------------------------------------------------------------------


async def test_the_consumer_is_cleared_only_when_the_producer_has_ended() -> None:
    bench = Bench(await failed_airflow())
    trigger = Action(name="trigger_dag", target={"dag_id": "feed"})
    plan = make_fix(trigger, clear())

    with pytest.raises(NotYet):
        await bench.apply(plan)
    assert verbs(bench.airflow) == ["trigger"]
    await bench.airflow.settle()
    await bench.apply(plan)

    assert verbs(bench.airflow) == ["trigger", "clear"]


async def test_a_producer_that_fails_ends_the_plan() -> None:
    bench = Bench(await failed_airflow())
    bench.airflow.add_dag("feed", [TaskSpec("publish", (Try("failed"),))])
    plan = make_fix(Action(name="trigger_dag", target={"dag_id": "feed"}), clear())
    with pytest.raises(NotYet):
        await bench.apply(plan)
    await bench.airflow.settle()

    with pytest.raises(Conflict):
        await bench.apply(plan)

    assert verbs(bench.airflow) == ["trigger"]


def map_index_of(task: str, number: int) -> Action:
    target: dict[str, JsonValue] = {
        "dag_id": "batch",
        "run_id": "manual__1",
        "tasks": [{"task_id": task, "map_index": number}],
    }
    return Action(name="clear_task", target=target, args={"downstream": False})


@pytest.mark.parametrize("canary", ["success", "failed"])
async def test_the_rest_of_a_batch_follows_only_a_canary_that_succeeded(canary: str) -> None:
    airflow = MemoryAirflow()
    tries = (Try("failed"), Try(canary))
    airflow.add_dag("batch", [TaskSpec("load", tries, map_indexes=(0, 1))])
    airflow.start("batch", "manual__1")
    await airflow.settle()
    own = make_task(dag_id="batch", map_index=1)
    bench = Bench(airflow, watched=own)
    plan = make_fix(map_index_of("load", 0), map_index_of("load", 1))

    with pytest.raises(NotYet):
        await bench.apply(plan)
    await airflow.settle()
    if canary == "failed":
        with pytest.raises(Conflict):
            await bench.apply(plan)
        assert (await airflow.task(own)).try_number == 1
        return
    await bench.apply(plan)
    await airflow.settle()

    assert verbs(airflow) == ["clear", "clear"]
    assert (await airflow.task(own)).state == "success"


async def test_the_upstream_of_another_dag_runs_before_the_consumer() -> None:
    bench = Bench(await failed_airflow())
    bench.airflow.start("feed", "feed__1")
    await bench.airflow.settle()
    target: dict[str, JsonValue] = {
        "dag_id": "feed",
        "run_id": "feed__1",
        "tasks": [{"task_id": "publish"}],
    }
    again = Action(name="rerun_upstream", target=target, args={"downstream": False})
    plan = make_fix(again, clear())

    with pytest.raises(NotYet):
        await bench.apply(plan)
    await bench.airflow.settle()
    await bench.apply(plan)

    assert [write.args["dag_id"] for write in bench.airflow.writes] == ["feed", "orders"]


# --- undo -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
async def test_undo_restores_the_before_image(name: str) -> None:
    bench = Bench(await failed_airflow())
    before = settings_of(bench.airflow), (await bench.airflow.task(TASK)).note
    await bench.apply(make_fix(SETTINGS[name]))
    assert (settings_of(bench.airflow), (await bench.airflow.task(TASK)).note) != before

    (entry,) = await bench.undo()

    assert (settings_of(bench.airflow), (await bench.airflow.task(TASK)).note) == before
    assert entry.step is Step.UNDONE


async def test_undo_goes_backwards_and_leaves_what_ran() -> None:
    bench = Bench(await failed_airflow())
    await bench.apply(make_fix(SETTINGS["contract"], SETTINGS["pool"], clear()))
    bench.airflow.writes.clear()

    entries = await bench.undo()

    assert verbs(bench.airflow) == ["set_pool_slots", "set_variable"]
    assert [entry.step for entry in entries] == [Step.UNDONE, Step.UNDONE, Step.CONFIRMED]


async def test_undo_does_not_overwrite_somebody_elses_change() -> None:
    bench = Bench(await failed_airflow())
    await bench.apply(make_fix(set_contract()))
    with bench.airflow.by_someone_else():
        await bench.airflow.set_variable(CONTRACT, "mine")
    bench.airflow.writes.clear()

    with pytest.raises(UndoBlocked):
        await bench.undo()

    assert verbs(bench.airflow) == []
    assert bench.airflow.stored_variable(CONTRACT) == "mine"
    assert await bench.steps() == [Step.CONFIRMED]


async def test_undo_of_what_was_never_sent_closes_the_entry() -> None:
    bench = Bench(await failed_airflow())
    await bench.ledger.intend(1, 0, set_contract(), OLD_TEXT)

    await bench.undo()

    assert await bench.steps() == [Step.FAILED]
    assert verbs(bench.airflow) == []


@pytest.mark.parametrize("arrived", [True, False])
async def test_undo_reads_back_a_lost_answer(arrived: bool) -> None:
    bench = Bench(await failed_airflow())
    await bench.apply(make_fix(set_contract()))
    bench.airflow.writes.clear()
    bench.airflow.fail_next("set_variable", AirflowDoubt("no answer"), after_effect=arrived)

    await bench.undo()

    assert verbs(bench.airflow) == ["set_variable"]
    assert bench.airflow.stored_variable(CONTRACT) == OLD_TEXT


async def test_undo_of_a_note_takes_only_our_words() -> None:
    bench = Bench(await failed_airflow())
    await bench.apply(make_fix(SETTINGS["note"]))
    with bench.airflow.by_someone_else():
        await bench.airflow.set_task_note(TASK, "looked at\nAda: so did I")

    await bench.undo()

    assert (await bench.airflow.task(TASK)).note == "Ada: so did I"
