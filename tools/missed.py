"""Runs that were due and were never made, in the shape of a failed task.

Which intervals are missing is asked of Airflow itself, by the dry run of a backfill: it knows every
timetable, and it leaves out intervals that have a run of any kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from graph.domain import (
    RUNNING_STATES,
    Action,
    Check,
    DagInfo,
    DataReport,
    Diagnosis,
    DomainType,
    EvidenceLine,
    FixPlan,
    Outcome,
    Remediation,
    RootCause,
    RuledOut,
    RunSnapshot,
    TaskRef,
    TaskSnapshot,
    Verification,
)
from tools.gateway import AirflowGateway
from tools.reports import read_report
from tools.requested import asked_for, is_request
from tools.verification import data_checks, usual_rows

SCHEDULE = "(schedule)"  # stands for the task: no task of Airflow's can be called that
PREFIX = "missed__"
MOST = 100  # intervals in one plan; of more a person says which are still wanted
SURE = 0.95  # Airflow's own word on what is missing; why nobody made it is what may be wrong
AUTOMATED = frozenset({"scheduled", "backfill"})


class Gap(DomainType):
    """What is missing of a DAG's runs, and what may be why."""

    ref: TaskRef
    dag: DagInfo
    missing: tuple[datetime, ...]  #: logical dates, oldest first
    scheduler: bool | None = True  #: as it reports
    last: RunSnapshot | None = None  #: the newest run that the schedule or a backfill made before the gap


def schedule_ref(dag_id: str, first: datetime) -> TaskRef:
    """The incident's subject: one gap is named by its first interval, however far it grows."""
    return TaskRef(dag_id=dag_id, run_id=f"{PREFIX}{first.isoformat()}", task_id=SCHEDULE)


def is_schedule(ref: TaskRef) -> bool:
    """Whether this stands for missed runs and not for a task instance."""
    return ref.task_id == SCHEDULE and ref.run_id.startswith(PREFIX)


def first_of(ref: TaskRef) -> datetime:
    """The first interval of the gap."""
    return datetime.fromisoformat(ref.run_id.removeprefix(PREFIX))


def missed_schedule(ref: TaskRef, *, paused: bool) -> TaskSnapshot:
    """The gap as a failed task instance."""
    return TaskSnapshot(task=ref, state="paused" if paused else "missed", operator="schedule")


async def missing_since(airflow: AirflowGateway, dag_id: str, since: datetime) -> tuple[datetime, ...]:
    """Logical dates of ended intervals that have no run."""
    found = await airflow.backfill(dag_id, since=since, until=None, dry_run=True)
    return tuple(sorted(datetime.fromisoformat(one) for one in found))


async def as_now(airflow: AirflowGateway, ref: TaskRef) -> TaskSnapshot:
    """The task instance as it is now; for missed runs, whether they are still missing."""
    if is_request(ref):
        return asked_for(ref, paused=(await airflow.dag(ref.dag_id)).is_paused)
    if not is_schedule(ref):
        return await airflow.task(ref)
    dag = await airflow.dag(ref.dag_id)
    if await missing_since(airflow, ref.dag_id, first_of(ref)):
        return missed_schedule(ref, paused=dag.is_paused)
    return TaskSnapshot(task=ref, state="made", operator="schedule")


async def look_at(airflow: AirflowGateway, ref: TaskRef) -> Gap:
    """The gap as it is now; nothing missing when somebody filled it."""
    dag, missing, runs, health = await asyncio.gather(
        airflow.dag(ref.dag_id),
        missing_since(airflow, ref.dag_id, first_of(ref)),
        airflow.recent_runs(ref.dag_id, limit=MOST),
        airflow.health(),
    )
    before = (one for one in runs if one.logical_date and one.logical_date < first_of(ref))
    last = next((one for one in before if one.run_type in AUTOMATED), None)
    return Gap(ref=ref, dag=dag, missing=missing, scheduler=health.scheduler, last=last)


# --- the diagnosis ----------------------------------------------------------------------------------------


def as_text(gap: Gap) -> str:
    """What Airflow says, one fact a line: the evidence that a diagnosis quotes."""
    scheduler = {True: "healthy", False: "not healthy", None: "not known"}[gap.scheduler]
    lines = [
        f"DAG {gap.dag.dag_id!r} is {'paused' if gap.dag.is_paused else 'not paused'}",
        f"scheduler: {scheduler}",
        f"DAG file: {'does not import' if gap.dag.has_import_errors else 'imports'}",
        f"last run made by the schedule: {gap.last.run_id if gap.last else 'none is known'}",
        *(f"no run for {one.isoformat()}" for one in gap.missing[:20]),
    ]
    return "\n".join(lines) + "\n"


def diagnose_gap(gap: Gap) -> Diagnosis:
    """Why nobody made the runs. Plain rules: there is no log to read."""
    count, first = len(gap.missing), first_of(gap.ref)
    what = f"{count} runs of {gap.dag.dag_id!r} that were due since {first:%Y-%m-%d %H:%M} UTC do not exist"
    cause, remediation, why = RootCause.MISSING_DATA, Remediation.RERUN_UPSTREAM, "it is not known why"
    if gap.scheduler is False:
        cause, remediation = RootCause.PLATFORM_ERROR, Remediation.REPAIR_PLATFORM
        why = "Airflow's scheduler reports no heartbeat"
    elif gap.dag.has_import_errors:
        cause, remediation = RootCause.CODE_ERROR, Remediation.CHANGE_CODE
        why = "the DAG's file does not import"
    elif gap.dag.is_paused:
        why = "the DAG is paused"
    lines = as_text(gap).splitlines()
    return Diagnosis(
        root_cause=cause,
        transient=False,
        confidence=SURE,
        remediation=remediation,
        evidence=tuple(EvidenceLine(line=n, text=text) for n, text in enumerate(lines[:8], start=1)),
        summary=f"{what}: {why}",
        ruled_out=_ruled_out(gap) if cause is RootCause.MISSING_DATA else (),
    )


