"""Airflow 3's JSON as domain types, redacted on the way in; and what must never be written back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import JsonValue

from graph.domain import (
    AirflowHealth,
    Connection,
    DagInfo,
    ImportFailure,
    Pool,
    RunSnapshot,
    TaskInfo,
    TaskLog,
    TaskRef,
    TaskSnapshot,
    Variable,
)
from graph.errors import ActionRefused
from tools.json_text import json_of
from tools.log_text import render
from tools.redaction import redact, redact_json

Json = Mapping[str, Any]

MASK = "***"  # what Airflow puts in place of a secret
CONTRACTS = "airmedic_contract_"  # Variables that are data, edited as data
CONNECTION_FIELDS = frozenset({"host", "port", "schema", "login", "extra"})
CLEARS = ("post_clear_task_instances", "clear_dag_run")  # events of Airflow's log
NO_HEARTBEAT = "heartbeat timeout"  # another one
MANY = 200  # lines of a log whose length is not worth counting
TIMES = ("queued_when", "scheduled_when", "start_date", "end_date")


def moment(value: str | None) -> datetime | None:
    """A time of Airflow's, aware, in UTC."""
    return None if value is None else datetime.fromisoformat(value).astimezone(UTC)


def task_ref(found: Json) -> TaskRef:
    return TaskRef(
        dag_id=found["dag_id"],
        run_id=found["dag_run_id"],
        task_id=found["task_id"],
        map_index=found["map_index"],
    )


def task_snapshot(found: Json) -> TaskSnapshot:
    """`updated` is the newest time Airflow tells: the API filters by its real one and does not show it."""
    version = found.get("dag_version") or {}
    return TaskSnapshot(
        task=task_ref(found),
        state=found["state"] or "none",
        try_number=found["try_number"],
        max_tries=found["max_tries"],
        operator=found.get("operator") or "",
        pool=found["pool"],
        queue=found.get("queue") or "",
        hostname=found.get("hostname") or "",
        note=redact(found.get("note") or ""),
        start=moment(found["start_date"]),
        end=moment(found["end_date"]),
        updated=max((moment(found[key]) for key in TIMES if found.get(key)), default=None, key=_order),
        duration=found["duration"],
        dag_version=version.get("version_number"),
    )


def _order(when: datetime | None) -> datetime:
    return when or datetime.min.replace(tzinfo=UTC)


def oldest_first(found: Iterable[TaskSnapshot]) -> tuple[TaskSnapshot, ...]:
    """By the time each last changed."""
    return tuple(sorted(found, key=lambda one: _order(one.end or one.updated)))


def tries(found: Json) -> tuple[TaskSnapshot, ...]:
    """Oldest first; of one number, the one Airflow works on comes last."""
    every = [task_snapshot(one) for one in found["task_instances"]]
    return tuple(sorted(every, key=lambda one: (one.try_number, not one.final)))


def task_page(found: Json) -> tuple[tuple[TaskSnapshot, ...], str | None]:
    """One page of task instances and the cursor of the next."""
    page = tuple(task_snapshot(one) for one in found["task_instances"])
    return page, (found.get("next_cursor") or None) if page else None


def latest_version(found: Json) -> int | None:
    """The newest DAG version of a list that begins with it."""
    versions = found["dag_versions"]
    return int(versions[0]["version_number"]) if versions else None


def missing_runs(found: Json) -> tuple[str, ...]:
    """The logical dates a backfill would make."""
    return tuple(str(one["logical_date"]) for one in found["backfills"])


def listed(key: str, one: Callable[[Json], Any]) -> Callable[[Json], tuple[Any, ...]]:
    """A translator for a list answer."""
    return lambda found: tuple(one(item) for item in found[key])


def run_snapshot(found: Json) -> RunSnapshot:
    conf = redact_json(found.get("conf") or {})
    return RunSnapshot(
        dag_id=found["dag_id"],
        run_id=found["dag_run_id"],
        state=found["state"],
        run_type=found["run_type"],
        logical_date=moment(found["logical_date"]),
        start=moment(found["start_date"]),
        end=moment(found["end_date"]),
        conf=conf if isinstance(conf, dict) else {},
        note=redact(found.get("note") or ""),
    )


def dag_info(found: Json, latest_version: int | None) -> DagInfo:
    return DagInfo(
        dag_id=found["dag_id"],
        is_paused=found["is_paused"],
        tags=tuple(sorted(tag["name"] for tag in found["tags"])),
        owners=tuple(found["owners"]),
        fileloc=found.get("fileloc") or "",
        has_import_errors=bool(found["has_import_errors"]),
        is_stale=bool(found.get("is_stale")),
        latest_version=latest_version,
        next_run=moment(found.get("next_dagrun_run_after")),
        # The intervals of a partitioned schedule have no logical date by which they could be told apart.
        periodic=bool(found.get("timetable_periodic")) and not found.get("timetable_partitioned"),
    )


