"""Small DAGs whose every try ends in a known way; `tests.contract` describes the same ones to the twin."""

# mypy: ignore-errors
from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger
from airflow.sdk import BaseOperator, dag, get_current_context, setup, task, teardown

TAGS = ["contract", "airmedic:rerun-safe"]
REPORT = {"rows_in": 3, "rows_out": 3}


def fail_first_try() -> None:
    if get_current_context()["ti"].try_number < 2:
        raise ConnectionError("source hr.example:8080 refused the connection, password=hunter2secret")


@dag(schedule=None, catchup=False, tags=TAGS)
def contract_chain():
    """One task fails its first try and succeeds its second; one waits behind it."""

    @task
    def fetch() -> list[int]:
        get_current_context()["ti"].xcom_push(key="airmedic_report", value=REPORT)
        return [1, 2, 3]

    @task
    def check(rows: list[int]) -> int:
        fail_first_try()
        return len(rows)

    @task
    def load(rows: int) -> int:
        return rows

    load(check(fetch()))


@dag(schedule=None, catchup=False, tags=TAGS)
def contract_retries():
    """Fails always, with one retry of Airflow's own."""

    @task(retries=1, retry_delay=timedelta(seconds=1))
    def broken() -> None:
        raise ValueError("could not convert string to float: '50,000'")

    broken()


@dag(schedule=None, catchup=False, tags=TAGS)
def contract_mapped():
    """Indexes 1 and 2 of four fail their first try."""

    @task
    def part(index: int) -> int:
        if index in (1, 2):
            fail_first_try()
        return index

    part.expand(index=[0, 1, 2, 3])


@dag(schedule=None, catchup=False, tags=TAGS)
def contract_slow():
    """Runs until somebody ends it."""

    @task
    def sleep() -> None:
        time.sleep(120)

    sleep()


class Wait(BaseOperator):
    """Hands itself to the triggerer, and waits there until somebody ends it."""

    def execute(self, context):
        self.defer(trigger=TimeDeltaTrigger(timedelta(hours=1)), method_name="execute_complete")

    def execute_complete(self, context, event=None) -> None:
        """Never reached."""


@dag(schedule=None, catchup=False, tags=TAGS)
def contract_deferred():
    """Is deferred until somebody ends it."""
    Wait(task_id="wait")


@dag(
    schedule="@daily",
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    is_paused_upon_creation=True,
    tags=TAGS,
)
def contract_daily():
    """Has intervals that can be missing; paused, so that nothing of it runs by itself."""

    @task
    def note() -> None:
        """Nothing to do."""

    note()


@dag(
    schedule="* * * * * */10",  # the sixth field counts seconds
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=True,
    tags=TAGS,
)
def contract_clock():
    """Runs by the clock once somebody unpauses it."""

    @task
    def note() -> None:
        get_current_context()["ti"].xcom_push(key="airmedic_report", value={**REPORT, "rows_expected": 3})

    note()


@dag(schedule=None, catchup=False, tags=TAGS)
def contract_pace():
    """Takes as long as it is told."""

    @task
    def work() -> None:
        time.sleep(get_current_context()["dag_run"].conf.get("seconds", 0))

    work()


@dag(schedule=None, catchup=False)
def contract_scope():
    """Its task fails its first try, between a setup and a teardown; one task runs whatever became of it."""

    @setup
    @task
    def make() -> None:
        """Nothing to do."""

    @teardown
    @task
    def drop() -> None:
        """Nothing to do."""

    @task
    def work() -> None:
        fail_first_try()

    @task(trigger_rule="all_done")
    def tell() -> None:
        """Nothing to do."""

    made, worked, told, dropped = make(), work(), tell(), drop()
    made >> worked >> [told, dropped]
    made >> dropped


contract_chain()
contract_scope()
contract_clock()
contract_pace()
contract_daily()
contract_retries()
contract_mapped()
contract_slow()
contract_deferred()
