"""Decides from Airflow and from the data, not from hope, whether a fix helped."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from statistics import median

from pydantic import Field

from graph.domain import Check, DataReport, DomainType, Outcome, TaskInfo, TaskRef, TaskSnapshot, Verification
from tools.gateway import TEARDOWN, AirflowGateway
from tools.reports import read_report

GOOD_RUNS = 5  # fewer say nothing about what is usual
BAND = 3.0  # median absolute deviations, as is usual for outliers
SLACK = 0.01  # of the median, when past runs never varied at all
HELD_BACK = frozenset({"failed", "upstream_failed"})
# These run because something failed, or tidy up: they take nothing from a task that is well now.
TAKES_NOTHING = frozenset({"one_failed", "all_failed", TEARDOWN})
SILENT = "data"  # the check that says that nothing is known of the data
AT_ONCE = 16  # reports that are read at the same time


class World(DomainType):
    """What verification looks at: the run's tasks, their reports, and the row counts of good runs before."""

    task: TaskSnapshot
    batch: tuple[TaskSnapshot, ...] = ()  #: the other map indexes that the fix ran again
    run_state: str = ""
    downstream: tuple[TaskSnapshot, ...] = ()
    before: tuple[TaskSnapshot, ...] = ()  #: downstream, and done before what was mended: it was not seen
    reports: dict[str, DataReport] = Field(default_factory=dict)
    past_rows: dict[str, tuple[int, ...]] = Field(default_factory=dict)


def downstream_of(task_id: str, tasks: Sequence[TaskInfo]) -> frozenset[str]:
    """Every task that comes after this one, however far."""
    children = {info.task_id: info.downstream for info in tasks}
    found: set[str] = set()
    todo = [task_id]
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return frozenset(found)


async def look(
    airflow: AirflowGateway, task: TaskRef, others: Sequence[TaskRef] = (), *, marked: str = ""
) -> World:
    """Read the run; the data only when the run's tasks have come to rest and succeeded.

    `marked` is the state in which the plan left the task, when it did not run it again.
    """
    tasks, infos = await asyncio.gather(
        airflow.run_tasks(task.dag_id, task.run_id), airflow.dag_tasks(task.dag_id)
    )
    found = next((one for one in tasks if one.task == task), None)
    now = found or await airflow.task(task)
    after = downstream_of(task.task_id, infos)
    downstream = tuple(one for one in tasks if one.task.task_id in after)
    batch = tuple(one for one in tasks if one.task in others and one.task != task)
    world = World(task=now, downstream=downstream, batch=batch)
    if now.state not in {"success", marked} or not all(one.final for one in (*downstream, *batch)):
        return world
    run = await airflow.run(task.dag_id, task.run_id)
    made = () if marked else (now,)  # what it left behind before it failed says nothing of what is there now
    reports = await _reports(airflow, (*made, *batch, *downstream))
    past = await usual_rows(airflow, task, reports)
    before = () if marked else _before((now, *batch), downstream, infos)
    seen = {"run_state": run.state, "before": before, "reports": reports, "past_rows": past}
    return world.model_copy(update=seen)


