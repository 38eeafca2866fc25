"""Failures of one cause across DAGs: one incident, one canary, waves, one question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import JsonValue

from graph.domain import AnswerKind, Outcome, RootCause, Status, Step, TaskRef
from graph.errors import AirflowDoubt, AirflowUnreachable, Conflict
from tests.factories import Clock, make_diagnosis, make_task
from tests.unit.healing_world import SAFE, Ward
from tests.unit.storm_world import HOST, LOST, Source, open_storm, storm, tell
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try
from tools.knowledge import KnowledgeBase
from tools.policy import PAUSED


@pytest.fixture(scope="session")
def knowledge() -> KnowledgeBase:
    return KnowledgeBase.load()


@pytest.fixture
def source() -> Source:
    return Source()


class Died(BaseException):
    """The process is gone."""


async def parts(ward: Ward, incident_id: int = 1) -> Counter[str]:
    found = (await ward.service.store.detail(incident_id)).occurrences
    return Counter(str(one.part) for one in found if one.part)


async def asked(ward: Ward) -> Any:
    """What a person is asked now."""
    record = await ward.only()
    assert record.status is Status.WAITING_DECISION
    return record.question


async def pass_time(ward: Ward, times: int = 60, seconds: float = 10) -> None:
    for _ in range(times):
        await ward.pass_time(seconds)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_a_storm_is_one_incident_and_heals_in_waves(
    tmp_path: Path,
    clock: Clock,
    knowledge: KnowledgeBase,
    source: Source,
    new_database: Callable[[str], str],
    kind: str,
) -> None:
    airflow, tasks = await storm(clock, source, 30)
    async with open_storm(tmp_path, airflow, clock, knowledge, database_url=new_database(kind)) as ward:
        await tell(ward, tasks)
        assert len(await ward.service.store.incidents()) == 1
        assert len(ward.doctor.cases) == 1
        source.up = True
        await pass_time(ward)

        detail = await ward.detail()
        assert detail.incident.outcome is Outcome.HEALED, detail.incident.reason
        assert "30 of 30 task instances succeeded" in detail.incident.reason
        assert ward.writes() == 30
        assert set(source.tries.values()) == {2}
        waves = [one.data for one in detail.events if one.name == "wave_sent"]
        assert [wave["task_instances"] for wave in waves if isinstance(wave, dict)] == [2, 4, 8, 8, 7]
        assert {one.step for one in detail.ledger} == {Step.CONFIRMED}


async def test_joining_asks_airflow_nothing(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 40)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks[:1])
        asked = len(airflow.calls)
        await tell(ward, tasks[1:])

        assert len(airflow.calls) == asked
        assert await parts(ward) == {"waiting": 39}


async def test_nothing_is_hammered_when_the_cause_is_back(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 20)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await ward.pass_time(21)  # the canary and the first wave are well
        source.up = False
        await ward.pass_time(5)  # the second wave is not
        failed = [task for task in tasks if (await airflow.task(task)).try_number == 2]
        failed = [task for task in failed if (await airflow.task(task)).state == "failed"]
        await tell(ward, failed, try_number=2)
        before = ward.writes()
        for _ in range(5):
            await ward.pass_time(10)
        assert ward.writes() == before == 1 + 2 + 4

        source.up = True
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED, record.reason
        assert "20 of 20" in record.reason


async def test_waves_that_never_help_end_with_a_person(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 12)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        source.broken = {task.dag_id for task in tasks[1:]}
        for _ in range(80):
            await ward.pass_time(15)
            failed = [task for task, number in source.tries.items() if number > 1 and task != tasks[0]]
            for task in failed:
                await tell(ward, [task], try_number=source.tries[task])

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "1 of 12 task instances succeeded; 11 did not recover" in record.reason
        assert ward.writes() <= 1 + 4 * 2


async def test_a_failure_of_another_cause_is_an_incident_of_its_own(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 30)
    odd = tasks[20]
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        source.other = {odd.dag_id}
        told = False
        for _ in range(60):
            await ward.pass_time(10)
            if source.tries[odd] == 2 and not told:
                await tell(ward, [odd], error="ValueError: invalid literal for int()", try_number=2)
                told = True

        first, second = sorted(await ward.service.store.incidents(), key=lambda one: one.id)
        assert second.task == odd
        assert first.outcome is Outcome.RECOVERED_UNVERIFIED
        assert "29 of 30 task instances succeeded; 1 failed again" in first.reason


async def test_a_first_task_that_fails_of_another_cause_keeps_nobody_waiting(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 12)
    wrong_type = make_diagnosis(root_cause=RootCause.TYPE_MISMATCH, transient=False)
    answers = (make_diagnosis(), wrong_type, make_diagnosis())
    async with open_storm(tmp_path, airflow, clock, knowledge, *answers) as ward:
        await tell(ward, tasks)
        source.up = True
        source.other = {tasks[0].dag_id}
        await pass_time(ward)

        first, second = sorted(await ward.service.store.incidents(), key=lambda one: one.id)
        assert (first.task, first.root_cause) == (tasks[0], RootCause.TYPE_MISMATCH)
        assert first.outcome is Outcome.ESCALATED
        assert await parts(ward, first.id) == {}
        assert second.outcome is Outcome.HEALED, second.reason
        assert "11 of 11 task instances succeeded" in second.reason
        assert ward.writes() == 12


def lose_rows(airflow: MemoryAirflow, source: Source, dag_id: str) -> None:
    source.half.add(dag_id)


def lose_file(airflow: MemoryAirflow, source: Source, dag_id: str) -> None:
    airflow.change_dag(dag_id, is_stale=True)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(lose_rows, "5 rows, 10 declared", id="its own data are wrong"),
        pytest.param(lose_file, "is gone or does not load", id="it cannot run again"),
    ],
)
async def test_a_first_task_with_a_trouble_of_its_own_keeps_nobody_waiting(
    tmp_path: Path,
    clock: Clock,
    knowledge: KnowledgeBase,
    source: Source,
    spoil: Callable[[MemoryAirflow, Source, str], None],
    reason: str,
) -> None:
    airflow, tasks = await storm(clock, source, 12)
    spoil(airflow, source, tasks[0].dag_id)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await pass_time(ward)

        first, second = sorted(await ward.service.store.incidents(), key=lambda one: one.id)
        assert first.outcome is Outcome.ESCALATED
        assert reason in first.reason
        assert second.outcome is Outcome.HEALED, second.reason
        assert "11 of 11 task instances succeeded" in second.reason


async def test_a_task_that_is_well_and_whose_dag_needs_a_person_takes_in_no_more(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 1)
    stale = Try(xcom={"airmedic_report": {"rows_out": 4}})
    load = TaskSpec("load", tries=source, downstream=("report",))
    airflow.add_dag("feeds", [load, TaskSpec("report", [stale], trigger_rule="all_done")], tags=SAFE)
    airflow.start("feeds", "manual__1")
    await airflow.settle()
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, [tasks[0].model_copy(update={"dag_id": "feeds"})])
        source.up = True
        await pass_time(ward)
        await tell(ward, tasks)
        await pass_time(ward)

        first, second = sorted(await ward.service.store.incidents(), key=lambda one: one.id)
        assert "report ran before load succeeded" in first.reason
        assert (first.outcome, second.outcome) == (Outcome.ESCALATED, Outcome.HEALED)


async def test_a_first_task_that_does_not_start_keeps_nobody_waiting_for_long(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 12)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        airflow.change_dag(tasks[0].dag_id, max_active_runs=0)
        await pass_time(ward, 50)
        assert await parts(ward) == {"waiting": 11}
        await pass_time(ward, 90)

        first, second = sorted(await ward.service.store.incidents(), key=lambda one: one.id)
        assert second.outcome is Outcome.HEALED, second.reason
        assert first.status is Status.WAITING_OUTCOME
        airflow.change_dag(tasks[0].dag_id, max_active_runs=1)
        await airflow.settle()
        await pass_time(ward)

        assert (await ward.service.store.incident(first.id)).outcome is Outcome.HEALED


async def test_a_first_task_that_runs_for_hours_keeps_nobody_waiting_for_hours(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 12)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        source.long = {tasks[0].dag_id}
        await pass_time(ward, 150)
        assert await parts(ward) == {"waiting": 11}
        await pass_time(ward, 150)

        first, second = sorted(await ward.service.store.incidents(), key=lambda one: one.id)
        assert second.outcome is Outcome.HEALED, second.reason
        assert "11 of 11 task instances succeeded" in second.reason
        assert first.status is Status.WAITING_OUTCOME


async def test_a_member_that_skips_itself_is_waited_for_no_longer(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 4)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        source.idle = {tasks[2].dag_id}
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED, record.reason
        assert "3 of 4 task instances succeeded; 1 were left to others" in record.reason
        assert await parts(ward) == {"healed": 2, "left": 1}


async def test_people_are_asked_once_about_all_that_need_them(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    tags = {number: () for number in range(10, 22)}
    airflow, tasks = await storm(clock, source, 30, tags=tags)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        for _ in range(40):
            await ward.pass_time(10)
        question = await asked(ward)
        assert ward.writes() == 18
        assert question["members"] == {
            "task_instances": 30, "dags": 30, "safe": 17, "upto": 30, "asked": 12,
        }  # fmt: skip
        assert question["summary"].startswith("clear 12 more task instances")

        await ward.answer(AnswerKind.APPROVE)
        await pass_time(ward)

        detail = await ward.detail()
        assert detail.incident.outcome is Outcome.HEALED, detail.incident.reason
        assert "30 of 30" in detail.incident.reason
        assert [one.name for one in detail.events].count("asked") == 1


async def test_declined_is_left_and_told(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 12, tags={number: () for number in range(8, 12)})
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await pass_time(ward, 30)
        await ward.answer(AnswerKind.REJECT, message="not before noon")
        await pass_time(ward, 10)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "8 of 12 task instances succeeded; 4 were declined" in record.reason
        assert ward.writes() == 8


async def test_a_decision_binds_the_set_that_was_shown(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 20, tags={number: () for number in range(20)})
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks[:12])
        for _ in range(3):
            await ward.pass_time(10)
        question = await asked(ward)
        assert question["members"]["task_instances"] == 12
        assert "12 task instances in 12 DAGs" in question["summary"]

        await tell(ward, tasks[12:])  # after the question was put
        source.up = True
        await ward.answer(AnswerKind.APPROVE)
        await pass_time(ward, 40)
        assert ward.writes() == 12
        assert (await asked(ward))["members"]["asked"] == 8

        await ward.answer(AnswerKind.APPROVE)
        await pass_time(ward, 40)
        assert (await ward.only()).outcome is Outcome.HEALED
        assert ward.writes() == 20


async def test_a_member_whose_dag_was_paused_is_asked_about_by_that_name(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    """Who approved all of them was not told: what is cleared there starts whenever it is unpaused."""
    airflow, tasks = await storm(clock, source, 6, tags={number: () for number in range(6)})
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        await pass_time(ward, 3)
        source.up = True
        airflow.change_dag("dag_0004", is_paused=True)
        await ward.answer(AnswerKind.APPROVE)
        await pass_time(ward, 20)

        assert ward.writes() == 5
        assert f"the DAG {PAUSED}" in (await asked(ward))["why"]

        await ward.answer(AnswerKind.APPROVE)
        await pass_time(ward, 3)
        assert ward.writes() == 6


async def test_dags_that_were_deleted_before_or_after_the_question_hold_up_no_others(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 8, tags={number: () for number in (5, 6, 7)})
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        airflow.delete_dag(tasks[2].dag_id)
        source.up = True
        await pass_time(ward, 20)
        assert (await asked(ward))["members"]["asked"] == 3

        airflow.delete_dag(tasks[6].dag_id)
        await ward.answer(AnswerKind.APPROVE)
        await pass_time(ward)

        detail = await ward.detail()
        assert detail.incident.outcome is Outcome.HEALED, detail.incident.reason
        assert "6 of 8 task instances succeeded; 2 were left to others" in detail.incident.reason
        gone = {one.task: one.reason for one in detail.occurrences if one.part == "left"}
        assert gone.keys() == {tasks[2], tasks[6]}
        assert set(gone.values()) == {"Airflow knows no such task instance"}


async def test_what_others_have_mended_is_left_alone(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 10)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        with airflow.by_someone_else():
            for task in tasks[5:]:
                await airflow.clear(task.dag_id, task.run_id, [task], dry_run=False)
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED
        assert ward.writes() == 5
        assert "5 of 10 task instances succeeded; 5 were left to others" in record.reason


async def test_when_the_first_recovers_by_itself_another_one_leads(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 6)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        with airflow.by_someone_else():
            await airflow.clear(tasks[0].dag_id, tasks[0].run_id, [tasks[0]], dry_run=False)
        await pass_time(ward)

        newest, oldest = await ward.service.store.incidents()
        assert oldest.outcome is Outcome.SELF_RECOVERED
        assert (newest.task, newest.outcome) == (tasks[1], Outcome.HEALED)
        assert ward.writes() == 5


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_found_by_the_poll_they_meet_at_the_diagnosis(
    tmp_path: Path,
    clock: Clock,
    knowledge: KnowledgeBase,
    source: Source,
    new_database: Callable[[str], str],
    kind: str,
) -> None:
    airflow, tasks = await storm(clock, source, 8)
    async with open_storm(tmp_path, airflow, clock, knowledge, database_url=new_database(kind)) as ward:
        await tell(ward, tasks[:2], error="")  # nobody says why
        await tell(ward, tasks[2:4])
        await tell(ward, tasks[4:], error="")

        records = await ward.service.store.incidents()
        (leads,) = [one for one in records if one.outcome is not Outcome.JOINED]
        assert len(ward.doctor.cases) == 1
        assert (await ward.service.store.detail(leads.id)).occurrence_count == 8
        assert all(HOST in one.reason for one in records if one is not leads)

        source.up = True
        await pass_time(ward)
        assert (await ward.service.store.incident(leads.id)).outcome is Outcome.HEALED
        assert ward.writes() == 8


async def test_a_forged_event_leads_nobody(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 5)
    ghosts = [TaskRef(dag_id=f"ghost_{number}", run_id="r", task_id="t") for number in range(5)]
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, [ghosts[0], *tasks, *ghosts[1:]])
        source.up = True
        await pass_time(ward)

        record = await ward.only()
        assert record.task == tasks[0]
        assert record.outcome is Outcome.HEALED
        assert ward.writes() == 5


@pytest.mark.parametrize(
    "after_effect", [pytest.param(True, id="it had arrived"), pytest.param(False, id="it had not")]
)
async def test_a_lost_answer_in_a_wave_clears_nothing_twice(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source, *, after_effect: bool
) -> None:
    airflow, tasks = await storm(clock, source, 20)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await ward.pass_time(21)
        airflow.fail_next("clear", AirflowDoubt("lost"), after_effect=after_effect, times=3)
        airflow.fail_next("run_tasks", AirflowUnreachable("away"))
        airflow.fail_next("task", AirflowUnreachable("away"))
        await pass_time(ward, 60, 15)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED, record.reason
        assert ward.writes() == 20
        assert set(source.tries.values()) == {2}


async def test_a_process_that_died_in_a_wave_is_followed_exactly_once(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 20)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await ward.pass_time(21)
        died = airflow.clear
        count = 0

        async def dies(*args: object, **given: object) -> object:
            nonlocal count
            if not given["dry_run"]:
                count += 1
                if count == 3:
                    raise Died
            return await died(*args, **given)  # type: ignore[arg-type]

        airflow.clear = dies  # type: ignore[method-assign,assignment]
        with pytest.raises(Died):
            await pass_time(ward, 20)
        airflow.clear = died  # type: ignore[method-assign]
    clock.forward(60)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED, record.reason
        assert ward.writes() == 20
        assert set(source.tries.values()) == {2}


async def test_a_dag_that_cannot_run_holds_up_none_of_the_others(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 6)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        airflow.change_dag(tasks[4].dag_id, is_stale=True)
        source.up = True
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is not None
        assert ward.writes() == 5
        assert "5 of 6 task instances succeeded" in record.reason


async def test_a_task_that_failed_twice_is_counted_once(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 6)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        with airflow.by_someone_else():  # as Airflow's own retry would
            for task in tasks[3:]:
                await airflow.clear(task.dag_id, task.run_id, [task], dry_run=False)
        await tell(ward, tasks[3:], try_number=2)
        source.up = True
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED
        assert "6 of 6 task instances succeeded;" in record.reason
        assert ward.writes() == 6


@pytest.mark.parametrize(
    ("times", "healed"),
    [pytest.param(1, 8, id="once more"), pytest.param(2, 7, id="and then a person has it")],
)
async def test_a_clear_that_airflow_refuses(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source, times: int, healed: int
) -> None:
    airflow, tasks = await storm(clock, source, 8)
    async with open_storm(tmp_path, airflow, clock, knowledge, wave_first=1, wave_largest=1) as ward:
        await tell(ward, tasks)
        source.up = True
        await ward.pass_time(19)
        clear = airflow.clear

        async def refuses(dag_id: str, *args: Any, **given: Any) -> Any:
            nonlocal times
            if dag_id == tasks[3].dag_id and not given["dry_run"] and times:
                times -= 1
                raise Conflict("a task of the run is running")
            return await clear(dag_id, *args, **given)

        airflow.clear = refuses  # type: ignore[method-assign]
        await pass_time(ward)

        record = await ward.only()
        assert f"{healed} of 8 task instances succeeded" in record.reason
        assert record.outcome is (Outcome.HEALED if healed == 8 else Outcome.ESCALATED)
        assert {entry.step for entry in (await ward.detail()).ledger} == {Step.CONFIRMED, Step.FAILED}


async def test_the_paused_send_no_wave(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 8)
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await ward.pass_time(21)
        await ward.service.store.remember("control", {"paused": True})
        before = ward.writes()
        await pass_time(ward, 10)
        assert ward.writes() == before < 8

        await ward.service.store.remember("control", {"paused": False})
        await pass_time(ward, 40)
        assert (await ward.only()).outcome is Outcome.HEALED


async def test_closing_closes_all_of_them(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 6)
    async with open_storm(tmp_path, airflow, clock, knowledge, healing="shadow") as ward:
        await tell(ward, tasks)
        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        await ward.service.store.close(record.id, by="ada", reason="done by hand")
        await ward.go_on()

        assert (await ward.only()).status is Status.CLOSED
        assert await ward.service.store.new_occurrences() == []


async def test_an_old_handed_over_incident_takes_in_no_new_outage(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 6)
    async with open_storm(tmp_path, airflow, clock, knowledge, healing="shadow") as ward:
        await tell(ward, tasks[:3])
        clock.forward(7200)
        await tell(ward, tasks[3:])

        assert [one.task for one in await ward.service.store.incidents()] == [tasks[3], tasks[0]]


async def test_counts_say_what_became_of_each(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 3, tags={0: SAFE, 1: SAFE, 2: ()})
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await pass_time(ward, 10)
        counts = await ward.service.store.member_counts(1, dags=True)
        assert (counts.healed, counts.ask, counts.total, counts.dags) == (1, 1, 2, 3)


@pytest.mark.parametrize("at", [3, 5], ids=["at a wave's first write", "in the middle of a wave"])
async def test_a_wave_that_was_begun_is_held_and_goes_on_where_it_was(
    tmp_path: Path,
    clock: Clock,
    knowledge: KnowledgeBase,
    source: Source,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    airflow, tasks = await storm(clock, source, 12)
    async with open_storm(tmp_path, airflow, clock, knowledge, wave_first=8) as ward:
        await tell(ward, tasks)
        source.up = True
        send, control = airflow.clear, ward.service.store.remember

        async def sends(*args: Any, **given: Any) -> object:
            found = await send(*args, **given)
            if not given["dry_run"] and ward.writes() == at:
                await control("control", {"paused": True})
            return found

        with monkeypatch.context() as patch:
            patch.setattr(airflow, "clear", sends)
            await pass_time(ward, 20)
        # Those that had left already, four at a time, are all that leave.
        assert at <= ward.writes() < at + 4
        assert "paused" in str([one.data for one in (await ward.detail()).events if one.name == "waiting"])

        await control("control", {"paused": False})
        await pass_time(ward)

        assert (await ward.only()).outcome is Outcome.HEALED
        assert ward.writes() == 12
        assert set(source.tries.values()) == {2}


async def test_a_member_whose_data_are_wrong_is_not_called_well(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    def load(task: TaskRef, number: int) -> Try:
        rows = 0 if task.map_index == 2 else 1
        report: dict[str, JsonValue] = {"rows_out": rows, "rows_expected": 1}
        return LOST if number == 1 else Try(xcom={"airmedic_report": report})

    airflow = MemoryAirflow(clock=clock, auto=True)
    # Its other map indexes hold back what comes after the first one: nothing is said of its data by then.
    loads = TaskSpec("load", load, ("report",), map_indexes=(1, 2, 3))
    airflow.add_dag("orders", [loads, TaskSpec("report")], tags=SAFE)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, [make_task(map_index=index) for index in (1, 2, 3)])
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED, record.reason
        assert "2 of 3 task instances succeeded; 1 did not recover" in record.reason


async def test_members_of_whose_data_nothing_is_known_are_not_called_healed(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase, source: Source
) -> None:
    airflow, tasks = await storm(clock, source, 12)
    source.silent = {tasks[3].dag_id, tasks[5].dag_id}
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        source.up = True
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.RECOVERED_UNVERIFIED, record.reason
        assert "12 of 12 task instances succeeded; of the data of 2 nothing is known" in record.reason


async def test_a_member_whose_rows_are_far_from_usual_is_not_called_well(
    tmp_path: Path, clock: Clock, knowledge: KnowledgeBase
) -> None:
    def load(task: TaskRef, number: int) -> Try:
        if task.run_id == "manual__1" and number == 1:
            return LOST
        few = task.run_id == "manual__1" and task.dag_id == "feed_2"
        return Try(xcom={"airmedic_report": {"rows_out": 5 if few else 100}})

    airflow = MemoryAirflow(clock=clock, auto=True)
    tasks = [TaskRef(dag_id=f"feed_{number}", run_id="manual__1", task_id="load") for number in range(4)]
    for task in tasks:
        airflow.add_dag(task.dag_id, [TaskSpec("load", load)], tags=SAFE)
        for number in range(5):
            airflow.start(task.dag_id, f"good {number}")
            await airflow.settle()
        airflow.start(task.dag_id, task.run_id)
    await airflow.settle()
    async with open_storm(tmp_path, airflow, clock, knowledge) as ward:
        await tell(ward, tasks)
        await pass_time(ward)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED, record.reason
        assert "3 of 4 task instances succeeded; 1 did not recover" in record.reason
