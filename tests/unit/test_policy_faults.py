"""The default policy's mode for every row of the fault catalogue, from diagnosis through planning."""

from __future__ import annotations

import json
from typing import Any

import pytest

from graph.domain import (
    BlastRadius,
    ColumnProblem,
    Connection,
    DagInfo,
    DataReport,
    Diagnosis,
    Facts,
    FixPlan,
    Pool,
    Remediation,
    RootCause,
    RunSnapshot,
    Variable,
)
from tests.factories import START, make_diagnosis, make_snapshot, make_task
from tests.unit.fix_world import CATALOGUE
from tests.unit.policy_cases import DEFAULT
from tools.actions import Rerun
from tools.diagnosis import UpstreamTask
from tools.planning import plan
from tools.policy import Question, decide
from tools.situation import Moved, Producer, Situation

SAFE = ("airmedic:rerun-safe",)
KEY = "airmedic_contract_employees"
CONTRACT = {
    "version": 1,
    "columns": {
        "id": {"type": "integer", "required": True, "key": True},
        "email": {"type": "string", "required": True},
        "salary": {"type": "number", "required": True},
        "hired_on": {"type": "date", "required": True},
    },
    "extra_columns": "fail",
    "quarantine": {"rows": "fail", "max_fraction": 0.05, "duplicates": "fail"},
    "batch_size": 50,
    "timeout_seconds": {"load": 10},
}
ROWS = 2500
MISSING = ColumnProblem(kind="missing", column="email", expected="string")
RENAMED = ColumnProblem(kind="unexpected", column="email_address", found="string", required=False)
EXTRA = ColumnProblem(kind="unexpected", column="nickname", found="string", required=False)
SEPARATORS = ColumnProblem(
    kind="type", column="salary", rows=ROWS, expected="number", found="number_with_separators"
)
DATES = ColumnProblem(kind="type", column="hired_on", rows=ROWS, expected="date", found="date:%d/%m/%Y")
TWICE = ColumnProblem(kind="duplicate", column="id", rows=5)
HOST = Connection(conn_id="employees_api", conn_type="http", host="employees.invalid")
FEED = DagInfo(dag_id="feed", tags=SAFE)
FEED_TASK = make_task(dag_id="feed", run_id="r", task_id="publish")
FEED_RUN = RunSnapshot(dag_id="feed", run_id="r", state="success")


def lacking(rows: int) -> ColumnProblem:
    return ColumnProblem(kind="null", column="email", rows=rows)


def data(*problems: ColumnProblem, aside: int = 0) -> dict[str, Any]:
    report = DataReport(rows_in=ROWS, rows_quarantined=aside, problems=problems)
    return {"contract": Variable(key=KEY, value=json.dumps(CONTRACT)), "report": report}


def mode(
    cause: RootCause,
    remediation: Remediation,
    *,
    transient: bool = False,
    facts: Facts | None = None,
    **given: Any,
) -> str:
    """What the default policy says of the first plan; `escalate` when there is none."""
    diagnosis = make_diagnosis(
        root_cause=cause, remediation=remediation, transient=transient, facts=facts or Facts()
    )
    situation = Situation(**{"task": make_snapshot(), "dag": DagInfo(dag_id="orders", tags=SAFE), **given})
    plans = plan(diagnosis, situation).plans
    if not plans:
        return "escalate"
    return decide(_question(plans[0], situation, diagnosis), DEFAULT, CATALOGUE).verdict.value


def _question(made: FixPlan, situation: Situation, diagnosis: Diagnosis) -> Question:
    dags = {"orders": situation.dag.tags, "feed": FEED.tags}
    reruns = tuple(
        Rerun(dag_id=ref.dag_id, task_id=ref.task_id, tags=dags[ref.dag_id]) for ref in CATALOGUE.reruns(made)
    )
    return Question(
        diagnosis=diagnosis,
        plan=made,
        task=situation.task,
        dag=situation.dag,
        radius=BlastRadius(task_instances=4, dag_runs=1, dags=1),
        reruns=reruns,
        now=START,
    )


R, C = Remediation, RootCause
MOVED = Moved(now=HOST, last_good=HOST.model_copy(update={"host": "127.0.0.1"}))
MADE = Producer(dag=FEED, run=FEED_RUN, tasks=(FEED_TASK,))


