"""What Airflow knows beyond the log moves the answer, and a line of the diagnosis says how."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from graph.domain import Diagnosis, Pool, Remediation, RootCause, TaskLog, TaskSnapshot
from tests.factories import make_snapshot, make_task
from tools.diagnosis import Case, Context, Sibling
from tools.knowledge import KnowledgeBase

NOW = datetime(2026, 3, 2, 4, tzinfo=UTC)  # a Monday
REFUSED = "ConnectionError: [Errno 111] Connection refused"
UNRESOLVED = "gaierror: [Errno -2] Name or service not known"
NO_COLUMN = 'UndefinedColumn: column "email" does not exist'
NO_BEAT = "Task did not emit heartbeat within time limit (300 seconds). See https://airflow.apache.org/x"
LATE = "AirflowTaskTimeout: Timeout, PID: 7"


KILLED = TaskLog(
    text="[2026-03-02T04:00:00Z] ERROR - Process terminated by signal. Likely out of memory error (OOM)."
    " signal=-9 signal_name=SIGKILL"
)


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def failed(error: str) -> TaskLog:
    frame = '  File "/opt/airflow/dags/orders.py", line 12, in load'
    head = "[2026-03-02T04:00:00Z] ERROR - Task failed with exception"
    return TaskLog(text="\n".join([head, "Traceback (most recent call last):", frame, error]))


def run(ended: str, before: timedelta, **given: Any) -> TaskSnapshot:
    moment = NOW - before
    task = make_task(run_id=f"run_{moment:%m%dT%H%M}")
    return make_snapshot(
        **{"task": task, "state": ended, "start": moment, "end": moment, "dag_version": 3} | given
    )


def now(**given: Any) -> TaskSnapshot:
    return run("failed", timedelta(), **given)


def runs(state: str, count: int, every: timedelta, **given: Any) -> tuple[TaskSnapshot, ...]:
    return tuple(run(state, every * number, **given) for number in range(1, count + 1))


def ask(base: KnowledgeBase, log: TaskLog, task: TaskSnapshot | None = None, **context: Any) -> Diagnosis:
    return base.diagnose(Case(log=log, task=task or now(), context=Context(**context)))


HOUR, DAY = timedelta(hours=1), timedelta(days=1)
SIBLINGS = tuple(Sibling(task=make_task(task_id=f"t{n}"), ended=NOW, hostname="worker-3") for n in range(3))
MONDAYS = (
    *(run("failed", DAY * n, duration=40) for n in (7, 14)),
    *(run("success", DAY * n, duration=40) for n in (1, 2, 3, 4, 8, 9)),
)


@pytest.mark.parametrize(
    ("log", "task", "context", "cause", "transient", "line"),
    [
        pytest.param(
            failed(NO_COLUMN),
            now(dag_version=4),
            {"history": runs("success", 5, HOUR), "dag_version_of_last_success": 3},
            RootCause.QUERY_ERROR,
            False,
            "changed from version 3 to 4",
            id="a column that is not there, on a new version of the DAG: the query",
        ),
        pytest.param(
            failed(NO_COLUMN),
            now(),
            {"history": runs("success", 5, HOUR), "dag_version_of_last_success": 3},
            RootCause.SCHEMA_DRIFT,
            False,
            "worked in 5 runs",
            id="and on an old one: the table",
        ),
        pytest.param(
            failed(UNRESOLVED),
            now(),
            {"history": runs("failed", 4, HOUR)},
            RootCause.MISSING_CONFIGURATION,
            False,
            "the name was never right",
            id="a name that never resolved is a setting",
        ),
        pytest.param(
            failed(UNRESOLVED),
            now(),
            {"history": runs("success", 4, HOUR), "dag_version_of_last_success": 3},
            RootCause.NETWORK_UNREACHABLE,
            False,
            "worked 60 min ago",
            id="a name that resolved an hour ago is the network",
        ),
        pytest.param(
            failed(REFUSED),
            now(),
            {"history": runs("failed", 5, timedelta(hours=4))},
            RootCause.NETWORK_UNREACHABLE,
            False,
            "last 5 runs, over 20 h",
            id="what failed for a day does not pass by itself",
        ),
        pytest.param(
            failed(LATE),
            now(duration=300),
            {"history": runs("success", 5, HOUR, duration=20)},
            RootCause.TIMEOUT,
            True,
            "usually 20 s: slow this once",
            id="slow this once",
        ),
        pytest.param(
            failed(LATE),
            now(duration=300),
            {"history": MONDAYS},
            RootCause.TIMEOUT,
            False,
            "3 Mondays and on no other day",
            id="slow every Monday",
        ),
        pytest.param(
            KILLED,
            now(hostname="worker-3"),
            {"siblings": SIBLINGS},
            RootCause.WORKER_LOST,
            True,
            "3 other tasks on 'worker-3' ended in the same moment",
            id="all tasks of one machine, killed at one stroke",
        ),
        pytest.param(
            failed(REFUSED),
            now(),
            {"siblings": SIBLINGS},
            RootCause.NETWORK_UNREACHABLE,
            True,
            "3 other tasks failed in the same minutes",
            id="many at once: what they share",
        ),
        pytest.param(
            TaskLog(text=""),
            now(start=None, queue="gpu"),
            {},
            RootCause.CAPACITY_UNAVAILABLE,
            True,
            "from queue 'gpu'",
            id="a task that no worker took",
        ),
        pytest.param(
            TaskLog(text=""),
            now(start=None),
            {"pool": Pool(name="etl", slots=0)},
            RootCause.CAPACITY_UNAVAILABLE,
            True,
            "pool 'etl' has 0 slots",
            id="a pool without slots",
        ),
        pytest.param(
            failed(REFUSED),
            now(state="up_for_retry", max_tries=2),
            {},
            RootCause.NETWORK_UNREACHABLE,
            True,
            "tries again by itself (try 1 of 3)",
            id="Airflow's own retry",
        ),
        pytest.param(
            TaskLog(text="[2026-03-02T04:00:00Z] INFO - Worker startup parse complete"),
            now(),
            {"lost_heartbeat": NO_BEAT},
            RootCause.WORKER_LOST,
            True,
            "Airflow noted: Task did not emit heartbeat within time limit (300 seconds)",
            id="a log that broke off, and Airflow says why",
        ),
        pytest.param(
            failed("KeyError: 'email'"),
            now(duration=2),
            {"history": runs("success", 4, HOUR, duration=600)},
            RootCause.CODE_ERROR,
            False,
            "after 2 s of usually 600 s",
            id="an end before the work began",
        ),
    ],
)
def test_the_context_moves_the_answer(
    base: KnowledgeBase,
    log: TaskLog,
    task: TaskSnapshot,
    context: dict[str, Any],
    cause: RootCause,
    transient: bool,
    line: str,
) -> None:
    said = ask(base, log, task, **context)

    assert (said.root_cause, said.transient) == (cause, transient), said
    assert any(line in told for told in said.context), said.context


@pytest.mark.parametrize(
    ("error", "context"),
    [
        pytest.param(
            UNRESOLVED,
            {"history": runs("success", 4, HOUR), "dag_version_of_last_success": 3},
            id="it worked an hour ago",
        ),
        pytest.param(REFUSED, {"siblings": SIBLINGS}, id="others failed too"),
        pytest.param(REFUSED, {"history": MONDAYS}, id="it fails on Mondays"),
    ],
)
def test_the_context_makes_it_surer(base: KnowledgeBase, error: str, context: dict[str, Any]) -> None:
    alone, said = ask(base, failed(error)), ask(base, failed(error), **context)

    assert said.confidence >= alone.confidence
    assert said.context
    assert not alone.context
    assert said.context[-1] in said.summary


def test_what_airflow_refused_to_hear_of_a_try_it_had_ended_is_an_effect(base: KnowledgeBase) -> None:
    refusal = (
        "AirflowRuntimeError: API_SERVER_ERROR: {'status_code': 409, 'detail': {'detail': {'reason': "
        "'invalid_state', 'message': 'TI was not in the running state so it cannot be updated'}}}"
    )
    alone = ask(base, failed(refusal))
    noted = ask(base, failed(refusal), lost_heartbeat=NO_BEAT)

    assert (alone.root_cause, alone.transient) == (RootCause.PLATFORM_ERROR, False)
    assert (noted.root_cause, noted.transient) == (RootCause.WORKER_LOST, True)


def test_what_was_raised_comes_before_a_lost_heartbeat(base: KnowledgeBase) -> None:
    assert ask(base, failed("KeyError: 'email'"), lost_heartbeat=NO_BEAT).root_cause is RootCause.CODE_ERROR


def test_tries_that_failed_for_long_ask_for_a_longer_wait(base: KnowledgeBase) -> None:
    tries = (run("failed", timedelta(minutes=50)), run("failed", timedelta(minutes=25)))

    said = ask(base, failed(REFUSED), tries=tries)

    assert said.facts.wait == 900
    assert said.context == ("all 3 tries of 50 min failed: wait longer",)


def test_what_lasts_is_not_run_again_unchanged(base: KnowledgeBase) -> None:
    said = ask(base, failed(REFUSED), history=runs("failed", 5, timedelta(hours=4)))

    assert said.remediation is Remediation.UPDATE_CONFIGURATION


def test_failures_of_the_last_minutes_are_no_past(base: KnowledgeBase) -> None:
    said = ask(base, failed(REFUSED), history=runs("failed", 6, timedelta(minutes=10)))

    assert said.transient


def test_an_entrys_wait_is_among_the_facts(base: KnowledgeBase) -> None:
    assert ask(base, failed("AirflowSensorTimeout: Sensor has timed out")).facts.wait == 900


def shell(*said: str) -> TaskLog:
    lines = [f"[2026-03-02T04:00:00Z] INFO - {line}" for line in (*said, "Command exited with return code 1")]
    error = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."
    return TaskLog(text="\n".join([*lines, failed(error).text]))


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(TaskLog(text=""), RootCause.UNKNOWN, id="an empty log"),
        pytest.param(
            TaskLog(text="[2026-03-02T04:00:00Z] WARNING - Process exited abnormally exit_code=1"),
            RootCause.UNKNOWN,
            id="a silent exit",
        ),
        pytest.param(shell("started"), RootCause.EXTERNAL_JOB_FAILED, id="a silent program"),
        pytest.param(
            shell("widget 14: cannot frob"),
            RootCause.UNKNOWN,
            id="a program whose complaint is not understood",
        ),
        pytest.param(failed("ValueError: no"), RootCause.UNKNOWN, id="an exception that says nothing"),
        pytest.param(
            failed("NameError: name 'x' is not defined"),
            RootCause.CODE_ERROR,
            id="an error of the task's own",
        ),
    ],
)
def test_failures_on_the_same_host_name_no_cause_and_let_nothing_pass(
    base: KnowledgeBase, log: TaskLog, cause: RootCause
) -> None:
    beside = tuple(
        Sibling(task=make_task(task_id=f"t{n}"), ended=NOW - timedelta(seconds=n), hostname="vm")
        for n in range(8)
    )
    good = runs("success", 4, HOUR)
    said = ask(base, log, now(hostname="vm"), siblings=beside, history=good, dag_version_of_last_success=3)

    assert (said.root_cause, said.transient) == (cause, False), said
