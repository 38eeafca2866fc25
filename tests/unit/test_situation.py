"""What is read for a plan: only what the cause needs, and no name from a log unless the DAG says it too."""

from __future__ import annotations

import json

import pytest

from graph.domain import Connection, Facts, RootCause
from tests.factories import make_diagnosis, make_task
from tests.unit.fix_world import CONTRACT, TASK, failed_airflow
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try
from tools.situation import Moved, Situation, gather_situation, named_in, reconsider

GOOD = Connection(conn_id="orders_db", conn_type="http", host="db.example", port=80)


async def situation(cause: RootCause, airflow: MemoryAirflow | None = None, **facts: object) -> Situation:
    world = airflow or await failed_airflow(tags=(f"airmedic:contract={CONTRACT}", "airmedic:upstream=feed"))
    failure = await world.task(TASK)
    diagnosis = make_diagnosis(root_cause=cause, facts=Facts.model_validate(facts))
    return await gather_situation(world, failure, diagnosis, last_good={"orders_db": GOOD})


async def test_a_retry_needs_nothing_but_the_dag() -> None:
    airflow = await failed_airflow()
    airflow.calls.clear()

    await situation(RootCause.WORKER_LOST, airflow)

    assert airflow.calls == ["task", "dag"]


async def test_the_contract_is_the_one_that_the_tag_names() -> None:
    found = await situation(RootCause.SCHEMA_DRIFT)

    assert found.contract is not None
    assert found.contract.key == CONTRACT


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param((), id="no tag"),
        pytest.param(("airmedic:contract=orders_settings",), id="a Variable that is no contract"),
        pytest.param(("airmedic:contract=airmedic_contract_gone",), id="a contract that is not there"),
        pytest.param(
            (f"airmedic:contract={CONTRACT}", "airmedic:contract=airmedic_contract_b"), id="two contracts"
        ),
    ],
)
async def test_no_contract_when(tags: tuple[str, ...]) -> None:
    airflow = await failed_airflow(tags=tags)
    airflow.add_variable("orders_settings", "{}")

    assert (await situation(RootCause.SCHEMA_DRIFT, airflow)).contract is None


async def test_a_masked_contract_is_no_contract() -> None:
    airflow = await failed_airflow(tags=(f"airmedic:contract={CONTRACT}",))
    airflow.add_variable(CONTRACT, json.dumps({"columns": {}, "token": "x"}))

    assert (await situation(RootCause.SCHEMA_DRIFT, airflow)).contract is None


async def test_the_producer_is_the_one_that_the_tag_names() -> None:
    airflow = await failed_airflow(tags=("airmedic:upstream=feed",))
    airflow.start("feed", "feed__1")
    await airflow.settle()

    found = await situation(RootCause.MISSING_DATA, airflow)

    assert found.producer is not None
    assert [task.task_id for task in found.producer.tasks] == ["publish"]


async def test_a_connection_that_moved_since_the_last_good_run() -> None:
    found = await situation(RootCause.MISSING_CONFIGURATION, host="wrong.invalid")

    assert found.moved is not None
    assert (found.moved.now.host, found.moved.last_good.host) == ("wrong.invalid", "db.example")


async def test_a_variable_that_the_dag_names_and_airflow_lacks() -> None:
    found = await situation(RootCause.MISSING_CONFIGURATION, variable="orders_path")

    assert found.absent_variable == "orders_path"


async def test_a_variable_that_only_the_log_names_is_ignored() -> None:
    found = await situation(RootCause.MISSING_CONFIGURATION, variable="admin_role", conn_id="evil")

    assert found.absent_variable is None
    assert found.absent_connection is None


async def test_failures_in_a_row_are_counted_by_task() -> None:
    airflow = MemoryAirflow()
    airflow.add_dag("orders", [TaskSpec("load", (Try("failed"),))])
    for number in range(3):
        airflow.start("orders", f"manual__{number + 1}")
        await airflow.settle()

    failure = await airflow.task(make_task(run_id="manual__3"))
    diagnosis = make_diagnosis(root_cause=RootCause.RATE_LIMITED)

    assert (await gather_situation(airflow, failure, diagnosis)).failed_in_a_row == 3


async def test_only_the_same_task_of_the_same_run_joins_a_batch() -> None:
    airflow = MemoryAirflow()
    airflow.add_dag("orders", [TaskSpec("load", (Try("failed"),), map_indexes=(0, 1))])
    airflow.start("orders", "manual__1")
    await airflow.settle()
    first, second = make_task(map_index=0), make_task(map_index=1)
    strangers = [make_task(task_id="other"), make_task(run_id="manual__2", map_index=1)]

    found = await gather_situation(
        airflow, await airflow.task(second), make_diagnosis(), others=[first, *strangers]
    )

    assert found.batch == (first, second)


@pytest.mark.parametrize(
    ("name", "named"),
    [("orders_path", True), ("orders", False), ('x"); DROP', False), ("", False)],
)
def test_a_name_counts_only_as_a_string_of_its_own(name: str, named: bool) -> None:
    assert named_in('Variable.get("orders_path")', name) is named


@pytest.mark.parametrize(
    ("cause", "transient", "moved", "becomes"),
    [
        pytest.param(
            RootCause.NETWORK_UNREACHABLE,
            False,
            True,
            RootCause.MISSING_CONFIGURATION,
            id="an unknown host in a changed Connection is a wrong setting",
        ),
        pytest.param(
            RootCause.NETWORK_UNREACHABLE,
            True,
            True,
            RootCause.NETWORK_UNREACHABLE,
            id="a host that refuses for a while may be the right one",
        ),
        pytest.param(
            RootCause.NETWORK_UNREACHABLE,
            False,
            False,
            RootCause.NETWORK_UNREACHABLE,
            id="nothing changed",
        ),
        pytest.param(
            RootCause.CODE_ERROR, False, True, RootCause.CODE_ERROR, id="another cause stays what it is"
        ),
    ],
)
async def test_a_cause_is_reconsidered(
    cause: RootCause, transient: bool, moved: bool, becomes: RootCause
) -> None:
    found = await situation(RootCause.WORKER_LOST)
    changed = Moved(now=GOOD.model_copy(update={"host": "db.invalid"}), last_good=GOOD)
    found = found.model_copy(update={"moved": changed if moved else None})

    after = reconsider(make_diagnosis(root_cause=cause, transient=transient), found)

    assert after.root_cause is becomes