def _ruled_out(gap: Gap) -> tuple[RuledOut, ...]:
    out = [RuledOut(root_cause=RootCause.CODE_ERROR, why="the DAG's file imports")]
    if gap.scheduler:
        out.append(RuledOut(root_cause=RootCause.PLATFORM_ERROR, why="the scheduler reports to be healthy"))
    return tuple(out)


# --- the plan ---------------------------------------------------------------------------------------------


def fill(gap: Gap) -> tuple[FixPlan | None, str]:
    """Make exactly the missing runs, then let the schedule go on; or None and why not.

    While the DAG is paused nothing else makes runs of it, so the gap is filled first: filled after, it would
    meet the scheduler at the same interval. It may grow until then, and is filled up to that moment.
    """
    dag_id, count = gap.dag.dag_id, len(gap.missing)
    if not count:
        return None, ""
    if count > MOST:
        return None, f"{count} intervals are missing, more than {MOST}: say which are still wanted"
    target: dict[str, object] = {
        "dag_id": dag_id,
        "since": gap.missing[0].isoformat(),
        "shown": [one.isoformat() for one in gap.missing],
        "until": None if gap.dag.is_paused else gap.missing[-1].isoformat(),
    }
    actions = [Action.model_validate({"name": "backfill", "target": target})]
    told = f"make the {count} missing runs of {dag_id!r} ({_from_to(gap.missing)})"
    if gap.dag.is_paused:
        actions.append(Action(name="unpause_dag", target={"dag_id": dag_id}))
        told += ", those that become due until you answer too, and unpause it"
    return FixPlan(remediation=Remediation.RERUN_UPSTREAM, actions=tuple(actions), summary=told), ""


def _from_to(dates: Sequence[datetime]) -> str:
    first, last = (f"{one:%Y-%m-%d %H:%M:%S}" for one in (dates[0], dates[-1]))
    return first if first == last else f"{first} to {last}"


# --- verification -----------------------------------------------------------------------------------------


class Filled(DomainType):
    """What became of the missing runs."""

    missing: tuple[datetime, ...] = ()  #: due before the fix and still without a run
    runs: tuple[RunSnapshot, ...] = ()  #: of the gap, as they are now
    checks: tuple[Check, ...] = ()  #: of their data

    @property
    def moving(self) -> bool:
        """Whether Airflow still works on any of them."""
        return any(one.state in RUNNING_STATES for one in self.runs)

    @property
    def failed(self) -> tuple[str, ...]:
        """Runs that ended otherwise than well: their tasks have incidents of their own."""
        return tuple(one.run_id for one in self.runs if one.state not in {*RUNNING_STATES, "success"})


async def look_back(airflow: AirflowGateway, ref: TaskRef, *, applied_at: datetime) -> Filled:
    """The gap's runs, and the data of each when all of them succeeded."""
    missing, runs = await asyncio.gather(
        missing_since(airflow, ref.dag_id, first_of(ref)), airflow.recent_runs(ref.dag_id, limit=MOST)
    )
    ours = [one for one in runs if one.logical_date and first_of(ref) <= one.logical_date <= applied_at]
    found = Filled(missing=tuple(one for one in missing if one <= applied_at), runs=tuple(reversed(ours)))
    if found.missing or found.moving or found.failed:
        return found
    checks = [check for one in found.runs for check in await _of_run(airflow, one)]
    return found.model_copy(update={"checks": tuple(checks)})


async def _of_run(airflow: AirflowGateway, run: RunSnapshot) -> list[Check]:
    tasks = [one for one in await airflow.run_tasks(run.dag_id, run.run_id) if one.state == "success"]
    reports: dict[str, DataReport] = {}
    for one in tasks:
        if (report := await read_report(airflow, one.task)) is not None:
            reports[one.task.task_id] = report
    if not reports:
        return []
    past = await usual_rows(airflow, tasks[0].task, reports)
    found = [
        check
        for name, report in sorted(reports.items())
        for check in data_checks(name, report, past.get(name, ()))
    ]
    return [one.model_copy(update={"name": f"{one.name} of {run.run_id}"}) for one in found]


def judge_gap(filled: Filled) -> Verification:
    """Healed when every missing run was made and succeeded, and their data agree."""
    done = sum(one.state == "success" for one in filled.runs)
    told = f"{done} of {len(filled.runs)} runs of the gap succeeded"
    if filled.missing:
        told += f"; {len(filled.missing)} still missing"
    settled = not (filled.missing or filled.moving or filled.failed)
    checks = (Check(name="intervals", ok=True if settled else None, detail=told), *filled.checks)
    if not settled or not filled.runs:
        return Verification(outcome=None, checks=checks)
    if any(one.ok is False for one in filled.checks):
        return Verification(outcome=Outcome.NOT_HEALED, checks=checks)
    if not any(one.ok for one in filled.checks):
        nothing = Check(name="data", ok=None, detail="the pipeline reports nothing about its data")
        return Verification(outcome=Outcome.RECOVERED_UNVERIFIED, checks=(*checks, nothing))
    return Verification(outcome=Outcome.HEALED, checks=checks)
