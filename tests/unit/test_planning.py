"""From a cause to plans on this failure's targets, or to a checklist."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graph.domain import (
    CodeLocation,
    ColumnProblem,
    Connection,
    DagInfo,
    DataReport,
    Diagnosis,
    Facts,
    Pool,
    Remediation,
    RootCause,
    RunSnapshot,
    TaskSnapshot,
    Variable,
)
from tests.factories import make_diagnosis, make_snapshot, make_task
from tools.actions import ActionCatalogue
from tools.diagnosis import UpstreamTask
from tools.planning import FAMILIES, plan
from tools.situation import Moved, Producer, Situation

CATALOGUE = ActionCatalogue.default(plugins=())
CONTRACT = {
    "version": 1,
    "columns": {"id": {"type": "integer", "required": True}, "email": {"type": "string", "required": True}},
    "quarantine": {"rows": "fail", "max_fraction": 0.05, "duplicates": "fail"},
    "batch_size": 50,
    "timeout_seconds": {"load": 10},
}
KEY = "airmedic_contract_orders"
REFUSED = make_diagnosis()


def make_situation(**given: Any) -> Situation:
    dag = DagInfo(dag_id="orders", tags=("airmedic:rerun-safe",))
    return Situation(**{"task": make_snapshot(), "dag": dag, **given})


def with_contract(*problems: ColumnProblem, **given: Any) -> Situation:
    report = DataReport(rows_in=1000, problems=problems, rows_quarantined=given.pop("aside", 0))
    return make_situation(contract=Variable(key=KEY, value=json.dumps(CONTRACT)), report=report, **given)


def cause(root_cause: RootCause, remediation: Remediation, **given: Any) -> Diagnosis:
    return make_diagnosis(
        **{"root_cause": root_cause, "remediation": remediation, "transient": False, **given}
    )


def names(diagnosis: Diagnosis, situation: Situation) -> list[list[str]]:
    return [[action.name for action in one.actions] for one in plan(diagnosis, situation).plans]


# --- waits ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("root_cause", "attempts", "retry_after", "seconds"),
    [
        pytest.param(RootCause.NETWORK_UNREACHABLE, 0, None, 20, id="network"),
        pytest.param(RootCause.NETWORK_UNREACHABLE, 1, None, 40, id="doubled by the first attempt"),
        pytest.param(RootCause.NETWORK_UNREACHABLE, 2, None, 80, id="doubled again"),
        pytest.param(RootCause.UPSTREAM_UNAVAILABLE, 0, None, 15, id="busy service"),
        pytest.param(RootCause.UPSTREAM_UNAVAILABLE, 0, 120.0, 121, id="busy service that names a time"),
        pytest.param(RootCause.RATE_LIMITED, 0, 60.0, 61, id="never before Retry-After"),
        pytest.param(RootCause.RATE_LIMITED, 0, 1.0, 30, id="a short Retry-After shortens nothing"),
        pytest.param(RootCause.RATE_LIMITED, 0, -5.0, 30, id="a Retry-After in the past"),
        pytest.param(RootCause.WORKER_LOST, 0, None, 0, id="a lost worker at once"),
        pytest.param(RootCause.WORKER_LOST, 1, None, 10, id="not at once the second time"),
        pytest.param(RootCause.PLATFORM_ERROR, 0, None, 60, id="anything else a minute"),
    ],
)
def test_a_retry_waits(
    root_cause: RootCause, attempts: int, retry_after: float | None, seconds: float
) -> None:
    diagnosis = make_diagnosis(root_cause=root_cause, facts=Facts(retry_after=retry_after))

    made = plan(diagnosis, make_situation(attempts=attempts)).plans[0]

    assert made.wait == seconds
    assert made.actions[-1].name == "clear_task"


@pytest.mark.parametrize(
    ("facts", "attempts", "seconds"),
    [
        pytest.param(Facts(wait=300), 0, 300, id="what knowledge says of the error"),
        pytest.param(Facts(wait=300), 1, 600, id="doubled like any other"),
        pytest.param(Facts(wait=5, retry_after=90), 0, 91, id="never before Retry-After"),
        pytest.param(Facts(wait=-1), 0, 20, id="nonsense counts for nothing"),
    ],
)
def test_a_wait_hint_reaches_the_plan(facts: Facts, attempts: int, seconds: float) -> None:
    diagnosis = make_diagnosis(root_cause=RootCause.NETWORK_UNREACHABLE, facts=facts)

    assert plan(diagnosis, make_situation(attempts=attempts)).plans[0].wait == seconds


def test_writers_that_met_at_a_lock_are_spread() -> None:
    diagnosis = make_diagnosis(root_cause=RootCause.LOCK_CONTENTION)

    def wait(run: str) -> float:
        return plan(diagnosis, make_situation(task=make_snapshot(task=make_task(run_id=run)))).plans[0].wait

    waits = [wait(f"run_{number}") for number in range(10)]
    assert len(set(waits)) > 5
    assert all(5 <= seconds <= 10 for seconds in waits)
    assert wait("run_1") == wait("run_1")


def test_a_wait_of_more_than_a_day_is_a_persons() -> None:
    diagnosis = make_diagnosis(root_cause=RootCause.RATE_LIMITED, facts=Facts(retry_after=1e6))

    planned = plan(diagnosis, make_situation())

    assert planned.plans == ()
    assert "more than a day" in planned.checklist[0]


@pytest.mark.parametrize(
    ("diagnosis", "attempts"),
    [
        pytest.param(REFUSED, 3, id="three retries did not help"),
        pytest.param(make_diagnosis(root_cause=RootCause.TIMEOUT), 1, id="one retry after a timeout"),
        pytest.param(make_diagnosis(transient=False), 0, id="a cause that does not pass"),
        pytest.param(
            cause(RootCause.EXTERNAL_JOB_FAILED, Remediation.RETRY), 1, id="a silent job was tried once"
        ),
    ],
)
def test_no_retry_when(diagnosis: Diagnosis, attempts: int) -> None:
    assert plan(diagnosis, make_situation(attempts=attempts)).plans == ()


# --- targets ----------------------------------------------------------------------------------------------


def test_exactly_the_failed_map_indexes_are_cleared() -> None:
    batch = tuple(make_task(map_index=number) for number in (1, 4, 7))
    situation = make_situation(task=make_snapshot(task=batch[0]), batch=batch)

    clear = plan(REFUSED, situation).plans[0].actions[-1]

    assert clear.target["tasks"] == [{"task_id": "load", "map_index": number} for number in (1, 4, 7)]


def test_a_large_batch_sends_one_ahead() -> None:
    batch = tuple(make_task(map_index=number) for number in range(200))
    situation = make_situation(task=make_snapshot(task=batch[0]), batch=batch)

    wait, canary, rest = plan(REFUSED, situation).plans[0].actions

    assert wait.name == "wait"
    assert canary.target["tasks"] == [{"task_id": "load", "map_index": 1}]
    assert canary.args == {"downstream": False}
    tasks = rest.target["tasks"]
    assert isinstance(tasks, list)
    assert len(tasks) == 199


def test_nothing_from_the_log_becomes_a_target() -> None:
    facts = Facts(host="evil.example", conn_id="evil", variable="evil", pool="evil", retry_after=30)
    for root_cause in RootCause:
        for transient in (True, False):
            diagnosis = make_diagnosis(root_cause=root_cause, transient=transient, facts=facts)
            for made in plan(diagnosis, with_contract()).plans:
                assert "evil" not in str([action.target for action in made.actions])


@pytest.mark.parametrize("root_cause", RootCause)
def test_every_plan_is_valid_and_every_failure_has_a_checklist(root_cause: RootCause) -> None:
    situation = with_contract(
        ColumnProblem(kind="unexpected", column="nickname", found="string"),
        pool=Pool(name="p", slots=0),
        absent_variable="orders_path",
    )
    for transient in (True, False):
        planned = plan(make_diagnosis(root_cause=root_cause, transient=transient), situation)

        assert planned.checklist
        for made in planned.plans:
            CATALOGUE.validate_plan(made)


def test_a_cause_opens_only_its_own_families() -> None:
    """A model may wish for anything."""
    diagnosis = cause(
        RootCause.CODE_ERROR, Remediation.RETRY, transient=True, alternatives=tuple(Remediation)
    )

    assert plan(diagnosis, with_contract()).plans == ()


def test_the_diagnosis_orders_the_families() -> None:
    first = make_diagnosis(root_cause=RootCause.TIMEOUT, remediation=Remediation.RAISE_LIMIT)

    assert [one.remediation for one in plan(first, with_contract()).plans] == [
        Remediation.RAISE_LIMIT,
        Remediation.RETRY,
    ]


def test_code_and_platform_have_no_family_that_acts_by_itself() -> None:
    quiet = {
        RootCause.CODE_ERROR,
        RootCause.DEPENDENCY_ERROR,
        RootCause.QUERY_ERROR,
        RootCause.PERMISSION_DENIED,
        RootCause.TLS_ERROR,
        RootCause.STORAGE_EXHAUSTED,
        RootCause.UNKNOWN,
    }

    assert set(RootCause) - set(FAMILIES) == quiet


# --- the contract -----------------------------------------------------------------------------------------

RENAMED = (
    ColumnProblem(kind="missing", column="email", expected="string"),
    ColumnProblem(kind="unexpected", column="email_address", found="string", required=False),
)
ADAPT = cause(RootCause.SCHEMA_DRIFT, Remediation.ADAPT_SCHEMA)


def test_a_contract_edit_is_stored_and_the_task_cleared() -> None:
    (made,) = plan(ADAPT, with_contract(*RENAMED)).plans

    assert [action.name for action in made.actions] == ["set_variable", "clear_task"]
    assert made.actions[0].target == {"key": KEY, "base": json.dumps(CONTRACT)}
    assert '+      "source": "email_address"' in made.diff
    assert "'email' is read from 'email_address'" in made.summary


def test_rows_set_aside_are_quarantine_whatever_the_diagnosis_called_it() -> None:
    lacking = ColumnProblem(kind="null", column="email", rows=20)

    (made,) = plan(ADAPT, with_contract(lacking, aside=20)).plans

    assert made.remediation is Remediation.QUARANTINE_DATA


@pytest.mark.parametrize(
    ("situation", "words"),
    [
        pytest.param(make_situation(), "names no contract", id="no contract"),
        pytest.param(with_contract(), "does not report", id="no report"),
        pytest.param(with_contract(RENAMED[0]), "'email' (string) is gone", id="a column gone for good"),
        pytest.param(
            with_contract(ColumnProblem(kind="null", column="email", rows=400), aside=400),
            "over the limit",
            id="too many bad rows",
        ),
    ],
)
def test_what_the_contract_cannot_mend_is_told(situation: Situation, words: str) -> None:
    planned = plan(ADAPT, situation)

    assert planned.plans == ()
    assert words in planned.checklist[0]


def test_limits_are_raised_in_the_contract() -> None:
    slow = cause(RootCause.TIMEOUT, Remediation.RAISE_LIMIT)
    large = cause(RootCause.OUT_OF_MEMORY, Remediation.RAISE_LIMIT)

    assert '+    "load": 20' in plan(slow, with_contract()).plans[0].diff
    assert '+  "batch_size": 25' in plan(large, with_contract()).plans[0].diff


@pytest.mark.parametrize(
    ("state", "actions"),
    [("scheduled", ["set_pool_slots"]), ("failed", ["set_pool_slots", "clear_task"])],
)
def test_an_empty_pool_gets_a_slot(state: str, actions: list[str]) -> None:
    situation = make_situation(task=make_snapshot(state=state), pool=Pool(name="p", slots=0))

    assert names(cause(RootCause.CAPACITY_UNAVAILABLE, Remediation.RAISE_LIMIT), situation) == [actions]


# --- settings ---------------------------------------------------------------------------------------------

CONFIGURE = cause(RootCause.MISSING_CONFIGURATION, Remediation.UPDATE_CONFIGURATION)


def test_a_connection_goes_back_to_its_last_good_host() -> None:
    now = Connection(conn_id="api", conn_type="http", host="wrong.invalid", port=80)
    situation = make_situation(moved=Moved(now=now, last_good=now.model_copy(update={"host": "api.example"})))

    (made,) = plan(CONFIGURE, situation).plans

    assert made.actions[0].name == "patch_connection"
    assert made.actions[0].args == {"host": "api.example"}
    assert '+  "host": "api.example"' in made.diff


def test_a_missing_variable_waits_for_a_value() -> None:
    (made,) = plan(CONFIGURE, make_situation(absent_variable="orders_path")).plans

    assert made.actions[0].target == {"key": "orders_path", "base": None}
    assert CATALOGUE.missing(made) == ("set_variable.value",)


def test_a_missing_secret_is_created_by_people() -> None:
    planned = plan(CONFIGURE, make_situation(absent_variable="orders_token"))

    assert planned.plans == ()
    assert "create Variable 'orders_token'" in planned.checklist[0]


def test_a_missing_connection_is_told() -> None:
    planned = plan(CONFIGURE, make_situation(absent_connection="orders_db"))

    assert planned.plans == ()
    assert "create Connection 'orders_db'" in planned.checklist[0]


# --- inputs -----------------------------------------------------------------------------------------------

GONE = cause(RootCause.MISSING_DATA, Remediation.RERUN_UPSTREAM)
FEED = DagInfo(dag_id="feed")
FEED_RUN = RunSnapshot(dag_id="feed", run_id="r", state="success")
FEED_TASK = make_task(dag_id="feed", run_id="r", task_id="publish")


def test_the_producer_runs_again_or_anew() -> None:
    producer = Producer(dag=FEED, run=FEED_RUN, tasks=(FEED_TASK,))

    assert names(GONE, make_situation(producer=producer)) == [
        ["rerun_upstream", "clear_task"],
        ["trigger_dag", "clear_task"],
    ]


def test_a_producer_that_never_ran_is_started() -> None:
    assert names(GONE, make_situation(producer=Producer(dag=FEED))) == [["trigger_dag", "clear_task"]]


def test_the_upstream_task_of_the_same_run_clears_what_follows() -> None:
    upstream = (UpstreamTask(task_id="extract", state="success"),)

    (made,) = plan(GONE, make_situation(upstream=upstream)).plans

    assert [action.name for action in made.actions] == ["rerun_upstream"]
    assert made.actions[0].args == {"downstream": True}


@pytest.mark.parametrize(
    "upstream",
    [
        UpstreamTask(task_id="extract", state="success", returned=0),
        UpstreamTask(task_id="extract", state="success", report=DataReport(rows_out=0)),
    ],
    ids=["returned 0", "reported 0 rows"],
)
def test_an_empty_extract_is_a_matter_of_the_task_that_made_it(upstream: UpstreamTask) -> None:
    producer = Producer(dag=FEED, run=FEED_RUN, tasks=(FEED_TASK,))

    planned = plan(GONE, make_situation(upstream=(upstream,), producer=producer))

    assert planned.plans == ()
    assert "look at task 'extract' first" in planned.checklist[0]


def test_a_dag_that_is_turned_away_every_time_is_paused() -> None:
    limited = make_diagnosis(root_cause=RootCause.RATE_LIMITED)

    assert names(limited, make_situation(failed_in_a_row=4))[0] == ["pause_dag"]
    assert names(limited, make_situation(failed_in_a_row=3))[0] == ["wait", "clear_task"]


@pytest.mark.parametrize(
    ("tags", "transient", "skipped"),
    [
        pytest.param(("airmedic:skippable=load",), False, True, id="this task may be left out"),
        pytest.param(("airmedic:skippable",), False, True, id="any task may be left out"),
        pytest.param(("airmedic:skippable=other",), False, False, id="another task may be left out"),
        pytest.param(("airmedic:skippable",), True, False, id="first see whether it passes"),
    ],
)
def test_a_task_is_left_out_only_when_its_dag_says_so(
    tags: tuple[str, ...], transient: bool, skipped: bool
) -> None:
    diagnosis = make_diagnosis(root_cause=RootCause.UPSTREAM_UNAVAILABLE, transient=transient)
    situation = make_situation(dag=DagInfo(dag_id="orders", tags=tags))

    assert (["mark_task"] in names(diagnosis, situation)) is skipped


# --- checklists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("diagnosis", "words"),
    [
        pytest.param(
            cause(
                RootCause.CODE_ERROR,
                Remediation.CHANGE_CODE,
                location=CodeLocation(file="dags/orders.py", line=12, function="load"),
            ),
            "dags/orders.py:12 in load",
            id="code with file and line",
        ),
        pytest.param(
            cause(
                RootCause.PERMISSION_DENIED,
                Remediation.RENEW_CREDENTIALS,
                facts=Facts(host="api.example", conn_id="orders_api"),
            ),
            "Connection 'orders_api'",
            id="permission with its connection",
        ),
        pytest.param(
            cause(RootCause.TLS_ERROR, Remediation.ESCALATE, facts=Facts(host="api.example")),
            "certificate of api.example",
            id="certificate with its host",
        ),
    ],
)
def test_a_checklist_names_what_is_known(diagnosis: Diagnosis, words: str) -> None:
    planned = plan(diagnosis, make_situation())

    assert planned.plans == ()
    assert any(words in step for step in planned.checklist)


def test_a_snapshot_without_host_still_has_a_checklist() -> None:
    task = TaskSnapshot(task=make_task(), state="failed")

    assert plan(cause(RootCause.UNKNOWN, Remediation.ESCALATE), make_situation(task=task)).checklist


@pytest.mark.parametrize(
    ("state", "slots", "expected"),
    [
        pytest.param("scheduled", 0, [["set_pool_slots"]], id="no slots: running it again changes nothing"),
        pytest.param("failed", 0, [["set_pool_slots", "clear_task"]], id="it gave up, and has no slots"),
        pytest.param("queued", 4, [], id="it has not had its turn yet"),
        pytest.param("failed", 4, [["wait", "clear_task"]], id="it gave up, and there will be room again"),
    ],
)
def test_what_waits_for_compute_is_not_simply_run_again(
    state: str, slots: int, expected: list[list[str]]
) -> None:
    situation = make_situation(task=make_snapshot(state=state), pool=Pool(name="p", slots=slots))
    transient = cause(RootCause.CAPACITY_UNAVAILABLE, Remediation.RETRY, transient=True)

    assert names(transient, situation) == expected
