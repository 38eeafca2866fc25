"""What planning needs to know of the world, gathered from Airflow as far as the cause asks for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence

from graph.domain import (
    Connection,
    DagInfo,
    DataReport,
    Diagnosis,
    DomainType,
    Pool,
    Remediation,
    RootCause,
    RuledOut,
    RunSnapshot,
    TaskRef,
    TaskSnapshot,
    Variable,
)
from graph.errors import AirflowRefused, NotFound
from tools import contracts
from tools.diagnosis import UpstreamTask
from tools.gateway import AirflowGateway
from tools.missed import Gap
from tools.reports import read_report

PRODUCER_TAG = "airmedic:upstream="  # names the DAG that makes this DAG's input
DATA = frozenset({RootCause.SCHEMA_DRIFT, RootCause.TYPE_MISMATCH, RootCause.CONSTRAINT_VIOLATION})
LIMITS = frozenset({RootCause.TIMEOUT, RootCause.OUT_OF_MEMORY})
INPUT = frozenset({RootCause.MISSING_DATA})
SETTINGS = frozenset({RootCause.MISSING_CONFIGURATION, RootCause.NETWORK_UNREACHABLE})
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.\-]{1,200}")


class Producer(DomainType):
    """The DAG that makes the input, and its newest run that has ended."""

    dag: DagInfo
    run: RunSnapshot | None = None
    tasks: tuple[TaskRef, ...] = ()


class Moved(DomainType):
    """A Connection that is not what it was when a run last succeeded."""

    now: Connection
    last_good: Connection


class Situation(DomainType):
    """One failure's surroundings. What was not asked for, or does not exist, is None or empty."""

    task: TaskSnapshot
    dag: DagInfo
    attempts: int = 0  #: plans applied to this incident already
    batch: tuple[TaskRef, ...] = ()  #: the failed map indexes to clear together; just this task otherwise
    contract: Variable | None = None
    report: DataReport | None = None
    upstream: tuple[UpstreamTask, ...] = ()
    producer: Producer | None = None
    pool: Pool | None = None
    moved: Moved | None = None
    absent_variable: str | None = None  #: named by the DAG's own source, and not there
    absent_connection: str | None = None
    gap: Gap | None = None  #: the runs that were never made, when the incident is about them
    failed_in_a_row: int = 0  #: runs in which this task failed, this one included

    @property
    def made_nothing(self) -> tuple[str, ...]:
        """Tasks before this one that succeeded with no rows, by their own account: the cause lies there."""
        empty = self.report is not None and any(one.kind == "empty" for one in self.report.problems)
        return tuple(
            one.task_id
            for one in self.upstream
            if empty or one.returned == 0 or (one.report is not None and one.report.rows_out == 0)
        )


async def gather_situation(
    airflow: AirflowGateway,
    failure: TaskSnapshot,
    diagnosis: Diagnosis,
    *,
    attempts: int = 0,
    others: Sequence[TaskRef] = (),
    last_good: Mapping[str, Connection] | None = None,
) -> Situation:
    """Read what this cause's plans are made from.

    `others` are the failed map indexes of the same run with the same error; `last_good` the Connections as
    they were when a run last succeeded.
    """
    ref, cause = failure.task, diagnosis.root_cause
    dag = await airflow.dag(ref.dag_id)
    found = Situation(task=failure, dag=dag, attempts=attempts, batch=_batch(ref, others))
    if cause in DATA | LIMITS | INPUT:
        contract, newest = await asyncio.gather(_contract(airflow, dag), read_report(airflow, ref))
        # The report that the diagnosis saw: a later try may have run with other settings.
        report = diagnosis.facts.report or newest
        found = found.model_copy(update={"contract": contract, "report": report})
    if cause in INPUT:
        upstream, producer = await asyncio.gather(_upstream(airflow, ref), _producer(airflow, dag))
        found = found.model_copy(update={"upstream": upstream, "producer": producer})
    if cause in SETTINGS:
        found = found.model_copy(update=await _settings(airflow, diagnosis, dag, last_good or {}))
    if cause is RootCause.CAPACITY_UNAVAILABLE:
        found = found.model_copy(update={"pool": await _pool(airflow, failure.pool)})
    if cause is RootCause.RATE_LIMITED:
        found = found.model_copy(update={"failed_in_a_row": await _failed_in_a_row(airflow, ref)})
    return found


def reconsider(diagnosis: Diagnosis, situation: Situation) -> Diagnosis:
    """The cause in the light of what the log cannot know: a host is not reached because its name is new."""
    moved = situation.moved
    if moved is None or diagnosis.transient or diagnosis.root_cause is not RootCause.NETWORK_UNREACHABLE:
        return diagnosis
    why = f"Connection {moved.now.conn_id!r} is not what it was when a run last succeeded"
    return diagnosis.model_copy(
        update={
            "root_cause": RootCause.MISSING_CONFIGURATION,
            "remediation": Remediation.UPDATE_CONFIGURATION,
            "summary": f"{why}. {diagnosis.summary}",
            "ruled_out": (*diagnosis.ruled_out, RuledOut(root_cause=diagnosis.root_cause, why=why)),
        }
    )


