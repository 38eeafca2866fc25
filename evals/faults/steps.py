"""What faults do to the world: the steps from which `evals.faults.injections` puts them together."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from evals.faults.world import FEED, PIPELINE, PIPELINE_FILE, POOL, SOURCE, SOURCE_PATH, World
from server.demo.source import SourceFaults

BACK_AFTER = 20.0  # seconds a source stays away after the task has failed for good
BUSY_FOR = 15.0  # seconds of 503 after that
RETRY_AFTER = 20  # seconds the source asks for
LOCKED_FOR = 10.0  # seconds another writer holds the warehouse after that
KILL_DELAY = 1.0  # seconds; by then the first batch is written and not committed
KILL_POLL = 0.1  # seconds
LOSE_EVERY = 0.02  # seconds between two looks at a log that is to be lost
NORMAL_PAUSE = 1.0  # seconds after each of the load's batches on a slow day
LOAD_PAUSE = 3.0  # seconds after each of the load's batches while it is to be killed
TOO_SLOW = 11.0  # seconds per page: over the contract's limit at once
ALWAYS_SLOW = 4.0  # seconds per page: over the limit in sum, under twice the limit
USUAL_RUNS = 3
LOOKED_AT = 4.0  # seconds in which Airmedic has polled the end of a run
FEW = 0.02  # of the rows
MANY = 0.4
TWICE = 5  # rows; within the quarantine limit of 125
PLAY_TIMEOUT = 180.0  # seconds until Airflow's tries are used up

Step = Callable[[World], Coroutine[Any, Any, None]]
Play = Callable[[World, str], Coroutine[Any, Any, None]]

BROKEN_TRANSFORM = '''\
"""What the demo pipeline makes of a validated employee."""


def transform(rows, departments):
    """Spell the department out and name the currency."""
    return [with_currency(row, departments) for row in rows]


def with_currency(row, departments):
    label = row["salary"] + " EUR"
    return {**row, "department": departments[row["department"]], "salary": label}
'''
UNINSTALLED_TRANSFORM = '''\
"""What the demo pipeline makes of a validated employee."""


def transform(rows, departments):
    """Spell the department out with the ranking library."""
    import employees_ranking

    return employees_ranking.rank(rows, departments)
'''
SHELL_TRANSFORM = '''\
"""What the demo pipeline makes of a validated employee."""

import subprocess


def transform(rows, departments):
    """Leave it to the nightly export job."""
    subprocess.run(["sh", "-c", "exit 1"], check=True)
    return rows
'''
SILENT_TRANSFORM = '''\
"""What the demo pipeline makes of a validated employee."""

import os


def transform(rows, departments):
    """Say nothing and leave."""
    os._exit(1)
'''
UNSERIALISABLE_TRANSFORM = '''\
"""What the demo pipeline makes of a validated employee."""

from airflow.sdk import get_current_context


def transform(rows, departments):
    """Hand a set-like view on as XCom."""
    get_current_context()["ti"].xcom_push(key="departments", value=departments.keys())
    return rows
'''
FULL_DISK = '\nCREATE = "PRAGMA max_page_count = 2"\n'
WRONG_SQL = ("INSERT INTO employees (", "INSERT INTO employees VALUES (")


async def nothing(world: World) -> None:
    """No fault."""


async def fails_for_good(world: World, run_id: str, task_id: str, *, dag_id: str = PIPELINE) -> None:
    """Wait until Airflow's own tries are used up."""
    await world.airflow.wait_task(dag_id, run_id, task_id, {"failed"}, within=PLAY_TIMEOUT)


@dataclass(frozen=True)
class Injection:
    """One fault: `inject` before the run is triggered, `play` beside it, `lift` whenever the fault must go.

    `play` ends when the fault has run its course: a transient one lifts itself after Airflow's own tries are
    used up.
    """

    inject: Step
    lift: Step
    play: Play
    task_id: str | None  #: the task that fails, None when none should
    triggers: bool = True  #: False: there is no run to start, `play` does not look at its id
    dag_id: str = PIPELINE
    symptom: Play | None = None  #: how the fault shows without Airmedic; None: as `play` does
    before: Step | None = None  #: what happened before Airmedic came
    past: Step | None = None  #: what Airmedic has seen before the fault
    seen_before: bool = False  #: the same fault healed once already
    also: Step | None = None  #: more of the same, for which only the bench takes the time
    within: float = 240.0  #: seconds in which it must end