@pytest.mark.parametrize(
    ("expected", "found"),
    [
        pytest.param("auto", mode(C.NETWORK_UNREACHABLE, R.RETRY, transient=True), id="F01"),
        pytest.param("ask", mode(C.MISSING_CONFIGURATION, R.UPDATE_CONFIGURATION, moved=MOVED), id="F02"),
        pytest.param("auto", mode(C.UPSTREAM_UNAVAILABLE, R.RETRY, transient=True), id="F03"),
        pytest.param(
            "auto", mode(C.RATE_LIMITED, R.RETRY, transient=True, facts=Facts(retry_after=20)), id="F04"
        ),
        pytest.param("ask", mode(C.AUTHENTICATION_FAILED, R.RENEW_CREDENTIALS), id="F05"),
        pytest.param("escalate", mode(C.PERMISSION_DENIED, R.RENEW_CREDENTIALS), id="F06"),
        pytest.param("ask", mode(C.SCHEMA_DRIFT, R.ADAPT_SCHEMA, **data(MISSING, RENAMED)), id="F07"),
        pytest.param("auto", mode(C.SCHEMA_DRIFT, R.ADAPT_SCHEMA, **data(EXTRA)), id="F08"),
        pytest.param("escalate", mode(C.SCHEMA_DRIFT, R.ADAPT_SCHEMA, **data(MISSING)), id="F09"),
        pytest.param("ask", mode(C.TYPE_MISMATCH, R.ADAPT_SCHEMA, **data(SEPARATORS, aside=ROWS)), id="F10"),
        pytest.param("ask", mode(C.TYPE_MISMATCH, R.ADAPT_SCHEMA, **data(DATES, aside=ROWS)), id="F11"),
        pytest.param(
            "auto", mode(C.CONSTRAINT_VIOLATION, R.QUARANTINE_DATA, **data(lacking(50), aside=50)), id="F12"
        ),
        pytest.param(
            "escalate",
            mode(C.CONSTRAINT_VIOLATION, R.QUARANTINE_DATA, **data(lacking(1000), aside=1000)),
            id="F13",
        ),
        pytest.param(
            "ask", mode(C.CONSTRAINT_VIOLATION, R.QUARANTINE_DATA, **data(TWICE, aside=5)), id="F14"
        ),
        pytest.param("auto", mode(C.MISSING_DATA, R.RERUN_UPSTREAM, producer=MADE), id="F15"),
        pytest.param(
            "escalate",
            mode(
                C.MISSING_DATA,
                R.RERUN_UPSTREAM,
                producer=MADE,
                upstream=(UpstreamTask(task_id="extract", state="success", returned=0),),
            ),
            id="F16",
        ),
        pytest.param(
            "ask",
            mode(C.MISSING_CONFIGURATION, R.UPDATE_CONFIGURATION, absent_variable="employees_source_path"),
            id="F17",
        ),
        pytest.param(
            "escalate",
            mode(C.MISSING_CONFIGURATION, R.UPDATE_CONFIGURATION, absent_connection="employees_api"),
            id="F18",
        ),
        pytest.param("auto", mode(C.TIMEOUT, R.RETRY, transient=True), id="F19"),
        pytest.param("ask", mode(C.TIMEOUT, R.RAISE_LIMIT, **data()), id="F20, known not to pass"),
        pytest.param(
            "ask", mode(C.TIMEOUT, R.RETRY, transient=True, attempts=1, **data()), id="F20, retried once"
        ),
        pytest.param("ask", mode(C.OUT_OF_MEMORY, R.RAISE_LIMIT, **data()), id="F21"),
        pytest.param("auto", mode(C.WORKER_LOST, R.RETRY, transient=True), id="F22"),
        pytest.param("auto", mode(C.LOCK_CONTENTION, R.RETRY, transient=True), id="F23"),
        pytest.param(
            "ask", mode(C.CAPACITY_UNAVAILABLE, R.RAISE_LIMIT, pool=Pool(name="p", slots=0)), id="F24"
        ),
        pytest.param("escalate", mode(C.DEPENDENCY_ERROR, R.CHANGE_CODE), id="F25"),
        pytest.param("escalate", mode(C.CODE_ERROR, R.CHANGE_CODE), id="F26 F27"),
        pytest.param("escalate", mode(C.QUERY_ERROR, R.CHANGE_CODE), id="F28"),
        pytest.param("escalate", mode(C.STORAGE_EXHAUSTED, R.RAISE_LIMIT), id="F29"),
        pytest.param("escalate", mode(C.TLS_ERROR, R.RENEW_CREDENTIALS), id="F30"),
        pytest.param("ask", mode(C.EXTERNAL_JOB_FAILED, R.RETRY), id="F31"),
        pytest.param("escalate", mode(C.EXTERNAL_JOB_FAILED, R.RETRY, attempts=1), id="F31, tried once"),
        pytest.param("escalate", mode(C.UNKNOWN, R.ESCALATE), id="F32"),
        pytest.param("escalate", mode(C.PLATFORM_ERROR, R.REPAIR_PLATFORM), id="F33"),
        pytest.param(
            "ask",
            mode(
                C.NETWORK_UNREACHABLE,
                R.RETRY,
                transient=True,
                dag=DagInfo(dag_id="orders", tags=("airmedic:rerun-unsafe",)),
            ),
            id="F34",
        ),
        pytest.param(
            "auto",
            mode(
                C.NETWORK_UNREACHABLE,
                R.RETRY,
                transient=True,
                task=make_snapshot(task=make_task(map_index=0)),
                batch=tuple(make_task(map_index=number) for number in range(200)),
            ),
            id="F37",
        ),
        pytest.param("ask", mode(C.RATE_LIMITED, R.RETRY, transient=True, failed_in_a_row=5), id="F46"),
        pytest.param(
            "ask",
            mode(
                C.UPSTREAM_UNAVAILABLE,
                R.ESCALATE,
                dag=DagInfo(dag_id="orders", tags=(*SAFE, "airmedic:skippable=load")),
            ),
            id="F48",
        ),
        pytest.param("ask", mode(C.MISSING_DATA, R.RERUN_UPSTREAM, producer=Producer(dag=FEED)), id="F49"),
    ],
)
def test_the_default_mode_of_a_fault(expected: str, found: str) -> None:
    assert found == expected