def _batch(ref: TaskRef, others: Sequence[TaskRef]) -> tuple[TaskRef, ...]:
    same = [
        one
        for one in others
        if (one.dag_id, one.run_id, one.task_id) == (ref.dag_id, ref.run_id, ref.task_id)
    ]
    return tuple(sorted({ref, *same}, key=lambda one: one.map_index))


async def _contract(airflow: AirflowGateway, dag: DagInfo) -> Variable | None:
    names = [tag.removeprefix(contracts.TAG) for tag in dag.tags if tag.startswith(contracts.TAG)]
    if len(names) != 1 or not names[0].startswith(contracts.PREFIX):
        return None
    try:
        found = await airflow.variable(names[0])
    except NotFound:
        return None
    return None if found.masked else found


async def _upstream(airflow: AirflowGateway, ref: TaskRef) -> tuple[UpstreamTask, ...]:
    infos = await airflow.dag_tasks(ref.dag_id)
    names = {info.task_id for info in infos if ref.task_id in info.downstream}
    rows = await airflow.run_tasks(ref.dag_id, ref.run_id) if names else ()
    found = []
    for row in rows:
        if row.task.task_id in names and row.task.map_index < 0:
            report = await read_report(airflow, row.task)
            returned = await airflow.xcom(row.task, "return_value")
            count = returned if isinstance(returned, int | float) else None
            found.append(
                UpstreamTask(task_id=row.task.task_id, state=row.state, report=report, returned=count)
            )
    return tuple(found)


async def _producer(airflow: AirflowGateway, dag: DagInfo) -> Producer | None:
    """Declared by a tag, never taken from a log."""
    names = [tag.removeprefix(PRODUCER_TAG) for tag in dag.tags if tag.startswith(PRODUCER_TAG)]
    if len(names) != 1:
        return None
    try:
        producer, runs = await asyncio.gather(airflow.dag(names[0]), airflow.recent_runs(names[0], limit=10))
    except AirflowRefused:
        return None
    run = next((one for one in runs if one.state in {"success", "failed"}), None)
    rows = await airflow.run_tasks(run.dag_id, run.run_id) if run is not None else ()
    return Producer(dag=producer, run=run, tasks=tuple(row.task for row in rows))


async def _settings(
    airflow: AirflowGateway, diagnosis: Diagnosis, dag: DagInfo, last_good: Mapping[str, Connection]
) -> dict[str, object]:
    """Names from a log count only when the DAG's own source says them too."""
    facts = diagnosis.facts
    if not (facts.variable or facts.conn_id or last_good):
        return {}
    try:
        source = await airflow.dag_source(dag.dag_id)
    except AirflowRefused:
        return {}
    found: dict[str, object] = {}
    if facts.variable and named_in(source, facts.variable) and not await _there(airflow, facts.variable):
        found["absent_variable"] = facts.variable
    ids = [name for name in dict.fromkeys([facts.conn_id, *last_good]) if name and named_in(source, name)]
    moved: list[Moved] = []
    for conn_id in ids:
        try:
            now = await airflow.connection(conn_id)
        except NotFound:
            found["absent_connection"] = conn_id
            continue
        good = last_good.get(conn_id)
        if good is not None and _where(good) != _where(now):
            moved.append(Moved(now=now, last_good=good))
    named = [one for one in moved if facts.host and one.now.host and facts.host in one.now.host]
    # Two that moved, and no evidence which of them it is: a person looks.
    chosen = named or moved
    return {**found, **({"moved": chosen[0]} if len(chosen) == 1 else {})}


def named_in(source: str, name: str) -> bool:
    """Whether a DAG's source holds this name as a string of its own."""
    return bool(PLAIN_NAME.fullmatch(name)) and (f'"{name}"' in source or f"'{name}'" in source)


def _where(one: Connection) -> tuple[str | int | None, ...]:
    return one.host, one.port, one.schema_name, one.login


async def _there(airflow: AirflowGateway, key: str) -> bool:
    try:
        await airflow.variable(key)
    except NotFound:
        return False
    return True


async def _pool(airflow: AirflowGateway, name: str) -> Pool | None:
    try:
        return await airflow.pool(name)
    except NotFound:
        return None


async def _failed_in_a_row(airflow: AirflowGateway, ref: TaskRef) -> int:
    history = await airflow.history(ref.dag_id, ref.task_id, limit=10)
    count = 1
    for one in history:
        if one.task.run_id == ref.run_id:
            continue
        if one.state != "failed":
            break
        count += 1
    return count
