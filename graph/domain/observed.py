"""What Airflow says: task instances, runs, DAGs, logs and settings as they were at one moment."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import Field, JsonValue

from graph.domain.domain_type import DomainType


class TaskRef(DomainType):
    """One task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1  #: -1 for a task that is not mapped

    def __str__(self) -> str:
        mapped = "" if self.map_index < 0 else f"[{self.map_index}]"
        return f"{self.dag_id}.{self.task_id}{mapped} @ {self.run_id}"


class IncidentKind(StrEnum):
    """What kind of trouble it is."""

    FAILURE = "failure"  #: a task instance failed
    STUCK = "stuck"  #: a task instance is due and does not start
    IMPORT_ERROR = (
        "import_error"  #: a DAG file does not import; `task_id` is the file, `run_id` names the error
    )
    MISSED_SCHEDULE = "missed_schedule"  #: runs that were due do not exist; `run_id` names the first of them
    STUCK_RUNNING = "stuck_running"  #: a task instance runs far longer than it ever did
    REQUEST = "request"  #: a person asked for something; `run_id` names the request, not a run


class FailureId(DomainType):
    """The identity of one failure: the same failure through two doors is one occurrence."""

    airflow: str  #: which Airflow installation
    task: TaskRef
    try_number: int
    kind: IncidentKind = IncidentKind.FAILURE


RUNNING_STATES = frozenset(
    {"scheduled", "queued", "running", "restarting", "up_for_retry", "up_for_reschedule", "deferred", "none"}
)

STARTED_STATES = frozenset({"running", "deferred"})  #: a try is under way, by a worker or by the triggerer
ACTIVE_STATES = RUNNING_STATES - {"none"}  #: the scheduler has done its part: somebody is at work


class TaskSnapshot(DomainType):
    """A task instance as Airflow described it at one moment."""

    task: TaskRef
    state: str  #: Airflow's state; "none" before it is scheduled
    try_number: int = 0
    max_tries: int = 0
    operator: str = ""
    pool: str = "default_pool"
    queue: str = ""
    hostname: str = ""
    note: str = ""
    start: datetime | None = None
    end: datetime | None = None
    updated: datetime | None = None
    duration: float | None = None  #: seconds
    dag_version: int | None = None

    @property
    def final(self) -> bool:
        """True when Airflow will not move it by itself."""
        return self.state not in RUNNING_STATES


class RunSnapshot(DomainType):
    """A DAG run as Airflow described it at one moment."""

    dag_id: str
    run_id: str
    state: str
    run_type: str = ""
    logical_date: datetime | None = None
    start: datetime | None = None
    end: datetime | None = None
    conf: dict[str, JsonValue] = Field(default_factory=dict)
    note: str = ""


class DagInfo(DomainType):
    """A DAG's own settings."""

    dag_id: str
    is_paused: bool = False
    tags: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    fileloc: str = ""
    has_import_errors: bool = False
    latest_version: int | None = None
    next_run: datetime | None = None
    periodic: bool = False  #: runs by the clock, so that intervals can be missing
    is_stale: bool = False  #: its file is gone, or has not loaded for a while: nothing of it runs


class TaskInfo(DomainType):
    """A task's place in its DAG."""

    task_id: str
    downstream: tuple[str, ...] = ()
    retries: int = 0
    operator: str = ""
    pool: str = "default_pool"
    trigger_rule: str = "all_success"
    mapped: bool = False  #: expanded by itself; a task of a mapped group is not, and has indexes too


class TaskLog(DomainType):
    """One try's log, redacted. `content` is Airflow 3's structured form, empty for a plain log."""

    text: str
    content: tuple[dict[str, JsonValue], ...] = ()
    complete: bool = True


class Variable(DomainType):
    """An Airflow Variable. A masked one holds `***` somewhere: it is never captured nor written back."""

    key: str
    value: str
    description: str | None = None
    masked: bool = False


class Connection(DomainType):
    """An Airflow Connection without its password; `extra_masked` when Airflow hid part of `extra`."""

    conn_id: str
    conn_type: str
    host: str | None = None
    schema_name: str | None = None
    login: str | None = None
    port: int | None = None
    extra: str | None = None
    description: str | None = None
    extra_masked: bool = False


class Pool(DomainType):
    """An Airflow pool."""

    name: str
    slots: int
    occupied: int = 0
    queued: int = 0
    scheduled: int = 0  #: task instances that wait for a slot
    description: str | None = None
    include_deferred: bool = False


class ImportFailure(DomainType):
    """A DAG file that Airflow could not import."""

    filename: str
    stacktrace: str
    seen: datetime | None = None


class AirflowHealth(DomainType):
    """What Airflow says of its own components; None means not deployed or not told."""

    version: str = ""
    metadatabase: bool = True
    scheduler: bool | None = None
    triggerer: bool | None = None
    dag_processor: bool | None = None
