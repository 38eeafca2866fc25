"""The whole flow on the in-memory Airflow: what heals, what waits, what is left alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from graph.domain import (
    Answer,
    AnswerKind,
    ColumnProblem,
    DataReport,
    Facts,
    Outcome,
    Remediation,
    RootCause,
    Status,
    Step,
    TaskRef,
)
from graph.errors import AirflowRefused, AirflowUnreachable, AirmedicError
from server.records import CONTROL
from server.runner import GIVE_UP
from tests.factories import Clock, make_diagnosis
from tests.unit.healing_world import FAIL, GOOD, SAFE, TASK, Ward, make_airflow, open_ward
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try
from tools.requested import Wish

CODE_ERROR = make_diagnosis(
    root_cause=RootCause.CODE_ERROR, transient=False, remediation=Remediation.CHANGE_CODE
)


@pytest.fixture
async def ward(tmp_path: Path, clock: Clock) -> AsyncIterator[Ward]:
    """A safe task that fails once and would succeed when run again."""
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        yield ward


async def test_a_transient_failure_heals(ward: Ward) -> None:
    await ward.report()
    assert (await ward.only()).status is Status.WAITING_TIMER
    assert ward.writes() == 0

    await ward.pass_time(60)
    await ward.pass_time(30)

    record = await ward.only()
    assert record.outcome is Outcome.HEALED, record.reason
    assert record.status is Status.CLOSED
    assert ward.writes() == 1
    steps = {entry.action.name: entry.step for entry in (await ward.detail()).ledger}
    assert steps["clear_task"] is Step.CONFIRMED


RAISED = "ERROR - Task failed\nTraceback (most recent call last):\nKeyError: 'email'\n"
WHOLE = "ERROR - boom\n::group::Post Execute\n::endgroup::\n"


@pytest.mark.parametrize(
    ("log", "known"),
    [
        pytest.param("INFO - startup", "no heartbeat in 300 s", id="the log breaks off"),
        pytest.param(WHOLE, "", id="a whole log tells for itself"),
        pytest.param(RAISED, "", id="what was raised tells for itself"),
        pytest.param(
            f"ERROR - {{'reason': 'invalid_state'}}\n{WHOLE}", "no heartbeat in 300 s", id="unheard"
        ),
    ],
)
async def test_airflow_is_asked_why_a_log_breaks_off(
    tmp_path: Path, clock: Clock, log: str, known: str
) -> None:
    airflow = make_airflow(clock, Try("failed", log, lost_heartbeat="no heartbeat in 300 s"))
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()

        assert [case.context.lost_heartbeat for case in ward.doctor.cases] == [known]


async def test_healed_is_said_only_after_the_watch_window(ward: Ward) -> None:
    await ward.report()
    await ward.pass_time(60)
    assert (await ward.only()).status is Status.WAITING_OUTCOME
    assert (await ward.only()).outcome is None


async def test_the_agent_log_tells_the_story(ward: Ward) -> None:
    await ward.report()
    await ward.pass_time(60)
    await ward.pass_time(30)

    names = [event.name for event in (await ward.detail()).events]

    for name in ("opened", "intervened", "diagnosed", "decided", "fix_applied", "checked", "ended"):
        assert name in names


@pytest.mark.parametrize(
    ("given", "diagnosis"),
    [
        pytest.param({}, CODE_ERROR, id="broken code is never retried"),
        pytest.param(
            {},
            make_diagnosis(
                root_cause=RootCause.UNKNOWN,
                transient=False,
                confidence=0.1,
                remediation=Remediation.ESCALATE,
            ),
            id="unknown is handed over",
        ),
        pytest.param({"healing": "shadow"}, make_diagnosis(), id="shadow mode touches nothing"),
    ],
)
async def test_what_is_handed_over_untouched(
    tmp_path: Path, clock: Clock, given: dict[str, Any], diagnosis: Any
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, diagnosis, **given) as ward:
        await ward.report()
        await ward.pass_time(600)

        record = await ward.only()
        assert (record.status, record.outcome) == (Status.ESCALATED, Outcome.ESCALATED)
        assert ward.airflow.writes == []
        assert record.reason


async def test_a_failure_that_airflow_retries_is_watched(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, FAIL, GOOD, retries=1)
    airflow.start("orders", "manual__1")
    await airflow.settle(retries=False)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        assert (await ward.only()).status is Status.WATCHING
        assert ward.airflow.writes == []

        await airflow.settle()
        await ward.pass_time(30)

        record = await ward.only()
        assert record.outcome is Outcome.SELF_RECOVERED
        assert ward.airflow.writes == []
        assert ward.doctor.cases == []


async def test_a_task_not_known_safe_waits_for_a_person(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(600)
        assert ward.airflow.writes == []
        question = (await ward.only()).question
        assert isinstance(question, dict)
        assert question["rule"] == "re-run safety"

        await ward.answer(AnswerKind.APPROVE)
        await ward.pass_time(60)
        await ward.pass_time(30)

        assert (await ward.only()).outcome is Outcome.HEALED
        assert ward.writes() == 1


async def test_nobody_answers(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, tags=("airmedic:rerun-unsafe",))
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, approval_timeout=3600) as ward:
        await ward.report()
        await ward.pass_time(3601)

        record = await ward.only()
        assert record.outcome is Outcome.EXPIRED
        assert ward.airflow.writes == []


async def test_an_answer_accepted_in_the_last_moment_counts(tmp_path: Path, clock: Clock) -> None:
    """Its time is over for the driver, which has read the incident, and was not for who answered."""
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        store, asked = ward.service.store, await ward.only()
        assert asked.expires_at is not None
        clock.now = asked.expires_at
        (lease,) = await store.claim_due(owner="driver", limit=1)
        taken = await store.taken([lease])
        clock.forward(-0.01)
        answer = Answer(kind=AnswerKind.APPROVE, by="ada")
        await store.answer(asked.id, version=asked.version, answer=answer)
        clock.forward(0.02)

        await ward.service.runner.drive(lease, taken[asked.id])
        await ward.pass_time(60)
        await ward.pass_time(30)

        assert (await ward.only()).outcome is Outcome.HEALED
        assert ward.writes() == 1


async def test_what_was_given_up_while_an_answer_was_taken_up_can_be_opened_again(
    tmp_path: Path, clock: Clock
) -> None:
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        airflow.fail_next("task", AirflowRefused("not for you"), times=GIVE_UP)
        await ward.answer(AnswerKind.APPROVE)
        for _ in range(GIVE_UP):
            await ward.pass_time(60)
        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "the last: AirflowRefused" in record.reason

        await ward.service.store.reopen(record.id, by="ada", reason="Airflow may be read again")
        await ward.go_on()
        await approved_and_healed(ward)


async def approved_and_healed(ward: Ward) -> None:
    """A person approves what is asked, and the one write helps."""
    await ward.answer(AnswerKind.APPROVE)
    await ward.pass_time(60)
    await ward.pass_time(30)

    assert (await ward.only()).outcome is Outcome.HEALED
    assert ward.writes() == 1


async def test_what_was_given_up_after_its_approval_is_asked_about_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who gives it back looks at a world that may have moved: the old answer was for the old one."""
    monkeypatch.setattr("server.runner.GIVE_UP", 2)
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.answer(AnswerKind.APPROVE)
        airflow.fail_next("clear_dry_run", AirflowRefused("not for you"), times=2)
        for _ in range(2):
            await ward.pass_time(60)
        record = await ward.only()
        assert (record.outcome, record.question) == (Outcome.ESCALATED, None)

        await ward.service.store.reopen(record.id, by="ada", reason="it may be cleared again")
        await ward.go_on()
        assert ward.writes() == 0
        await approved_and_healed(ward)