def task_info(found: Json) -> TaskInfo:
    operator = (found.get("class_ref") or {}).get("class_name")
    return TaskInfo(
        task_id=found["task_id"],
        downstream=tuple(sorted(found.get("downstream_task_ids") or ())),
        retries=int(found.get("retries") or 0),
        operator=operator or found.get("operator_name") or "",
        pool=found.get("pool") or "default_pool",
        trigger_rule=found.get("trigger_rule") or "all_success",
        mapped=bool(found.get("is_mapped")),
    )


def task_log(content: list[JsonValue], *, complete: bool) -> TaskLog:
    """Text and structure of one log, both redacted; strings and unknown shapes are kept as lines."""
    messages = [redact_json(message) for message in content if isinstance(message, dict)]
    return TaskLog(
        text=redact(render(content)),
        content=tuple(message for message in messages if isinstance(message, dict)),
        complete=complete,
    )


def size_of(content: list[JsonValue]) -> int:
    """About how many characters a log has; of a long one, that it is long."""
    if len(content) > MANY:
        return len(content) * MANY
    return sum(len(str(message)) for message in content)


def log_page(found: Json) -> tuple[list[JsonValue], str | None]:
    """One page of a log and the token of the next."""
    content = found["content"]
    return (content if isinstance(content, list) else [content]), found.get("continuation_token")


def without_sources(content: list[JsonValue]) -> list[JsonValue]:
    """A further page without the list of log sources, which Airflow repeats on each."""
    for position, message in enumerate(content):
        if not isinstance(message, dict) or message.get("timestamp"):
            return content[position:]
    return []


def variable(found: Json) -> Variable:
    """A contract's text as it is, any other redacted; `masked` when something is hidden either way."""
    key, value = found["key"], found["value"] or ""
    shown = value if key.startswith(CONTRACTS) else redact(value)
    return Variable(
        key=key,
        value=shown,
        description=found.get("description"),
        masked=MASK in value or shown != value,
    )


def connection(found: Json) -> Connection:
    """A host can hold a password too (a whole URL): hidden there, it counts as `extra_masked`."""
    extra, host = found.get("extra"), found.get("host")
    shown = None if extra is None else redact(extra)
    shown_host = None if host is None else redact(host)
    return Connection(
        conn_id=found["connection_id"],
        conn_type=found["conn_type"],
        host=shown_host,
        schema_name=found.get("schema"),
        login=found.get("login"),
        port=found.get("port"),
        extra=shown,
        description=found.get("description"),
        extra_masked=MASK in (extra or "") or shown != extra or shown_host != host,
    )


def pool(found: Json) -> Pool:
    return Pool(
        name=found["name"],
        slots=found["slots"],
        occupied=found["occupied_slots"],
        queued=found["queued_slots"],
        scheduled=found.get("scheduled_slots") or 0,
        description=found.get("description"),
        include_deferred=found["include_deferred"],
    )


def import_failure(found: Json) -> ImportFailure:
    return ImportFailure(
        filename=found["filename"], stacktrace=redact(found["stack_trace"]), seen=moment(found["timestamp"])
    )


def health(found: Json, version: str) -> AirflowHealth:
    def healthy(part: str) -> bool | None:
        status = (found.get(part) or {}).get("status")
        return None if status is None else bool(status == "healthy")

    return AirflowHealth(
        version=version,
        metadatabase=bool(healthy("metadatabase")),
        scheduler=healthy("scheduler"),
        triggerer=healthy("triggerer"),
        dag_processor=healthy("dag_processor"),
    )


def names_task(event: Json, task: TaskRef) -> bool:
    """Does this event of Airflow's log clear exactly this task instance (or its whole run)?"""
    try:
        asked = json_of(event.get("extra") or "{}")
    except ValueError:
        return False
    if not isinstance(asked, dict) or asked.get("dry_run") is True:
        return False
    chosen = asked.get("task_ids")
    if chosen is None:
        return True
    if not isinstance(chosen, list):
        return False
    return task.task_id in chosen or [task.task_id, task.map_index] in chosen


def refuse_masked(what: str, *texts: JsonValue) -> None:
    """A value that holds Airflow's mask is not the real one; writing it would destroy the secret."""
    if any(isinstance(text, str) and MASK in text for text in texts):
        raise ActionRefused(f"{what}: the value holds a masked secret ({MASK}) and is never written")


def refuse_other_fields(what: str, fields: Mapping[str, JsonValue]) -> None:
    """Only these fields of a Connection may be changed: never a password."""
    if wrong := sorted(set(fields) - CONNECTION_FIELDS):
        raise ActionRefused(f"{what}: {', '.join(wrong)} may not be set")
    if not fields:
        raise ActionRefused(f"{what}: nothing to change")
