"""What counts as healed, and what does not."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue

from graph.domain import Check, ColumnProblem, DataReport, Outcome, TaskInfo, TaskRef, TaskSnapshot
from nodes.following import data_right
from tests.factories import Clock, make_snapshot, make_task
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try
from tools.verification import World, accounted, downstream_of, judge, look, past_rows

GOOD = DataReport(rows_in=120, rows_out=120, rows_expected=120, satisfied=True)
USUAL = (118, 119, 120, 121, 122)


def after(task_id: str, state: str) -> TaskSnapshot:
    return make_snapshot(task=make_task(task_id=task_id), state=state)


def world(**given: Any) -> World:
    green = make_snapshot(state="success", try_number=2)
    return World(**{"task": green, "reports": {"load": GOOD}, **given})


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        pytest.param({}, Outcome.HEALED, id="green on a new try, and the data agree"),
        pytest.param({"task": make_snapshot(state="running", try_number=2)}, None, id="still running"),
        pytest.param({"task": make_snapshot(state="success", try_number=1)}, None, id="no new try yet"),
        pytest.param(
            {"task": make_snapshot(state="failed", try_number=2)}, Outcome.NOT_HEALED, id="failed again"
        ),
        pytest.param({"downstream": (after("report", "running"),)}, None, id="what comes after still runs"),
        pytest.param(
            {"downstream": (after("report", "skipped"),)}, Outcome.HEALED, id="a skip holds nothing back"
        ),
        pytest.param({"reports": {}}, Outcome.RECOVERED_UNVERIFIED, id="nothing known of the data"),
        pytest.param(
            {"reports": {"load": DataReport(rows_out=5)}},
            Outcome.RECOVERED_UNVERIFIED,
            id="rows, and nothing to compare them with",
        ),
        pytest.param(
            {"reports": {"load": GOOD.model_copy(update={"rows_out": 60})}},
            Outcome.NOT_HEALED,
            id="green with half the rows is not healed",
        ),
        pytest.param(
            {
                "reports": {
                    "load": GOOD.model_copy(
                        update={
                            "satisfied": False,
                            "problems": (ColumnProblem(kind="missing", column="email"),),
                        }
                    )
                }
            },
            Outcome.NOT_HEALED,
            id="the contract is not satisfied",
        ),
        pytest.param(
            {
                "reports": {
                    "load": DataReport(
                        rows_out=110, rows_quarantined=10, quarantine_limit=6, rows_expected=120
                    )
                }
            },
            Outcome.NOT_HEALED,
            id="too much was set aside",
        ),
        pytest.param(
            {
                "reports": {
                    "load": DataReport(
                        rows_out=117, rows_quarantined=3, quarantine_limit=6, rows_expected=120
                    )
                }
            },
            Outcome.HEALED,
            id="rows set aside within the limit are accounted for",
        ),
    ],
)
def test_the_outcome(given: dict[str, Any], outcome: Outcome | None) -> None:
    assert judge(world(**given), try_before=1, changed_settings=False).outcome is outcome


@pytest.mark.parametrize(
    ("changed_settings", "outcome"),
    [
        pytest.param(True, Outcome.NOT_HEALED, id="our change may have broken the next task"),
        pytest.param(False, Outcome.RECOVERED_UNVERIFIED, id="a plain re-run cannot have"),
    ],
)
def test_a_failure_after_the_healed_task(changed_settings: bool, outcome: Outcome) -> None:
    held = world(downstream=(after("report", "failed"),))
    assert judge(held, try_before=1, changed_settings=changed_settings).outcome is outcome


@pytest.mark.parametrize(
    ("rows", "declared", "healed"),
    [
        pytest.param(121, None, True, id="inside the task's own band"),
        pytest.param(90, None, False, id="far outside it"),
        pytest.param(90, 90, True, id="outside, and the source declared just that"),
        pytest.param(119, 120, False, id="inside, and the source declared another number"),
    ],
)
def test_rows_are_judged_by_the_tasks_own_past(rows: int, declared: int | None, healed: bool) -> None:
    report = DataReport(rows_out=rows, rows_expected=declared)
    found = judge(
        world(reports={"load": report}, past_rows={"load": USUAL}), try_before=1, changed_settings=False
    )
    assert (found.outcome is Outcome.HEALED) is healed


@pytest.mark.parametrize(
    ("set_aside", "outcome"),
    [
        pytest.param(5, Outcome.HEALED, id="as many as the limit"),
        pytest.param(6, Outcome.NOT_HEALED, id="one more"),
    ],
)
def test_rows_may_be_set_aside_up_to_the_limit(set_aside: int, outcome: Outcome) -> None:
    report = DataReport(
        rows_out=120 - set_aside, rows_quarantined=set_aside, quarantine_limit=5, rows_expected=120
    )

    assert judge(world(reports={"load": report}), try_before=1, changed_settings=False).outcome is outcome


def test_what_is_not_known_is_said() -> None:
    silent = judge(world(reports={}), try_before=1, changed_settings=False)

    assert silent.checks[-1] == Check(
        name="data", ok=None, detail="the pipeline reports nothing about its data"
    )


@pytest.mark.parametrize(
    ("state", "try_number", "ok"),
    [
        pytest.param("running", 2, None, id="a new try that runs"),
        pytest.param("success", 1, None, id="the try that was there before"),
        pytest.param("success", 2, True, id="a new try that succeeded"),
        pytest.param("failed", 2, False, id="a new try that failed"),
    ],
)
def test_the_task_s_own_check_waits_for_a_new_try(state: str, try_number: int, ok: bool | None) -> None:
    task = make_snapshot(state=state, try_number=try_number)

    assert judge(world(task=task), try_before=1, changed_settings=False).checks[0].ok is ok


# --- what is read -----------------------------------------------------------------------------------------


def report_of(rows: int, **given: JsonValue) -> Try:
    return Try(xcom={"airmedic_report": {"rows_out": rows, **given}})


async def ran(airflow: MemoryAirflow, *runs: str) -> None:
    for run in runs:
        airflow.start("orders", run)
        await airflow.settle()


async def test_the_run_is_read_and_nothing_beside_it(clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock)
    tasks = [
        TaskSpec("other", [report_of(3)]),
        TaskSpec("load", [report_of(10, rows_expected=10)], ("report",)),
        TaskSpec("report", [report_of(9, rows_expected=9)]),
    ]
    airflow.add_dag("orders", tasks)
    await ran(airflow, "manual__1")

    seen = await look(airflow, make_task())

    assert [one.task.task_id for one in seen.downstream] == ["report"]
    assert set(seen.reports) == {"load", "report"}
    assert seen.run_state == "success"
    assert seen.past_rows == {}  # both say how many there should be


async def test_the_data_are_not_read_before_the_run_is_at_rest(clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag(
        "orders", [TaskSpec("load", [report_of(10)], ("report",)), TaskSpec("report", [Try("running")])]
    )
    await ran(airflow, "manual__1")

    seen = await look(airflow, make_task())

    assert seen.task.state == "success"
    assert (seen.run_state, seen.reports) == ("", {})


async def test_a_task_that_failed_reports_nothing(clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock)
    broken = Try("failed", xcom={"airmedic_report": {"rows_out": 1}})
    airflow.add_dag("orders", [TaskSpec("load", [report_of(10)], ("report",)), TaskSpec("report", [broken])])
    await ran(airflow, "manual__1")

    assert set((await look(airflow, make_task())).reports) == {"load"}


async def test_past_rows_are_those_of_other_runs_that_succeeded(clock: Clock) -> None:
    airflow = MemoryAirflow(clock=clock)
    counts = iter(
        [report_of(1), Try("failed", xcom={"airmedic_report": {"rows_out": 2}}), report_of(3), Try()]
    )
    airflow.add_dag("orders", [TaskSpec("load", lambda _task, _number: next(counts))])
    await ran(airflow, "manual__0", "manual__bad", "manual__1", "manual__silent")

    assert await past_rows(airflow, make_task(), "load") == (1,)


async def cleared(airflow: MemoryAirflow, *indexes: int) -> None:
    await ran(airflow, "manual__1")
    failed = [make_task(map_index=index) for index in indexes]
    await airflow.clear("orders", "manual__1", failed, dry_run=False)
    await airflow.settle()


async def test_every_map_index_answers_for_its_own_data(clock: Clock) -> None:
    def load(task: TaskRef, number: int) -> Try:
        if number == 1:
            return Try("failed", seconds=1)
        return report_of(0 if task.map_index == 1 else 9, rows_expected=9)

    airflow = MemoryAirflow(clock=clock)
    airflow.add_dag("orders", [TaskSpec("load", load, map_indexes=(0, 1, 2))])
    await cleared(airflow, 0, 1, 2)

    seen = await look(airflow, make_task(map_index=0), [make_task(map_index=index) for index in (1, 2)])
    found = judge(seen, try_before=1, changed_settings=False)

    assert found.outcome is Outcome.NOT_HEALED
    assert [check.name for check in found.checks if check.ok is False] == ["rows of load[1]"]


@pytest.mark.parametrize(
    ("rule", "said", "outcome"),
    [
        pytest.param("all_success", True, Outcome.HEALED, id="it waited, and ran after it"),
        pytest.param("all_done", True, Outcome.ESCALATED, id="its own data were made without it"),
        pytest.param("all_done", False, Outcome.RECOVERED_UNVERIFIED, id="what it did is not known"),
        pytest.param("all_done_setup_success", False, Outcome.HEALED, id="it only tidies up"),
    ],
)
async def test_what_ran_before_it_was_well_has_not_seen_it(
    clock: Clock, rule: str, said: bool, outcome: Outcome
) -> None:
    airflow = MemoryAirflow(clock=clock)
    load = (Try("failed"), report_of(9, rows_expected=9))
    report = report_of(4) if said else Try()
    tasks = [TaskSpec("load", load, ("report",)), TaskSpec("report", [report], trigger_rule=rule)]
    airflow.add_dag("orders", tasks)
    await ran(airflow, "manual__1")
    clock.forward(60)
    await airflow.clear("orders", "manual__1", [make_task()], dry_run=False)
    await airflow.settle()

    found = judge(await look(airflow, make_task()), try_before=1, changed_settings=False)

    assert found.outcome is outcome
    told = "report ran before load succeeded" in str(found.checks)
    assert told is (outcome is not Outcome.HEALED)


@pytest.mark.parametrize(
    ("grouped", "outcome"),
    [
        pytest.param(True, Outcome.HEALED, id="the other indexes of the group have nothing to do with it"),
        pytest.param(False, Outcome.ESCALATED, id="each took from all of them"),
    ],
)
async def test_an_index_of_a_mapped_group_is_its_own(clock: Clock, grouped: bool, outcome: Outcome) -> None:
    def fetch(task: TaskRef, number: int) -> Try:
        return Try("failed" if task.map_index == 1 and number == 1 else "success")

    airflow = MemoryAirflow(clock=clock)
    rule = "all_success" if grouped else "all_done"
    mapped = partial(TaskSpec, map_indexes=(0, 1, 2), in_mapped_group=grouped)
    store = mapped("part.store", [report_of(1, rows_expected=1)], trigger_rule=rule)
    airflow.add_dag("orders", [mapped("part.fetch", fetch, ("part.store",)), store])
    await ran(airflow, "manual__1")
    clock.forward(60)
    failed = make_task(task_id="part.fetch", map_index=1)
    await airflow.clear("orders", "manual__1", [failed], dry_run=False)
    await airflow.settle()

    found = judge(await look(airflow, failed), try_before=1, changed_settings=False)

    assert found.outcome is outcome


def test_downstream_goes_all_the_way() -> None:
    tasks = [
        TaskInfo(task_id="a", downstream=("b", "c")),
        TaskInfo(task_id="b", downstream=("d",)),
        TaskInfo(task_id="c", downstream=("d",)),
        TaskInfo(task_id="d"),
    ]
    assert downstream_of("a", tasks) == {"b", "c", "d"}
    assert downstream_of("d", tasks) == frozenset()


@pytest.mark.parametrize(
    ("report", "right"),
    [
        pytest.param(GOOD, True, id="as declared"),
        pytest.param(DataReport(rows_out=3), None, id="rows, and nothing to compare them with"),
        pytest.param(DataReport(rows_out=119, rows_expected=120), False, id="a row is missing"),
        pytest.param(DataReport(satisfied=False), False, id="the contract is broken"),
        pytest.param(
            DataReport(rows_out=117, rows_quarantined=3, quarantine_limit=6, rows_expected=120),
            True,
            id="rows set aside within the limit",
        ),
        pytest.param(
            DataReport(rows_out=110, rows_quarantined=10, quarantine_limit=6, rows_expected=120),
            False,
            id="too much was set aside",
        ),
    ],
)
def test_the_data_of_a_wave_are_held_to_the_same(report: DataReport, right: bool | None) -> None:
    assert data_right(report) is right


STATES = st.sampled_from(
    ["success", "failed", "upstream_failed", "skipped", "removed", "running", "queued", "scheduled", "none"]
)
COUNT = st.none() | st.integers(0, 5)
REPORTS = st.builds(
    DataReport,
    satisfied=st.none() | st.booleans(),
    rows_out=COUNT,
    rows_expected=COUNT,
    rows_quarantined=COUNT,
    quarantine_limit=COUNT,
)


@settings(max_examples=300, deadline=None)
@given(
    task=st.builds(
        lambda state, number: make_snapshot(state=state, try_number=number), STATES, st.integers(1, 3)
    ),
    batch=st.lists(STATES, max_size=2),
    downstream=st.lists(STATES, max_size=2),
    reports=st.dictionaries(st.sampled_from(["load", "report"]), REPORTS, max_size=2),
    usual=st.lists(st.integers(0, 5), max_size=6),
    changed=st.booleans(),
    marked=st.sampled_from(["", "skipped"]),
)
def test_healed_is_said_of_nothing_less(
    task: TaskSnapshot,
    batch: list[str],
    downstream: list[str],
    reports: dict[str, DataReport],
    usual: list[int],
    changed: bool,
    marked: str,
) -> None:
    seen = World(
        task=task,
        batch=tuple(after("load", state) for state in batch),
        downstream=tuple(after("report", state) for state in downstream),
        reports=reports,
        past_rows=dict.fromkeys(reports, tuple(usual)),
    )

    found = judge(seen, try_before=1, changed_settings=changed, marked=marked)

    if found.outcome is not Outcome.HEALED:
        return
    assert task.state == (marked or "success")
    assert marked or task.try_number > 1
    assert set(batch) <= {"success"}
    assert set(downstream) <= {"success", "skipped", "removed"}
    assert all(check.ok is not False for check in found.checks)
    assert all(data_right(report) is not False for report in reports.values())
    assert reports
    for report in reports.values():
        rows = accounted(report)
        assert report.satisfied is not False
        assert report.rows_expected is None or rows is None or rows == report.rows_expected
