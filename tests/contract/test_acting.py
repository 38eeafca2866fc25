"""What every Airflow gateway changes, and what it refuses."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4

import pytest
from pydantic import JsonValue

from graph.domain import Action, TaskRef
from graph.errors import ActionRefused, AirflowUnreachable, Conflict, InvalidRequest
from tests.contract.conftest import failed_chain, finished_run
from tests.contract.test_reading import chain
from tests.contract.worlds import POLL, World, unlocked
from tools.actions import ActionCatalogue, Found
from tools.gateway import TEARDOWN, AirflowGateway

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def states(gateway: AirflowGateway, dag_id: str, run_id: str) -> dict[str, tuple[str, int, int, str]]:
    return {
        one.task.task_id if one.task.map_index < 0 else str(one.task.map_index): (
            one.state,
            one.try_number,
            one.max_tries,
            one.note,
        )
        for one in await gateway.run_tasks(dag_id, run_id)
    }


async def test_a_dry_clear_tells_and_changes_nothing(gateway: AirflowGateway, failed_run: str) -> None:
    before = await states(gateway, "contract_chain", failed_run)

    one = await gateway.clear(
        "contract_chain", failed_run, [chain(failed_run)], dry_run=True, downstream=False
    )
    more = await gateway.clear("contract_chain", failed_run, [chain(failed_run)], dry_run=True)
    fine = await gateway.clear("contract_chain", failed_run, [chain(failed_run, "fetch")], dry_run=True)
    every = await gateway.clear(
        "contract_chain", failed_run, [chain(failed_run, "fetch")], dry_run=True, only_failed=False
    )

    assert set(one) == {chain(failed_run)}
    assert set(more) == {chain(failed_run), chain(failed_run, "load")}
    assert set(fine) == {chain(failed_run), chain(failed_run, "load")}
    assert {task.task_id for task in every} == {"fetch", "check", "load"}
    assert await states(gateway, "contract_chain", failed_run) == before


async def test_a_clear_takes_along_what_the_task_works_on_and_nothing_else(world: World) -> None:
    gateway, run_id = world.gateway, await finished_run(world, "contract_scope")
    clear = ActionCatalogue.default(plugins=()).get("clear_task")
    named: JsonValue = [{"task_id": "work", "map_index": -1}]
    action = Action(
        name="clear_task", target={"dag_id": "contract_scope", "run_id": run_id, "tasks": named}, args={}
    )
    before = await states(gateway, "contract_scope", run_id)

    preview = await clear.preview(gateway, action)
    image = await clear.capture(gateway, action)
    await clear.apply(gateway, action, before=image, key="airmedic:1.1.1")
    await world.finished("contract_scope", run_id)

    after = await states(gateway, "contract_scope", run_id)
    again = {name for name, now in after.items() if now[1] > before[name][1]}
    assert again == {one.task_id for one in preview.tasks} == {"make", "work", "drop"}
    assert after["work"][0] == "success"
    assert (await clear.confirm(gateway, action, before=image, key="airmedic:1.1.1")).found is Found.DONE
    rules = {one.task_id: one.trigger_rule for one in await gateway.dag_tasks("contract_scope")}
    assert rules == {"make": "all_success", "work": "all_success", "tell": "all_done", "drop": TEARDOWN}


async def test_a_clear_runs_task_and_what_it_held_back_again(world: World) -> None:
    gateway, run_id = world.gateway, await failed_chain(world)
    counted = await gateway.clear_count(chain(run_id))

    cleared = await gateway.clear("contract_chain", run_id, [chain(run_id)], dry_run=False, note="airmedic:1")
    run = await world.finished("contract_chain", run_id)

    assert set(cleared) == {chain(run_id), chain(run_id, "load")}
    assert run.state == "success"
    assert await states(gateway, "contract_chain", run_id) == {
        "fetch": ("success", 1, 0, ""),
        "check": ("success", 2, 1, "airmedic:1"),
        "load": ("success", 1, 0, "airmedic:1"),
    }
    tries = await gateway.tries(chain(run_id))
    assert [(one.state, one.try_number, one.max_tries) for one in tries] == [
        ("failed", 1, 0),
        ("success", 2, 1),
    ]
    assert (counted, await gateway.clear_count(chain(run_id))) == (0, 1)
    assert await gateway.clear_count(chain(run_id, "fetch")) == 0
    assert "refused the connection" in (await gateway.log(chain(run_id), 1)).text
    assert "refused the connection" not in (await gateway.log(chain(run_id), 2)).text
    with pytest.raises(Conflict):
        await gateway.clear("contract_chain", run_id, [chain(run_id)], dry_run=False)


async def test_a_clear_gives_a_task_all_its_retries_again(world: World) -> None:
    gateway, run_id = world.gateway, await finished_run(world, "contract_retries")
    task = TaskRef(dag_id="contract_retries", run_id=run_id, task_id="broken")
    before = await gateway.task(task)

    await gateway.clear("contract_retries", run_id, [task], dry_run=False)
    await world.finished("contract_retries", run_id)
    after = await gateway.task(task)

    assert (before.try_number, before.max_tries) == (2, 1)
    assert (after.try_number, after.max_tries) == (4, 3)
    tries = await gateway.tries(task)
    assert [(one.state, one.try_number) for one in tries] == [("failed", number) for number in (1, 2, 3, 4)]


async def test_a_clear_takes_exactly_the_map_index(world: World) -> None:
    gateway, run_id = world.gateway, await finished_run(world, "contract_mapped")
    part = TaskRef(dag_id="contract_mapped", run_id=run_id, task_id="part", map_index=1)

    cleared = await gateway.clear("contract_mapped", run_id, [part], dry_run=False, note="only one")
    await world.finished("contract_mapped", run_id)

    assert cleared == (part,)
    assert await states(gateway, "contract_mapped", run_id) == {
        "0": ("success", 1, 0, ""),
        "1": ("success", 2, 1, "only one"),
        "2": ("failed", 1, 0, ""),
        "3": ("success", 1, 0, ""),
    }
    assert await gateway.xcom(part, "return_value") == 1


async def test_a_running_task_is_not_cleared(world: World) -> None:
    gateway, run_id = world.gateway, f"contract__{uuid4().hex[:8]}"
    await gateway.trigger("contract_slow", run_id=run_id)
    task = TaskRef(dag_id="contract_slow", run_id=run_id, task_id="sleep")
    await world.running(task)

    for only_failed in (True, False):
        with pytest.raises(Conflict):
            await gateway.clear("contract_slow", run_id, [task], dry_run=False, only_failed=only_failed)
    log = await gateway.log(task, 1)
    running = await gateway.task(task)
    await gateway.mark_task(task, "failed", note="enough")
    ended = await gateway.task(task)

    assert (running.state, running.final, running.try_number) == ("running", False, 1)
    assert not log.complete
    assert (ended.state, ended.note) == ("failed", "enough")


async def test_a_task_marked_good_sets_free_what_it_held_back(world: World) -> None:
    gateway, run_id = world.gateway, await failed_chain(world)

    await gateway.mark_task(chain(run_id), "success", note="by hand")
    with pytest.raises(Conflict):
        await gateway.mark_task(chain(run_id), "success")
    run = await world.finished("contract_chain", run_id)

    assert run.state == "success"
    assert await states(gateway, "contract_chain", run_id) == {
        "fetch": ("success", 1, 0, ""),
        "check": ("success", 1, 0, "by hand"),
        "load": ("success", 1, 0, ""),
    }


async def test_a_task_is_marked_only_with_an_end_state(gateway: AirflowGateway, failed_run: str) -> None:
    with pytest.raises(InvalidRequest):
        await gateway.mark_task(chain(failed_run), "running")


async def test_a_note_is_replaced_and_bounded(gateway: AirflowGateway, failed_run: str) -> None:
    await gateway.set_task_note(chain(failed_run), "first")
    await gateway.set_task_note(chain(failed_run), "second")
    with pytest.raises(InvalidRequest):
        await gateway.set_task_note(chain(failed_run), "x" * 1001)
    found = await gateway.task(chain(failed_run))
    await gateway.set_task_note(chain(failed_run), "")

    assert (found.note, found.state) == ("second", "failed")


async def test_a_variable_is_made_replaced_and_removed(gateway: AirflowGateway) -> None:
    key = f"airmedic_contract_{uuid4().hex[:8]}"

    await gateway.set_variable(key, '{"b":1,  "a":[2]}', description="of the tests")
    made = await gateway.variable(key)
    await gateway.set_variable(key, '{"b":2}')
    replaced = await gateway.variable(key)
    await gateway.delete_variable(key)

    assert (made.value, made.description, made.masked) == ('{"b": 1, "a": [2]}', "of the tests", False)
    assert (replaced.value, replaced.description) == ('{"b": 2}', "of the tests")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param(
            "airmedic_contract_m", '{"columns": ["a"], "api_token": "abc123xyz"}', id="a key inside JSON"
        ),
        pytest.param("contract_password", "correct horse", id="the variable's own name"),
    ],
)
async def test_what_airflow_hides_is_marked_and_never_written(
    gateway: AirflowGateway, key: str, value: str
) -> None:
    await gateway.set_variable(key, value)
    found = await gateway.variable(key)
    with pytest.raises(ActionRefused):
        await gateway.set_variable(key, found.value if "***" in found.value else "***")
    await gateway.delete_variable(key)

    assert found.masked
    assert "abc123xyz" not in found.value
    assert "horse" not in found.value


async def test_plain_text_of_a_variable_is_kept(gateway: AirflowGateway) -> None:
    await gateway.set_variable("contract_plain", "not json")
    found = await gateway.variable("contract_plain")
    await gateway.delete_variable("contract_plain")

    assert (found.value, found.masked) == ("not json", False)


async def test_a_connection_keeps_what_is_not_named(world: World) -> None:
    gateway, conn_id = world.gateway, f"contract_{uuid4().hex[:8]}"
    await world.put_connection(
        {
            "connection_id": conn_id,
            "conn_type": "http",
            "host": "wrong.example",
            "schema": "https",
            "login": "reader",
            "port": 8080,
            "password": "pw-of-the-tests",
            "extra": json.dumps({"timeout": 5, "secret_token": "zzz-of-the-tests"}),
        }
    )

    await gateway.patch_connection(conn_id, {"host": "right.example", "port": None})
    found = await gateway.connection(conn_id)

    assert (found.conn_type, found.host, found.port) == ("http", "right.example", None)
    assert (found.schema_name, found.login) == ("https", "reader")
    assert found.extra_masked
    assert "of-the-tests" not in found.model_dump_json()
    for fields in ({"password": "x"}, {"conn_type": "ssh"}, {}, {"extra": found.extra or ""}):
        if fields.get("extra") is None or "***" in fields["extra"]:
            with pytest.raises(ActionRefused):
                await gateway.patch_connection(conn_id, dict(fields))


async def test_a_pool_is_resized(world: World) -> None:
    name = f"contract_{uuid4().hex[:8]}"
    await world.put_pool(name, 0)

    await world.gateway.set_pool_slots(name, 3)
    found = await world.gateway.pool(name)

    assert (found.slots, found.occupied, found.queued, found.include_deferred) == (3, 0, 0, False)


async def test_a_dag_is_paused_and_unpaused(gateway: AirflowGateway) -> None:
    await gateway.set_paused("contract_slow", paused=True)
    paused = await gateway.dag("contract_slow")
    await gateway.set_paused("contract_slow", paused=False)

    assert paused.is_paused
    assert not (await gateway.dag("contract_slow")).is_paused


async def test_asking_twice_for_a_run_starts_one(world: World) -> None:
    gateway, run_id = world.gateway, f"contract__{uuid4().hex[:8]}"

    started = await gateway.trigger("contract_daily", run_id=run_id, conf={"part": 1}, note="why")
    with pytest.raises(Conflict):
        await gateway.trigger("contract_daily", run_id=run_id)

    assert (started.run_id, started.state, started.conf, started.note) == (
        run_id,
        "queued",
        {"part": 1},
        "why",
    )


async def missing(gateway: AirflowGateway, since: datetime, until: datetime) -> list[datetime]:
    """The days whose runs of `contract_daily` do not exist."""
    dates = await unlocked(lambda: gateway.backfill("contract_daily", since=since, until=until, dry_run=True))
    return [datetime.fromisoformat(date) for date in dates]


async def backfilled(gateway: AirflowGateway, day: datetime) -> list[datetime]:
    """Make the run of one day, and what Airflow says it made.

    On SQLite Airflow answers a backfill with 503 while its scheduler writes, and the backfill that was cut
    short may count as running for a while. What is asked again is only what is still missing.
    """
    while await missing(gateway, day, day):
        try:
            dates = await gateway.backfill("contract_daily", since=day, until=day, dry_run=False)
        except (AirflowUnreachable, Conflict):
            await asyncio.sleep(POLL)
        else:
            return [datetime.fromisoformat(date) for date in dates]
    return [day]


async def test_a_backfill_makes_only_the_missing_runs(gateway: AirflowGateway) -> None:
    since, until = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 2, 3, tzinfo=UTC)
    dates = [since + timedelta(days=day) for day in range(3)]

    assert await missing(gateway, since, until) == dates
    assert await backfilled(gateway, since) == dates[:1]
    assert await missing(gateway, since, until) == dates[1:]


async def test_a_dag_without_intervals_is_not_backfilled(gateway: AirflowGateway) -> None:
    now = datetime(2026, 2, 1, tzinfo=UTC)
    with pytest.raises(InvalidRequest):
        await gateway.backfill("contract_chain", since=now, until=now, dry_run=True)


async def test_a_backfill_without_an_end_reaches_up_to_now(gateway: AirflowGateway) -> None:
    told = await unlocked(
        lambda: gateway.backfill(
            "contract_daily", since=datetime(2026, 5, 1, tzinfo=UTC), until=None, dry_run=True
        )
    )

    dates = [datetime.fromisoformat(date) for date in told]
    assert dates[0] == datetime(2026, 5, 1, tzinfo=UTC)
    assert len(dates) >= 31
    assert {later - earlier for earlier, later in pairwise(dates)} == {timedelta(days=1)}