async def test_what_was_given_up_before_its_write_left_is_asked_about_again(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.runner.AWAY", 1)
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.answer(AnswerKind.APPROVE)
        with monkeypatch.context() as away:
            away.setattr("nodes.fix.as_now", _no_answer)
            await ward.pass_time(60)
        detail = await ward.detail()
        assert detail.incident.outcome is Outcome.ESCALATED
        assert [entry.step for entry in detail.ledger] == [Step.CONFIRMED, Step.INTENT]  # it has waited

        await ward.service.store.reopen(detail.incident.id, by="ada", reason="Airflow is back")
        await ward.go_on()
        assert ward.writes() == 0
        await ward.answer(AnswerKind.APPROVE)
        await ward.pass_time(60)
        await ward.pass_time(30)

        detail = await ward.detail()
        assert detail.incident.outcome is Outcome.HEALED
        steps = [entry.step for entry in detail.ledger]
        assert steps == [Step.CONFIRMED, Step.FAILED, Step.CONFIRMED, Step.CONFIRMED]


async def _no_answer(*_: object) -> None:
    raise AirflowUnreachable("no answer")


async def test_what_was_given_up_with_its_fix_applied_is_followed_to_its_end(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.runner.GIVE_UP", 1)
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        assert ward.writes() == 1
        airflow.fail_next("run_tasks", AirflowRefused("not for you"))
        await ward.pass_time(30)
        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED

        await ward.service.store.reopen(record.id, by="ada", reason="Airflow may be read again")
        await ward.go_on()
        await ward.pass_time(30)

        assert (await ward.only()).outcome is Outcome.HEALED
        assert ward.writes() == 1


async def test_what_cannot_be_stored_is_handed_over_and_does_not_come_round_for_ever(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, new_database: Callable[[str], str]
) -> None:
    monkeypatch.setattr("server.runner.GIVE_UP", 2)
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    broken = make_diagnosis(summary="half a character: \ud800")
    async with open_ward(tmp_path, airflow, clock, broken, database_url=new_database("postgres")) as ward:
        await ward.report()
        assert (await ward.only()).failures == 1
        await ward.pass_time(60)
        record = await ward.only()
        assert (record.status, record.outcome) == (Status.ESCALATED, Outcome.ESCALATED)
        assert "2 errors in a row" in record.reason

        ward.doctor.answers = [make_diagnosis()]
        await ward.service.store.reopen(record.id, by="ada", reason="mended")
        await ward.go_on()
        await ward.pass_time(60)
        await ward.pass_time(30)

        assert (await ward.only()).outcome is Outcome.HEALED


async def test_an_airflow_that_is_away_for_hours_makes_no_failed_heal_of_it(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.runner.GIVE_UP", 1)
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        airflow.fail_next("clear_dry_run", AirflowUnreachable("no answer"), times=3)  # a drive asks thrice
        await ward.pass_time(3600)
        assert (await ward.only()).failures == 1

        await ward.pass_time(3600)
        await ward.pass_time(60)

        assert (await ward.only()).outcome is Outcome.HEALED


@pytest.mark.parametrize("kind", [AnswerKind.REJECT, AnswerKind.RESPOND])
async def test_whatever_is_answered_about_a_dag_that_was_deleted_it_is_over(
    tmp_path: Path, clock: Clock, kind: AnswerKind
) -> None:
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        airflow.delete_dag("orders")
        await ward.answer(kind, message="it is not needed any more")

        record = await ward.only()
        assert record.outcome is Outcome.DISMISSED
        assert record.failures == 0


async def test_of_a_run_deleted_after_the_fix_people_hear(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, auto=False)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        airflow.delete_dag("orders")
        await ward.pass_time(60)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "cannot be verified any more" in record.reason


async def pause_until_later(ward: Ward) -> None:
    """For two hours, and it was approved."""
    until = ward.clock() + timedelta(hours=2)
    requests = ward.service.requests
    await requests.switch("orders", Wish.PAUSE, paused=False, by="ada", until=until, confirm=False)
    await ward.go_on()
    await ward.answer(AnswerKind.APPROVE)
    assert ward.writes("set_paused") == 1


async def test_a_pause_that_may_not_be_ended_when_it_should_is_handed_over(
    tmp_path: Path, clock: Clock
) -> None:
    async with open_ward(tmp_path, make_airflow(clock), clock) as ward:
        await pause_until_later(ward)
        await ward.service.store.remember(CONTROL, {"paused": True})
        await ward.pass_time(7200)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "unpause 'orders', as asked by ada: not allowed" in record.reason
        assert ward.writes("set_paused") == 1


async def test_a_pause_until_later_of_a_dag_that_was_deleted_is_over(tmp_path: Path, clock: Clock) -> None:
    async with open_ward(tmp_path, make_airflow(clock), clock) as ward:
        await pause_until_later(ward)
        ward.airflow.delete_dag("orders")
        await ward.pass_time(7200)

        record = await ward.only()
        assert record.outcome is Outcome.DISMISSED
        assert record.reason == "done as asked; by now Airflow knows no such DAG any more"


async def test_a_person_clears_the_task_while_approval_is_pending(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(5)
        with airflow.by_someone_else():
            await airflow.clear("orders", "manual__1", [TASK], dry_run=False)
        await ward.pass_time(10)

        record = await ward.only()
        assert record.outcome is Outcome.SELF_RECOVERED
        assert ward.airflow.writes == []


async def test_rejected_plans_do_not_come_back(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        asked = []
        while (await ward.only()).status is Status.WAITING_DECISION:
            asked.append((await ward.only()).plan)
            await ward.answer(AnswerKind.REJECT, message="not now")

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert len({plan.id for plan in asked if plan}) == len(asked)
        assert ward.airflow.writes == []


async def test_a_persons_words_are_read_as_evidence(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, tags=())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.answer(AnswerKind.RESPOND, message="the source moved to another host")

        assert ward.doctor.cases[-1].context.notes[0].text == "the source moved to another host"
        assert (await ward.only()).status is Status.WAITING_DECISION


async def test_a_plan_that_does_not_help_makes_room_for_the_next(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, FAIL, FAIL, GOOD)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        for _ in range(4):
            await ward.pass_time(120)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED, record.reason
        assert record.attempt == 2
        assert ward.writes() == 2


async def test_green_with_wrong_data_is_not_healed(tmp_path: Path, clock: Clock) -> None:
    half = Try(xcom={"airmedic_report": {"rows_in": 10, "rows_out": 5, "rows_expected": 10}})
    airflow = make_airflow(clock, FAIL, half)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        await ward.pass_time(60)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "5 rows, 10 declared" in record.reason


async def test_green_without_a_report_is_said_to_be_no_more(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, FAIL, Try())
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        await ward.pass_time(60)

        assert (await ward.only()).outcome is Outcome.RECOVERED_UNVERIFIED


async def test_what_the_failed_task_holds_back_runs_again(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, FAIL, GOOD, downstream=(TaskSpec("publish", tries=(GOOD,)),))
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        await ward.pass_time(60)

        assert (await ward.only()).outcome is Outcome.HEALED
        assert (await airflow.task(TASK.model_copy(update={"task_id": "publish"}))).state == "success"
        assert (await airflow.run("orders", "manual__1")).state == "success"


async def test_a_lost_webhook_is_found_by_the_poll(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.pass_time(1)
        airflow.start("orders", "manual__1")
        await airflow.settle()
        await ward.pass_time(10)

        detail = await ward.detail()
        assert [one.door for one in detail.occurrences] == ["poll"]


@pytest.mark.parametrize(
    ("task", "try_number"),
    [
        pytest.param(TASK.model_copy(update={"run_id": "no_such_run"}), 1, id="no such run"),
        pytest.param(TASK, 7, id="no such try"),
    ],
)
async def test_an_event_about_nothing_opens_no_incident(ward: Ward, task: Any, try_number: int) -> None:
    await ward.report(task, try_number=try_number)

    assert await ward.service.store.incidents() == []


async def test_an_event_that_airflow_denies_opens_no_incident(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, GOOD)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()

        assert await ward.service.store.incidents() == []


@pytest.mark.parametrize("apart", [0, 1], ids=["at one moment", "one after the other"])
async def test_the_polls_find_all_that_failed_while_nobody_looked(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, apart: int
) -> None:
    monkeypatch.setattr("server.intake.FAILURES", 4)
    monkeypatch.setattr("server.intake.PAGES", 4)
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", tries=[FAIL])], tags=SAFE)
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.service.intake.poll()
        clock.forward(60)
        for number in range(17):
            airflow.start("orders", f"manual__{number}")
            await airflow.settle()
            clock.forward(apart)
        clock.forward(600)
        found = []
        for _ in range(3):
            await ward.service.intake.poll()
            found.append(len(await ward.service.store.new_occurrences()))

        assert (found[0] < 17) is bool(apart)
        assert found[-1] == 17


@pytest.mark.parametrize("away", [AirflowUnreachable("no answer"), AirflowRefused("the token has expired")])
async def test_a_failure_is_not_dropped_however_long_airflow_does_not_tell(
    tmp_path: Path, clock: Clock, away: AirmedicError
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        airflow.fail_next("task", away, times=70)
        await ward.report()
        for _ in range(70):
            clock.forward(61)
            await ward.go_on()

        assert (await ward.only()).status is Status.WAITING_TIMER


async def test_a_contract_that_a_person_deleted_since_is_left_and_told(tmp_path: Path, clock: Clock) -> None:
    name = "airmedic_contract_orders"
    new = ColumnProblem(column="note", kind="unexpected", found="string")
    drift = make_diagnosis(
        root_cause=RootCause.SCHEMA_DRIFT,
        transient=False,
        remediation=Remediation.ADAPT_SCHEMA,
        facts=Facts(report=DataReport(contract=name, satisfied=False, problems=(new,))),
    )
    airflow = make_airflow(clock, FAIL, FAIL, tags=(*SAFE, f"airmedic:contract={name}"), auto=False)
    airflow.add_variable(name, json.dumps({"version": 1, "columns": {"mail": {"type": "string"}}}))
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, drift) as ward:
        await ward.report()
        assert ward.writes("set_variable") == 1
        with airflow.by_someone_else():
            await airflow.delete_variable(name)
        await airflow.settle()
        await ward.pass_time(60)

        detail = await ward.detail()
        assert detail.incident.outcome is Outcome.ESCALATED
        assert "could not be taken back" in detail.incident.reason
        assert airflow.stored_variable(name) is None
        (given_up,) = [event.data for event in detail.events if event.name == "fix_undone"]
        assert given_up == {"reason": detail.incident.reason}


async def test_a_plan_that_was_taken_back_is_followed_by_what_the_first_failure_called_for(
    tmp_path: Path, clock: Clock
) -> None:
    name = "airmedic_contract_orders"
    before = json.dumps({"version": 1, "columns": {"mail": {"type": "string", "required": True}}})
    airflow = make_airflow(clock, FAIL, FAIL, GOOD, tags=(*SAFE, f"airmedic:contract={name}"))
    airflow.add_variable(name, before)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    lost = ColumnProblem(kind="missing", column="mail", expected="string")
    new = ColumnProblem(kind="unexpected", column="mail_address", found="string", required=False)
    drift = make_diagnosis(
        root_cause=RootCause.SCHEMA_DRIFT,
        transient=False,
        remediation=Remediation.ADAPT_SCHEMA,
        facts=Facts(report=DataReport(contract=name, satisfied=False, problems=(lost, new))),
    )
    misled = make_diagnosis(root_cause=RootCause.CODE_ERROR, transient=False)
    async with open_ward(tmp_path, airflow, clock, drift, misled) as ward:
        await ward.report()
        wrong = json.dumps({"version": 1, "columns": {"mail": {"type": "string", "source": "name"}}})
        await ward.answer(AnswerKind.EDIT, args=({"value": wrong}, {"downstream": True}))
        restored = (await airflow.variable(name)).value
        await ward.answer(AnswerKind.APPROVE)
        await ward.pass_time(30)
        after = await ward.detail()

    assert json.loads(restored) == json.loads(before)
    assert after.incident.outcome is Outcome.HEALED
    assert '"source": "mail_address"' in (await airflow.variable(name)).value


async def test_a_later_failure_of_another_cause_leaves_the_heal_a_heal(tmp_path: Path, clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock, auto=True)

    def behaviour(task: TaskRef, number: int) -> Try:
        return FAIL if number == 1 or task.run_id == "manual__2" else GOOD

    airflow.add_dag("orders", [TaskSpec("load", tries=behaviour)], tags=SAFE)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    other = make_diagnosis(root_cause=RootCause.CODE_ERROR, transient=False)
    async with open_ward(tmp_path, airflow, clock, make_diagnosis(), other) as ward:
        await ward.report()
        await ward.pass_time(60)
        clock.forward(1)
        airflow.start("orders", "manual__2")
        await airflow.settle()
        await ward.report(TASK.model_copy(update={"run_id": "manual__2"}))
        for _ in range(26):
            await ward.pass_time(3600)

        first, second = [await ward.service.store.incident(number) for number in (1, 2)]

    assert (second.root_cause, second.outcome) == ("code_error", Outcome.ESCALATED)
    assert first.outcome is Outcome.HEALED, first.reason
    assert "manual__2 failed since of code_error" in first.reason


@pytest.mark.parametrize("count", [1, 8, 30])
async def test_a_recurrence_is_seen_however_many_runs_came_after_it(
    tmp_path: Path, clock: Clock, count: int
) -> None:
    airflow = MemoryAirflow(clock=clock, auto=True)

    def behaviour(task: TaskRef, number: int) -> Try:
        return FAIL if number == 1 and task.run_id in {"manual__1", "later_0"} else GOOD

    airflow.add_dag("orders", [TaskSpec("load", tries=behaviour)], tags=SAFE)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        for number in range(count):
            clock.forward(1 / count)
            airflow.start("orders", f"later_{number}")
            await airflow.settle()
        await ward.pass_time(60)

        first = await ward.service.store.incident(1)
        assert first.outcome is Outcome.ESCALATED
        assert first.reason == "failed again in later_0"
