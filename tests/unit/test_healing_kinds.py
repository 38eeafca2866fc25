"""More than one failed task: map indexes, tasks that never start, files that do not import."""

from __future__ import annotations

from pathlib import Path

from graph.domain import AnswerKind, DiagnosedBy, Outcome, Remediation, RootCause, Status
from tests.factories import Clock, make_diagnosis
from tests.unit.healing_world import FAIL, GOOD, SAFE, TASK, make_airflow, open_ward
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try

CAPACITY = make_diagnosis(
    root_cause=RootCause.CAPACITY_UNAVAILABLE, transient=True, remediation=Remediation.RAISE_LIMIT
)
WRONG_HOST = make_diagnosis(
    root_cause=RootCause.MISSING_CONFIGURATION,
    transient=False,
    remediation=Remediation.UPDATE_CONFIGURATION,
)


def mapped(clock: Clock, *, count: int) -> MemoryAirflow:
    """Every odd index of `load` fails once."""
    airflow = MemoryAirflow(clock=clock, auto=True)

    def behaviour(task: object, number: int) -> Try:
        return FAIL if getattr(task, "map_index", 0) % 2 and number == 1 else GOOD

    airflow.add_dag("orders", [TaskSpec("load", tries=behaviour, map_indexes=tuple(range(count)))], tags=SAFE)
    airflow.start("orders", "manual__1")
    return airflow


async def test_the_map_indexes_of_one_task_are_one_incident(tmp_path: Path, clock: Clock) -> None:
    airflow = mapped(clock, count=6)
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        for index in (1, 3, 5):
            await ward.report(TASK.model_copy(update={"map_index": index}))
        for _ in range(3):
            await ward.pass_time(60)

        record = await ward.only()
        assert record.outcome is Outcome.HEALED, record.reason
        assert len((await ward.detail()).occurrences) == 3
        cleared = [write.args for write in airflow.writes if write.verb == "clear"]
        assert len(cleared) == 1
        states = {one.state for one in await airflow.run_tasks("orders", "manual__1")}
        assert states == {"success"}
        tries = {one.task.map_index: one.try_number for one in await airflow.run_tasks("orders", "manual__1")}
        assert tries == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 2}


async def test_map_indexes_with_different_errors_are_told_apart(tmp_path: Path, clock: Clock) -> None:
    airflow = mapped(clock, count=4)
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        for index, error in ((1, "ConnectionError: refused"), (3, "KeyError: 'email'")):
            await ward.tell(TASK.model_copy(update={"map_index": index}), error=error)

        assert len(await ward.service.store.incidents()) == 2


async def test_a_task_that_never_starts_is_found_by_the_poll(tmp_path: Path, clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock, auto=True)
    airflow.add_pool("narrow", 0)
    airflow.add_dag("orders", [TaskSpec("load", tries=(GOOD,), pool="narrow")], tags=SAFE)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, CAPACITY) as ward:
        await ward.pass_time(1)
        assert await ward.service.store.incidents() == []
        await ward.pass_time(700)

        record = await ward.only()
        assert (record.kind, record.status) == ("stuck", Status.WAITING_DECISION)
        assert record.plan is not None
        assert [one.name for one in record.plan.actions] == ["set_pool_slots"]
        await ward.answer(AnswerKind.APPROVE)
        await airflow.settle()
        await ward.pass_time(60)
        await ward.pass_time(60)

        assert (await ward.only()).outcome is Outcome.HEALED, (await ward.only()).reason


async def test_a_pool_that_is_gone_hides_no_other_failure(tmp_path: Path, clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock, auto=True)
    airflow.add_pool("narrow", 0)
    airflow.add_dag("orders", [TaskSpec("load", tries=(GOOD,), pool="narrow")], tags=SAFE)
    airflow.add_dag("invoices", [TaskSpec("load", tries=(Try("failed"),))], tags=SAFE)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    airflow.remove_pool("narrow")
    async with open_ward(tmp_path, airflow, clock, CAPACITY) as ward:
        await ward.pass_time(700)
        airflow.start("invoices", "manual__1")
        await airflow.settle()
        await ward.pass_time(30)

        found = {one.task.dag_id: one for one in await ward.service.store.incidents()}
        assert set(found) == {"orders", "invoices"}
        assert (found["orders"].kind, found["orders"].outcome) == ("stuck", Outcome.ESCALATED)


