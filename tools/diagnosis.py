"""What a diagnosis is made from, and the port of whoever makes it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from pydantic import JsonValue

from graph.domain import (
    DagInfo,
    DataReport,
    Diagnosis,
    DomainType,
    Note,
    Pool,
    TaskLog,
    TaskRef,
    TaskSnapshot,
)


class Sibling(DomainType):
    """Another task that failed in the same minutes."""

    task: TaskRef
    ended: datetime | None = None
    hostname: str = ""


class UpstreamTask(DomainType):
    """A direct upstream task of the failed one, in the same run, and what it reports of its data."""

    task_id: str
    state: str
    report: DataReport | None = None
    returned: JsonValue = None  #: its `return_value` when that is a number, else None


class Context(DomainType):
    """What Airflow knows beyond the log. Every part may be missing: a log alone is a case too."""

    tries: tuple[TaskSnapshot, ...] = ()  #: earlier tries of this task instance
    history: tuple[TaskSnapshot, ...] = ()  #: the same task in other runs, newest first
    siblings: tuple[Sibling, ...] = ()
    upstream: tuple[UpstreamTask, ...] = ()
    report: DataReport | None = None  #: what the failed task itself reported
    dag: DagInfo | None = None
    pool: Pool | None = None
    import_failure: str = ""  #: stack trace, when the DAG file does not import
    lost_heartbeat: str = ""  #: what Airflow noted when it ended the try for want of a heartbeat
    dag_version_of_last_success: int | None = None
    notes: tuple[Note, ...] = ()  #: words of people, trusted more than the log


class Case(DomainType):
    """One failure to diagnose."""

    log: TaskLog
    task: TaskSnapshot | None = None
    context: Context = Context()


class Diagnostician(Protocol):
    """Names the cause. It never raises for bad evidence: `unknown` is an answer."""

    async def diagnose(self, case: Case) -> Diagnosis: ...