def lasting(inject: Step, lift: Step, task_id: str, **more: Any) -> Injection:
    """A fault that stays until somebody does something about it."""

    async def play(world: World, run_id: str) -> None:
        await fails_for_good(world, run_id, task_id)

    return Injection(inject, lift, play, task_id, **more)


def passing(inject: Step, lift: Step, task_id: str, *, after: float, **more: Any) -> Injection:
    """A fault that goes away by itself, this many seconds after the task has failed for good."""

    async def symptom(world: World, run_id: str) -> None:
        await fails_for_good(world, run_id, task_id)

    async def play(world: World, run_id: str) -> None:
        await symptom(world, run_id)
        await world.sleep(after)
        await lift(world)

    return Injection(inject, lift, play, task_id, symptom=symptom, **more)


# --- the source -------------------------------------------------------------------------------------------


async def close_source(world: World) -> None:
    """Connections are refused."""
    await world.source.stop()


async def open_source(world: World) -> None:
    """And accepted again."""
    await world.source.start()


def source_with(**faults: object) -> Step:
    """The source answers, wrongly."""
    wrong = SourceFaults.model_validate(faults)

    async def inject(world: World) -> None:
        world.source.state.faults = wrong

    return inject


async def mend_source(world: World) -> None:
    """The source is in good health."""
    world.source.state.faults = SourceFaults()


async def mend_before_retry(world: World, run_id: str) -> None:
    """The source is back before Airflow's own second try."""
    await world.wait_task(run_id, "fetch", "up_for_retry", within=PLAY_TIMEOUT)
    await open_source(world)


# --- Airflow's settings -----------------------------------------------------------------------------------


async def point_elsewhere(world: World) -> None:
    """The Connection names a host that does not resolve."""
    await world.airflow.put_connection(SOURCE, {"conn_type": "http", "host": "employees.invalid"})


async def delete_connection(world: World) -> None:
    """The Connection is gone."""
    await world.airflow.delete("connections", SOURCE)


async def restore_connection(world: World) -> None:
    """The Connection leads to the source again."""
    await world.restore_source_connection()


async def delete_variable(world: World) -> None:
    """The Variable that names the source's path is gone."""
    await world.airflow.delete("variables", SOURCE_PATH)


async def restore_settings(world: World) -> None:
    """Variables, Connections and pool as they were."""
    await world.restore_settings()


async def empty_pool(world: World) -> None:
    """The load's pool has no slots."""
    await world.airflow.put_pool(POOL, 0)


async def stuck_in_pool(world: World, run_id: str) -> None:
    """The load is due and gets no slot."""
    await world.wait_task(run_id, "load", "scheduled", within=PLAY_TIMEOUT)


# --- the upstream DAG -------------------------------------------------------------------------------------


async def lose_departments(world: World) -> None:
    """The file that the feed published is gone."""
    world.remove_departments()


async def no_feed_run(world: World) -> None:
    """The feed has never run."""
    await world.airflow.delete_runs(FEED)
    world.remove_departments()


async def restore_departments(world: World) -> None:
    """The feed's file is there."""
    await world.ensure_departments()


# --- code -------------------------------------------------------------------------------------------------


def code(name: str, text: str) -> Step:
    """A DAG file is replaced."""

    async def inject(world: World) -> None:
        world.break_code(name, text)

    return inject


async def break_dag_file(world: World) -> None:
    """The pipeline's file does not parse."""
    good = (world.layout.dags / PIPELINE_FILE).read_text()
    world.break_code(PIPELINE_FILE, good.replace("def load() -> int:", "def load( -> int:"))