async def _reports(airflow: AirflowGateway, tasks: Sequence[TaskSnapshot]) -> dict[str, DataReport]:
    """What each of these that succeeded says of its data, every map index for itself."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def read(one: TaskSnapshot) -> tuple[str, DataReport | None]:
        async with turn:
            return named(one.task), await read_report(airflow, one.task)

    found = await asyncio.gather(*(read(one) for one in tasks if one.state == "success"))
    return {name: report for name, report in found if report is not None}


def named(task: TaskRef) -> str:
    """A task instance within its run."""
    return task.task_id if task.map_index < 0 else f"{task.task_id}[{task.map_index}]"


def _before(
    mended: Sequence[TaskSnapshot], downstream: Sequence[TaskSnapshot], infos: Sequence[TaskInfo]
) -> tuple[TaskSnapshot, ...]:
    """What ran downstream although this had failed, and was not run again: it worked without it."""
    takes = {info.task_id for info in infos if info.trigger_rule not in TAKES_NOTHING}
    mapped = {info.task_id for info in infos if info.mapped}
    ended = max((one.end for one in mended if one.end is not None), default=None)
    return tuple(
        one
        for one in downstream
        if one.state == "success"
        and one.task.task_id in takes
        and ended
        and one.start
        and one.start < ended
        and not _other_branch(one.task, [it.task for it in mended], mapped)
    )


def _other_branch(task: TaskRef, mended: Sequence[TaskRef], mapped: Collection[str]) -> bool:
    """Whether it is of a mapped task group, and of none of the indexes mended in it: they share nothing."""
    group = task.task_id.rpartition(".")[0]
    return bool(group) and all(
        task.map_index >= 0
        and one.map_index not in {-1, task.map_index}
        and one.task_id.rpartition(".")[0] == group
        and not {task.task_id, one.task_id} & set(mapped)
        for one in mended
    )


async def usual_rows(
    airflow: AirflowGateway, task: TaskRef, reports: Mapping[str, DataReport]
) -> dict[str, tuple[int, ...]]:
    """Rows of good runs before, of the tasks that do not declare how many there should be this time."""
    silent = [name for name, report in reports.items() if report.rows_expected is None and "[" not in name]
    return {name: await past_rows(airflow, task, name) for name in silent}


async def past_rows(airflow: AirflowGateway, task: TaskRef, task_id: str) -> tuple[int, ...]:
    """Rows accounted for by the last good runs of one task of this DAG, this run left out."""
    history = await airflow.history(task.dag_id, task_id, limit=2 * GOOD_RUNS)
    good = [one.task for one in history if one.state == "success" and one.task.run_id != task.run_id]
    reports = await asyncio.gather(*(read_report(airflow, one) for one in good))
    rows = (accounted(report) for report in reports if report is not None)
    return tuple(count for count in rows if count is not None)


def accounted(report: DataReport) -> int | None:
    """Rows that went out or were set aside on purpose."""
    if report.rows_out is None:
        return None
    return report.rows_out + (report.rows_quarantined or 0)


def judge(world: World, *, try_before: int, changed_settings: bool, marked: str = "") -> Verification:
    """The outcome, with every check that led to it; outcome None while the run is still moving."""
    task = world.task
    checks = [_marked_check(task, marked) if marked else _task_check(task, try_before)]
    if not task.final or (task.try_number <= try_before and not marked):
        return Verification(outcome=None, checks=tuple(checks))
    if task.state != (marked or "success"):
        return Verification(outcome=Outcome.NOT_HEALED, checks=tuple(checks))
    if not all(one.final for one in (*world.batch, *world.downstream)):
        return Verification(outcome=None, checks=tuple(checks))
    if failed := sum(one.state != "success" for one in world.batch):
        words = f"{failed} of {len(world.batch) + 1} map indexes did not succeed"
        checks.append(Check(name="batch", ok=False, detail=words))
        return Verification(outcome=Outcome.NOT_HEALED, checks=tuple(checks))
    checks.append(_downstream_check(world.downstream))
    data = [
        check
        for name, report in sorted(world.reports.items())
        for check in data_checks(name, report, world.past_rows.get(name, ()))
    ]
    stale = _stale_checks(world)
    checks += [*data, *stale]
    if not checks[1].ok:
        # What we changed may have broken the next task; a plain re-run cannot have.
        outcome = Outcome.NOT_HEALED if changed_settings else Outcome.RECOVERED_UNVERIFIED
    elif any(check.ok is False for check in data):
        outcome = Outcome.NOT_HEALED
    elif any(check.ok is False for check in stale):
        outcome = Outcome.ESCALATED  # the fix helped; what is left to do is not this task's
    elif stale:
        outcome = Outcome.RECOVERED_UNVERIFIED
    elif not any(check.ok for check in data):
        checks.append(Check(name=SILENT, ok=None, detail="the pipeline reports nothing about its data"))
        outcome = Outcome.RECOVERED_UNVERIFIED
    else:
        outcome = Outcome.HEALED
    return Verification(outcome=outcome, checks=tuple(checks))


def _task_check(task: TaskSnapshot, try_before: int) -> Check:
    fresh = task.try_number > try_before
    ok = None if not task.final or not fresh else task.state == "success"
    return Check(name="task", ok=ok, detail=f"{task.state} on try {task.try_number} (failed on {try_before})")


def _marked_check(task: TaskSnapshot, marked: str) -> Check:
    detail = f"{task.state}, left as {marked} on purpose: its part of the data is missing"
    return Check(name="task", ok=task.state == marked, detail=detail)


def _downstream_check(downstream: Sequence[TaskSnapshot]) -> Check:
    held = sorted(one.task.task_id for one in downstream if one.state in HELD_BACK)
    detail = f"held back: {', '.join(held)}" if held else f"{len(downstream)} tasks after it are done"
    return Check(name="downstream", ok=not held, detail=detail)


def _stale_checks(world: World) -> list[Check]:
    """Data that were made without the task that is well now are not right; of other work nobody knows."""
    checks = []
    for one in world.before:
        name = named(one.task)
        known = name in world.reports
        words = f"{name} ran before {world.task.task.task_id} succeeded, and was not run again"
        told = f"{words}: its data are from before" if known else words
        checks.append(Check(name=f"order of {name}", ok=False if known else None, detail=told))
    return checks


def data_checks(name: str, report: DataReport, usual: Sequence[int] = ()) -> list[Check]:
    """What one task's report says of its rows, its contract and what was set aside."""
    checks = []
    if report.satisfied is not None:
        words = "satisfied" if report.satisfied else f"{len(report.problems)} problems"
        checks.append(Check(name=f"contract of {name}", ok=report.satisfied, detail=words))
    if report.rows_quarantined and report.quarantine_limit is not None:
        within = report.rows_quarantined <= report.quarantine_limit
        words = f"{report.rows_quarantined} rows set aside, limit {report.quarantine_limit}"
        checks.append(Check(name=f"quarantine of {name}", ok=within, detail=words))
    rows = accounted(report)
    if rows is not None:
        checks.append(_rows_check(name, rows, report.rows_expected, usual))
    return checks


def _rows_check(name: str, rows: int, expected: int | None, usual: Sequence[int]) -> Check:
    if expected is not None:  # lost rows are lost, however usual their number is
        return Check(name=f"rows of {name}", ok=rows == expected, detail=f"{rows} rows, {expected} declared")
    if len(usual) >= GOOD_RUNS:
        centre = median(usual)
        spread = max(BAND * median(abs(one - centre) for one in usual), SLACK * centre)
        within = abs(rows - centre) <= spread
        detail = f"{rows} rows, usual {centre:g} ± {spread:g} ({len(usual)} good runs)"
        return Check(name=f"rows of {name}", ok=within, detail=detail)
    return Check(name=f"rows of {name}", ok=None, detail=f"{rows} rows, nothing to compare with")
