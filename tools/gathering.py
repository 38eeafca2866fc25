"""Collects what Airflow knows about a failure: its log once it is complete, and the context around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TypeVar

from graph.domain import ACTIVE_STATES, DagInfo, Note, Pool, TaskInfo, TaskLog, TaskRef, TaskSnapshot
from graph.errors import AirflowRefused
from tools.airflow_around import Around
from tools.diagnosis import Context, Sibling, UpstreamTask
from tools.gateway import TEARDOWN, AirflowGateway
from tools.reports import read_report

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

STATE_READS = 25
LOG_READS = 8
RUN_READS = 50
PAUSE = 0.2  # seconds between two reads
AROUND = timedelta(minutes=5)
_LAST_GROUP, _LAST = "::group::Post Execute", "::endgroup::"  # the end of an Airflow 3 task's log
_RAISED = "Traceback (most recent call last):"
_UNHEARD = "'reason': 'invalid_state'"  # to a task that reports after Airflow has ended it
_TAIL = 300  # characters: the group is empty but for what a task's own hooks print


async def settled_task(airflow: AirflowGateway, task: TaskRef, sleep: Sleep) -> TaskSnapshot:
    """The task instance once its state is committed, or as it is after some five seconds.

    The listener fires before Airflow commits the failed state.
    """
    snapshot = await airflow.task(task)
    for _ in range(STATE_READS):
        if snapshot.final or snapshot.state == "up_for_retry":
            break
        await sleep(PAUSE)
        snapshot = await airflow.task(task)
    return snapshot


async def settled_log(airflow: AirflowGateway, task: TaskRef, try_number: int, sleep: Sleep) -> TaskLog:
    """The log once it ends as a whole one does, or two reads in a row agree.

    Airflow marks the task failed before the log is whole.
    """
    log = await airflow.log(task, try_number)
    for _ in range(LOG_READS):
        if is_whole(log):
            break
        before = log
        await sleep(PAUSE)
        log = await airflow.log(task, try_number)
        if log.text and log.text == before.text:
            break
    return log


def is_whole(log: TaskLog) -> bool:
    """Whether the log ends as that of a task does that came to its own end."""
    return log.text.rstrip().endswith(_LAST) and _LAST_GROUP in log.text[-_TAIL:]


async def lost_heartbeat(airflow: AirflowGateway, task: TaskSnapshot, log: TaskLog) -> str:
    """What Airflow noted of a try that it ended; empty when it noted nothing, or may not be asked.

    A log that is whole, or holds what was raised, tells for itself and is not asked about, unless Airflow
    refused to hear of the try.
    """
    told = is_whole(log) or _RAISED in log.text
    if task.state != "failed" or (told and _UNHEARD not in log.text):
        return ""
    return await _or(airflow.lost_heartbeat(task.task, task.try_number), "")


async def settled_run(airflow: AirflowGateway, task: TaskRef, sleep: Sleep) -> None:
    """Return when the scheduler has ended the run or other tasks of it are at work; after ten seconds anyway.

    A clear that arrives in the instant in which the scheduler ends the run is lost: the run stays failed
    and the cleared task never starts (seen in Airflow 3.3.2). Tasks without a state do not count: the same
    pass of the scheduler marks those behind the failed one, and ends the run.
    """
    for _ in range(RUN_READS):
        run = await airflow.run(task.dag_id, task.run_id)
        if run.state in {"success", "failed"}:
            return
        tasks = await airflow.run_tasks(task.dag_id, task.run_id)
        if any(one.state in ACTIVE_STATES for one in tasks if one.task != task):
            return
        await sleep(PAUSE)


async def accepted_by_hand(airflow: AirflowGateway, task: TaskRef) -> str:
    """That somebody marked the run as success with what failed in it; empty when nobody did.

    A run may end well although a task of it failed: what comes last decides. With a last task that did not
    succeed Airflow never says success of its own accord.
    """
    run = await airflow.run(task.dag_id, task.run_id)
    if run.state != "success":
        return ""
    tasks, infos = await asyncio.gather(
        airflow.run_tasks(task.dag_id, task.run_id), airflow.dag_tasks(task.dag_id)
    )
    last = {info.task_id for info in infos if not info.downstream and info.trigger_rule != TEARDOWN}
    if any(one.state in {"failed", "upstream_failed"} for one in tasks if one.task.task_id in last):
        return "somebody marked the run as success: what failed in it is accepted"
    return ""


async def gather_context(
    airflow: AirflowGateway, task: TaskSnapshot, notes: tuple[Note, ...], *, around: Around | None = None
) -> Context:
    """Everything beyond the log. A part that Airflow refuses stays empty; an Airflow that is away raises.

    `around` tells what is not this task's own.
    """
    ref = task.task
    around = around or airflow
    moment = task.end or task.updated or task.start
    (tries, history, failures), (dag, infos, pool, report) = await asyncio.gather(
        asyncio.gather(
            # The first try has none before it.
            _or(airflow.tries(ref), ()) if task.try_number > 1 else _nothing(),
            _or(airflow.history(ref.dag_id, ref.task_id, limit=20), ()),
            _or(around.failures_since(moment - AROUND, limit=100), ()) if moment else _nothing(),
        ),
        asyncio.gather(
            _or(airflow.dag(ref.dag_id), DagInfo(dag_id=ref.dag_id)),
            _or(airflow.dag_tasks(ref.dag_id), ()),
            _or(around.pool(task.pool), Pool(name=task.pool, slots=-1)),
            _or(read_report(airflow, ref), None),
        ),
    )
    past = tuple(one for one in history if one.task != ref)
    good = [one.dag_version for one in past if one.state == "success" and one.dag_version is not None]
    return Context(
        tries=tuple(one for one in tries if one.try_number < task.try_number),
        history=past,
        siblings=tuple(
            Sibling(task=one.task, ended=one.end, hostname=one.hostname)
            for one in failures
            if one.task != ref
        ),
        upstream=await _upstream(airflow, ref, infos),
        report=report,
        dag=dag,
        pool=pool if pool.slots >= 0 else None,
        import_failure=await _import_failure(airflow, dag) if dag.has_import_errors else "",
        dag_version_of_last_success=good[0] if good else None,
        notes=notes,
    )


async def _nothing() -> tuple[TaskSnapshot, ...]:
    return ()


async def _or(call: Awaitable[T], missing: T) -> T:
    try:
        return await call
    except AirflowRefused:
        return missing


async def _upstream(
    airflow: AirflowGateway, ref: TaskRef, infos: tuple[TaskInfo, ...]
) -> tuple[UpstreamTask, ...]:
    names = [info.task_id for info in infos if ref.task_id in info.downstream]
    if not names:
        return ()
    tasks = await _or(airflow.run_tasks(ref.dag_id, ref.run_id), ())
    found = []
    for one in tasks:
        if one.task.task_id in names:
            report = await _or(read_report(airflow, one.task), None)
            returned = await _or(airflow.xcom(one.task, "return_value"), None)
            count = returned if isinstance(returned, int | float) else None
            found.append(
                UpstreamTask(task_id=one.task.task_id, state=one.state, report=report, returned=count)
            )
    return tuple(found)


async def _import_failure(airflow: AirflowGateway, dag: DagInfo) -> str:
    failures = await _or(airflow.import_failures(), ())
    name = dag.fileloc.rsplit("/", 1)[-1]
    return next((one.stacktrace for one in failures if one.filename.rsplit("/", 1)[-1] == name), "")