async def import_error_known(world: World, run_id: str) -> None:
    """Airflow has noticed the file; a run under way is left to itself."""
    await world.wait_import_error(PIPELINE_FILE, within=PLAY_TIMEOUT)


async def break_sql(world: World) -> None:
    """The load's INSERT is no SQL."""
    good = (world.layout.dags / "employees_sql.py").read_text()
    world.break_code("employees_sql.py", good.replace(*WRONG_SQL))


async def fill_disk(world: World) -> None:
    """The warehouse's file may not grow: SQLite's own limit stands for the disk's."""
    world.make_warehouse()
    good = (world.layout.dags / "employees_sql.py").read_text()
    world.break_code("employees_sql.py", good + FULL_DISK)


async def restore_code(world: World) -> None:
    """The DAGs' copy as it was."""
    world.restore_code()


async def empty_log(world: World, run_id: str) -> None:
    """The transform fails, and whatever is written to its log is lost at once, for as long as this plays."""
    folder = world.logs / f"dag_id={PIPELINE}" / f"run_id={run_id}" / "task_id=transform"
    while True:
        for path in folder.glob("*.log"):
            if path.stat().st_size:
                os.truncate(path, 0)
        await asyncio.sleep(LOSE_EVERY)


async def transform_fails(world: World, run_id: str) -> None:
    """The transform has failed."""
    await fails_for_good(world, run_id, "transform")


# --- processes and locks ----------------------------------------------------------------------------------


async def slow_load(world: World) -> None:
    """The load takes long enough to be killed half-way."""
    world.set_controls(load_pause=LOAD_PAUSE)


async def normal_load(world: World) -> None:
    """And does not any more."""
    world.set_controls()


async def kill_each_try(world: World, run_id: str) -> None:
    """SIGKILL to the load's process in the middle of its transaction, on each try Airflow makes."""
    killing = asyncio.create_task(_kill_loads(world))
    try:
        await fails_for_good(world, run_id, "load")
    finally:
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing
    await normal_load(world)


async def _kill_loads(world: World) -> None:
    # A killed task leaves its pid file: each pid is killed once, and only while its file still names it.
    killed: set[int] = set()
    while True:
        pid = world.pid("load")
        if pid is not None and pid not in killed:
            await asyncio.sleep(KILL_DELAY)
            if world.pid("load") == pid:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                killed.add(pid)
        await asyncio.sleep(KILL_POLL)


async def lock_warehouse(world: World) -> None:
    """Another writer holds the warehouse."""
    world.lock_warehouse()


async def unlock_warehouse(world: World) -> None:
    """And lets go."""
    world.unlock_warehouse()


async def ends_well(world: World, run_id: str) -> None:
    """The run succeeds."""
    await world.airflow.wait_run(PIPELINE, run_id, within=PLAY_TIMEOUT)


async def healthy_run(world: World) -> None:
    """A run that succeeds, and time to look at it."""
    await ends_well(world, await world.trigger("healthy"))
    await world.sleep(LOOKED_AT)


async def usual_runs(world: World) -> None:
    """A few runs that succeed, and take as long as they always do."""
    for _ in range(USUAL_RUNS):
        await ends_well(world, await world.trigger("usual"))


async def slow_and_skipped(world: World) -> None:
    """A run that is slow and right, and one in which a person left a task out."""
    world.set_controls(load_pause=NORMAL_PAUSE)
    await ends_well(world, await world.trigger("slow"))
    world.set_controls()
    run_id = await world.trigger("skipped")
    await world.wait_task(run_id, "fetch", "running", "success", within=PLAY_TIMEOUT)
    await world.airflow.mark(PIPELINE, run_id, "load", "skipped")
    await ends_well(world, run_id)


async def restore_contract(world: World) -> None:
    """Source and contract as they were."""
    await mend_source(world)
    await world.restore_contract()


def wrong_data(**faults: object) -> Injection:
    """The source sends data that break the contract, until one of the two changes."""
    return lasting(source_with(**faults), restore_contract, "validate")
