"""What a person should look at, per cause, with this failure's own names in it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from graph.domain import Diagnosis, RootCause
from tools.missed import Gap
from tools.situation import Situation

STEPS: Mapping[RootCause, tuple[str, ...]] = MappingProxyType(
    {
        RootCause.NETWORK_UNREACHABLE: (
            "check that {host} is up and can be reached from Airflow's workers",
            "compare {connection} with what the service's owner says",
        ),
        RootCause.AUTHENTICATION_FAILED: (
            "renew the credentials in {connection} (Airmedic never reads or writes passwords)",
            "then approve the retry, or clear {task}",
        ),
        RootCause.PERMISSION_DENIED: (
            "ask the owner of {host} to grant the identity in {connection} what {task} needs",
            "then clear {task}",
        ),
        RootCause.RATE_LIMITED: (
            "ask the owner of {host} for the quota, and see who else uses it",
            "lower how often or how much {task} asks",
        ),
        RootCause.UPSTREAM_UNAVAILABLE: ("look at the status of {host}; clear {task} when it is back",),
        RootCause.TLS_ERROR: (
            "look at the certificate of {host}: expiry, host name, issuer",
            "have it renewed, or trust its issuer on the workers; do not switch verification off",
            "then clear {task}",
        ),
        RootCause.TIMEOUT: (
            "compare the duration of {task} with its past runs: did the work grow, or the source slow down?",
            "raise the limit only when the work has grown",
        ),
        RootCause.OUT_OF_MEMORY: (
            "see how much memory {task} used, and how the size of its input changed",
            "give it smaller batches or more memory; the same again would fail again",
        ),
        RootCause.STORAGE_EXHAUSTED: (
            "free or add space (disk, inodes, file handles) where {task} writes",
            "look for half-written files of this run, then clear {task}",
        ),
        RootCause.WORKER_LOST: (
            "look at the worker {worker}: evicted, restarted, killed by the system?",
            "clear {task} when it is well",
        ),
        RootCause.CAPACITY_UNAVAILABLE: (
            "look at pool {pool} and at the executor: slots, quota, instances",
            "see which other tasks hold the capacity",
        ),
        RootCause.LOCK_CONTENTION: (
            "find who holds the lock: another run, a person's session, a maintenance job",
            "clear {task} when it is gone",
        ),
        RootCause.SCHEMA_DRIFT: (
            "ask the owner of the source whether the change is meant to stay",
            "adapt contract or code, then clear {task}",
        ),
        RootCause.TYPE_MISMATCH: (
            "look at some of the rows that do not fit, and ask the source's owner about them",
            "add a cast to the contract or mend the source, then clear {task}",
        ),
        RootCause.CONSTRAINT_VIOLATION: (
            "look at the rows that break the rule: how many, since when, from where?",
            "mend them at the source, or raise the contract's limit knowingly, then clear {task}",
        ),
        RootCause.MISSING_DATA: (
            "see whether the input of {task} was made: the producing DAG, the file, the partition",
            "have it made, then clear {task}",
        ),
        RootCause.MISSING_CONFIGURATION: (
            "look at the settings that {task} reads, {connection} among them, and who changed them last",
            "mend them, then clear {task}",
        ),
        RootCause.DEPENDENCY_ERROR: (
            "install or pin the missing software in the workers' image ({where})",
            "deploy, then clear {task}",
        ),
        RootCause.CODE_ERROR: (
            "mend the code at {where}",
            "deploy, then clear {task} with the newest version of the DAG",
        ),
        RootCause.QUERY_ERROR: ("mend the query at {where}", "deploy, then clear {task}"),
        RootCause.EXTERNAL_JOB_FAILED: (
            "read the job's own log where it ran; Airflow's does not say why it failed",
            "if it may run twice, clear {task} once; otherwise mend the job first",
        ),
        RootCause.PLATFORM_ERROR: (
            "look at Airflow's own health: scheduler, executor, metadata database ({where})",
            "clear {task} when it is well",
        ),
        RootCause.UNKNOWN: (
            "read the log of {task} and of the worker {worker}: the evidence does not name a cause",
            "nothing was tried, for a guess could do harm",
        ),
    }
)


def checklist(diagnosis: Diagnosis, situation: Situation) -> tuple[str, ...]:
    """Steps in order; the first says where the cause lies when that is another task, or what to create."""
    if situation.gap is not None:
        return _about_gap(situation.gap)
    words = _words(diagnosis, situation)
    steps = (step.format_map(words) for step in STEPS[diagnosis.root_cause])
    return (*_what_to_create(situation), *_earlier_tasks(situation), *steps)


def _about_gap(gap: Gap) -> tuple[str, ...]:
    name = repr(gap.dag.dag_id)
    if gap.scheduler is False:
        first = "bring Airflow's scheduler back: it gives no heartbeat"
    elif gap.dag.has_import_errors:
        first = f"mend the file of {name}: it does not import, so nothing is scheduled"
    else:
        first = f"see why {name} is {'paused' if gap.dag.is_paused else 'not scheduled'}, and who decided it"
    return first, f"then backfill those of its {len(gap.missing)} missing runs that are still wanted"


def _words(diagnosis: Diagnosis, situation: Situation) -> dict[str, str]:
    facts, place = diagnosis.facts, diagnosis.location
    inside = f" in {place.function}" if place is not None and place.function else ""
    return {
        "task": str(situation.task.task),
        "host": facts.host or "the remote host",
        "connection": f"Connection {facts.conn_id!r}" if facts.conn_id else "the Connection it uses",
        "where": f"{place.file}:{place.line}{inside}" if place is not None else "the place the log shows",
        "worker": situation.task.hostname or "that ran it",
        "pool": repr(facts.pool or situation.task.pool),
    }


def _what_to_create(situation: Situation) -> list[str]:
    steps = []
    if situation.absent_connection is not None:
        steps.append(
            f"create Connection {situation.absent_connection!r}: the DAG names it and Airflow has none"
        )
    if situation.absent_variable is not None:
        steps.append(f"create Variable {situation.absent_variable!r}: the DAG reads it and Airflow has none")
    return steps


def _earlier_tasks(situation: Situation) -> list[str]:
    told = "look at task {!r} first: it succeeded and produced nothing"
    return [told.format(name) for name in situation.made_nothing]
