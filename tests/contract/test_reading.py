"""What every Airflow gateway answers when it is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import uuid4

import pytest

from graph.domain import TaskRef
from graph.errors import NotFound
from tests.contract.conftest import finished_run
from tests.contract.worlds import OPERATOR, TAGS, World
from tools.gateway import AirflowGateway

pytestmark = pytest.mark.asyncio(loop_scope="session")


def chain(run_id: str, task_id: str = "check") -> TaskRef:
    return TaskRef(dag_id="contract_chain", run_id=run_id, task_id=task_id)


async def test_health_names_version_and_components(gateway: AirflowGateway) -> None:
    health = await gateway.health()

    assert health.version.startswith("3.")
    assert (health.metadatabase, health.scheduler, health.dag_processor) == (True, True, True)
    assert health.triggerer is None


async def test_a_failed_task(gateway: AirflowGateway, failed_run: str) -> None:
    found = await gateway.task(chain(failed_run))

    assert (found.state, found.final, found.try_number, found.max_tries) == ("failed", True, 1, 0)
    assert (found.operator, found.pool, found.queue, found.dag_version) == (
        OPERATOR,
        "default_pool",
        "default",
        1,
    )
    assert found.start is not None
    assert found.end is not None
    assert found.end >= found.start


async def test_a_run_and_its_tasks(gateway: AirflowGateway, failed_run: str) -> None:
    run = await gateway.run("contract_chain", failed_run)
    tasks = await gateway.run_tasks("contract_chain", failed_run)

    assert (run.state, run.run_type, run.logical_date) == ("failed", "manual", None)
    assert {one.task.task_id: (one.state, one.try_number) for one in tasks} == {
        "fetch": ("success", 1),
        "check": ("failed", 1),
        "load": ("upstream_failed", 0),
    }


async def test_many_task_instances_at_once(gateway: AirflowGateway, failed_run: str, world: World) -> None:
    mapped = await finished_run(world, "contract_mapped")
    parts = [
        TaskRef(dag_id="contract_mapped", run_id=mapped, task_id="part", map_index=index) for index in (1, 3)
    ]
    gone = chain(failed_run, "no_such_task")

    found = {one.task: one.state for one in await gateway.tasks([chain(failed_run), *parts, gone])}

    assert found == {chain(failed_run): "failed", parts[0]: "failed", parts[1]: "success"}
    assert await gateway.tasks([]) == ()


async def test_a_task_that_failed_by_itself_lost_no_heartbeat(
    gateway: AirflowGateway, failed_run: str
) -> None:
    assert await gateway.lost_heartbeat(chain(failed_run), 1) == ""


async def test_runs_by_state_and_whether_a_dag_is_at_work(
    gateway: AirflowGateway, failed_run: str, world: World
) -> None:
    slow = TaskRef(dag_id="contract_slow", run_id=f"at-work-{failed_run}", task_id="sleep")
    await gateway.trigger("contract_slow", run_id=slow.run_id)
    await world.running(slow)

    everywhere = await gateway.runs_in("failed")
    here = await gateway.runs_in("failed", dag_id="contract_chain")
    running = await gateway.runs_in("running", dag_id="contract_slow")
    busy = [await gateway.at_work(dag_id) for dag_id in ("contract_slow", "contract_chain")]
    await gateway.mark_task(slow, "failed")

    assert failed_run in {one.run_id for one in everywhere} & {one.run_id for one in here}
    assert {one.dag_id for one in here} == {"contract_chain"}
    assert slow.run_id in {one.run_id for one in running}
    assert busy == [True, False]


async def test_tries_hold_the_present_one_last(gateway: AirflowGateway, failed_run: str) -> None:
    (only,) = await gateway.tries(chain(failed_run))

    assert (only.state, only.try_number) == ("failed", 1)


async def test_newest_first(gateway: AirflowGateway, failed_run: str) -> None:
    await gateway.trigger("contract_daily", run_id=f"first-{failed_run}")
    await gateway.trigger("contract_daily", run_id=f"second-{failed_run}")

    runs = await gateway.recent_runs("contract_daily", limit=2)
    history = await gateway.history("contract_daily", "note", limit=1)

    assert [run.run_id for run in runs] == [f"second-{failed_run}", f"first-{failed_run}"]
    assert [run.state for run in runs] == ["queued", "queued"]
    assert [one.task.run_id for one in history] == [f"second-{failed_run}"]


async def test_runs_that_failed_are_listed_from_their_end_on(
    gateway: AirflowGateway, failed_run: str
) -> None:
    run = await gateway.run("contract_chain", failed_run)
    assert run.end is not None

    before = await gateway.failed_runs_since(run.end - timedelta(seconds=1))
    after = await gateway.failed_runs_since(run.end + timedelta(seconds=1))

    assert failed_run in {one.run_id for one in before}
    assert failed_run not in {one.run_id for one in after}


async def test_the_log_of_a_failed_try_is_whole_and_redacted(
    gateway: AirflowGateway, failed_run: str
) -> None:
    log = await gateway.log(chain(failed_run), 1)

    assert "ConnectionError: source hr.example:8080 refused the connection" in log.text
    assert "hunter2secret" not in log.text
    assert "hunter2secret" not in str(log.content)
    assert log.complete


@pytest.mark.parametrize(
    ("task_id", "number"),
    [
        pytest.param("check", 7, id="a try that never was"),
        pytest.param("nobody", 1, id="a task that never was"),
    ],
)
async def test_no_log_is_an_empty_one(
    gateway: AirflowGateway, failed_run: str, task_id: str, number: int
) -> None:
    assert (await gateway.log(chain(failed_run, task_id), number)).text == ""


async def test_xcom(gateway: AirflowGateway, failed_run: str) -> None:
    fetch = chain(failed_run, "fetch")

    assert await gateway.xcom(fetch, "return_value") == [1, 2, 3]
    assert await gateway.xcom(fetch, "airmedic_report") == {"rows_in": 3, "rows_out": 3}
    assert await gateway.xcom(fetch, "nothing") is None
    assert await gateway.xcom(chain(failed_run), "return_value") is None


async def test_a_dag_and_its_tasks(gateway: AirflowGateway) -> None:
    dag = await gateway.dag("contract_chain")
    tasks = await gateway.dag_tasks("contract_chain")

    assert dag.tags == ("airmedic:rerun-safe", "contract")
    assert (dag.is_paused, dag.has_import_errors, dag.latest_version) == (False, False, 1)
    assert {one.task_id: one.downstream for one in tasks} == {
        "check": ("load",),
        "fetch": ("check",),
        "load": (),
    }
    assert "contract_chain" in await gateway.dag_source("contract_chain")


async def test_retries_of_a_task_are_told(gateway: AirflowGateway) -> None:
    (broken,) = await gateway.dag_tasks("contract_retries")

    assert (broken.retries, broken.pool, broken.operator) == (1, "default_pool", OPERATOR)


async def test_failures_since_a_moment(gateway: AirflowGateway, failed_run: str) -> None:
    end = (await gateway.task(chain(failed_run))).end
    assert end is not None

    found = await gateway.failures_since(end)
    later = await gateway.failures_since(end + timedelta(microseconds=1))

    assert chain(failed_run) in [one.task for one in found]
    assert {one.state for one in found} == {"failed"}
    assert chain(failed_run) not in [one.task for one in later]


async def test_updates_since_a_moment_hold_every_state(gateway: AirflowGateway, failed_run: str) -> None:
    start = (await gateway.task(chain(failed_run, "fetch"))).start
    assert start is not None

    found = await gateway.updates_since(start)

    mine = {one.task.task_id: one.state for one in found if one.task.run_id == failed_run}
    assert mine == {"fetch": "success", "check": "failed", "load": "upstream_failed"}
    assert len(await gateway.updates_since(start, limit=2)) == 2


async def test_a_file_that_does_not_import(world: World) -> None:
    await world.break_file("contract_broken.py")
    try:
        (failure,) = await world.gateway.import_failures()
    finally:
        await world.remove_file("contract_broken.py")

    assert failure.filename.endswith("contract_broken.py")
    assert "SyntaxError" in failure.stacktrace
    assert failure.seen is not None


@pytest.mark.parametrize(
    "ask",
    [
        pytest.param(lambda g, run: g.task(chain("none")), id="task of an unknown run"),
        pytest.param(lambda g, run: g.task(chain(run, "nobody")), id="unknown task"),
        pytest.param(lambda g, run: g.tries(chain(run, "nobody")), id="tries of an unknown task"),
        pytest.param(lambda g, run: g.run("contract_chain", "none"), id="unknown run"),
        pytest.param(lambda g, run: g.run_tasks("contract_chain", "none"), id="tasks of an unknown run"),
        pytest.param(lambda g, run: g.recent_runs("nobody"), id="runs of an unknown DAG"),
        pytest.param(lambda g, run: g.history("nobody", "check"), id="history of an unknown DAG"),
        pytest.param(lambda g, run: g.dag("nobody"), id="unknown DAG"),
        pytest.param(lambda g, run: g.dag_tasks("nobody"), id="tasks of an unknown DAG"),
        pytest.param(lambda g, run: g.dag_source("nobody"), id="source of an unknown DAG"),
        pytest.param(lambda g, run: g.variable("nobody"), id="unknown variable"),
        pytest.param(lambda g, run: g.connection("nobody"), id="unknown connection"),
        pytest.param(lambda g, run: g.pool("nobody"), id="unknown pool"),
        pytest.param(lambda g, run: g.set_paused("nobody", paused=True), id="pause an unknown DAG"),
        pytest.param(lambda g, run: g.set_pool_slots("nobody", 1), id="resize an unknown pool"),
        pytest.param(lambda g, run: g.delete_variable("nobody"), id="delete an unknown variable"),
        pytest.param(
            lambda g, run: g.patch_connection("nobody", {"host": "h"}), id="patch an unknown connection"
        ),
        pytest.param(lambda g, run: g.set_task_note(chain(run, "nobody"), "n"), id="note on an unknown task"),
        pytest.param(lambda g, run: g.mark_task(chain(run, "nobody"), "success"), id="mark an unknown task"),
        pytest.param(lambda g, run: g.trigger("nobody", run_id="r"), id="trigger an unknown DAG"),
        pytest.param(
            lambda g, run: g.clear("contract_chain", "none", [chain("none")], dry_run=True),
            id="clear in an unknown run",
        ),
    ],
)
async def test_what_does_not_exist_is_not_found(
    gateway: AirflowGateway, failed_run: str, ask: Callable[[AirflowGateway, str], Awaitable[object]]
) -> None:
    with pytest.raises(NotFound):
        await ask(gateway, failed_run)


async def test_dags_come_in_pages_by_id(gateway: AirflowGateway, failed_run: str) -> None:
    every = await gateway.dags()
    first, second = await gateway.dags(limit=1), await gateway.dags(offset=1, limit=1)

    assert [one.dag_id for one in (*first, *second)] == [one.dag_id for one in every[:2]]
    daily = next(one for one in every if one.dag_id == "contract_daily")
    chained = next(one for one in every if one.dag_id == "contract_chain")
    assert (daily.periodic, daily.is_paused) == (True, True)
    assert (chained.periodic, chained.is_paused, chained.next_run) == (False, False, None)
    assert set(chained.tags) == set(TAGS)


@pytest.mark.parametrize(
    ("dag_id", "task_id", "state"),
    [("contract_slow", "sleep", "running"), ("contract_deferred", "wait", "deferred")],
)
async def test_running_tasks_are_those_that_run(world: World, dag_id: str, task_id: str, state: str) -> None:
    run_id = f"running__{uuid4().hex[:8]}"
    slow = TaskRef(dag_id=dag_id, run_id=run_id, task_id=task_id)
    await world.gateway.trigger(dag_id, run_id=run_id)
    await world.running(slow, state)

    found = await world.gateway.running_tasks()
    mine = next(one for one in found if one.task == slow)
    await world.gateway.mark_task(slow, "failed")

    assert (mine.state, mine.end) == (state, None)
    assert mine.start is not None
    assert {one.state for one in found} <= {"running", "deferred"}


async def test_pools_tell_how_full_they_are(world: World) -> None:
    await world.put_pool(f"pool_{uuid4().hex[:6]}", 3)
    pools = {one.name: one for one in await world.gateway.pools()}

    assert list(pools) == sorted(pools)
    assert pools["default_pool"].slots == 128
    assert any(one.slots == 3 and (one.occupied, one.scheduled) == (0, 0) for one in pools.values())