async def test_a_file_that_does_not_import_is_handed_over(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, GOOD)
    code = make_diagnosis(
        root_cause=RootCause.CODE_ERROR, transient=False, remediation=Remediation.CHANGE_CODE
    )
    async with open_ward(tmp_path, airflow, clock, code) as ward:
        airflow.add_import_failure("/dags/orders.py", "SyntaxError: '(' was never closed (orders.py, line 7)")
        await ward.pass_time(10)

        record = await ward.only()
        assert (record.kind, record.outcome) == ("import_error", Outcome.ESCALATED)
        assert record.task.task_id == "/dags/orders.py"
        assert "never closed" in ward.doctor.cases[0].context.import_failure
        await ward.pass_time(10)
        assert len((await ward.detail()).occurrences) == 1


async def test_a_changed_connection_goes_back_to_what_last_worked(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, GOOD, FAIL, GOOD)
    airflow.add_dag("orders", [TaskSpec("load", tries=(GOOD,))], tags=SAFE, source='get("source_api")')
    airflow.add_connection("source_api", "http", host="source.internal", port=80)
    async with open_ward(tmp_path, airflow, clock, WRONG_HOST) as ward:
        await ward.pass_time(1)
        airflow.start("orders", "good")
        await airflow.settle()
        await ward.pass_time(5)
        airflow.add_connection("source_api", "http", host="elsewhere.invalid", port=80)
        airflow.add_dag(
            "orders", [TaskSpec("load", tries=(FAIL, GOOD))], tags=SAFE, source='get("source_api")'
        )
        airflow.start("orders", "manual__1")
        await airflow.settle()
        await ward.report()

        record = await ward.only()
        assert record.status is Status.WAITING_DECISION, record.reason
        await ward.answer(AnswerKind.APPROVE)
        await ward.pass_time(60)
        await ward.pass_time(60)

        assert (await airflow.connection("source_api")).host == "source.internal"
        assert (await ward.only()).outcome is Outcome.HEALED


async def test_a_signature_that_healed_is_answered_from_memory(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock)
    seen = make_diagnosis(signature="5f2a")
    doubt = make_diagnosis(signature="5f2a", root_cause=RootCause.UNKNOWN, transient=False, confidence=0.1)
    async with open_ward(tmp_path, airflow, clock, seen, doubt, memory=True) as ward:
        for run in ("first", "second"):
            airflow.start("orders", run)
            await airflow.settle()
            await ward.report(TASK.model_copy(update={"run_id": run}))
            for _ in range(3):
                await ward.pass_time(60)

        second, first = await ward.service.store.incidents()
        assert (first.outcome, second.outcome) == (Outcome.HEALED, Outcome.HEALED)
        assert second.diagnosis is not None
        assert second.diagnosis.by is DiagnosedBy.MEMORY
        assert second.root_cause is RootCause.NETWORK_UNREACHABLE


async def test_an_escalated_incident_is_given_back(tmp_path: Path, clock: Clock) -> None:
    airmedic_says = [
        make_diagnosis(root_cause=RootCause.CODE_ERROR, transient=False, remediation=Remediation.CHANGE_CODE),
        make_diagnosis(),
    ]
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, *airmedic_says) as ward:
        await ward.report()
        record = await ward.only()
        assert record.status is Status.ESCALATED

        await ward.service.store.reopen(record.id, by="ada", reason="the code is mended")
        await ward.go_on()
        for _ in range(2):
            await ward.pass_time(60)

        assert (await ward.only()).outcome is Outcome.HEALED


async def test_a_new_failure_of_an_escalated_task_is_news(tmp_path: Path, clock: Clock) -> None:
    code = make_diagnosis(
        root_cause=RootCause.CODE_ERROR, transient=False, remediation=Remediation.CHANGE_CODE
    )
    airflow = make_airflow(clock, FAIL, FAIL)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, code) as ward:
        await ward.report()
        with airflow.by_someone_else():
            await airflow.clear("orders", "manual__1", [TASK], dry_run=False)
        await ward.report(try_number=2)

        record = await ward.only()
        assert record.status is Status.ESCALATED
        assert record.try_number == 2
        assert len(ward.doctor.cases) == 2
