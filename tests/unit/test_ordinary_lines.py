"""Ordinary lines do not take the answer, and a line that only resembles a harmless one does not lose it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from graph.domain import RootCause, TaskLog
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase
from tools.redaction import redact

STAMP = "[2026-03-02T04:10:04.000000Z]"
SAID = 0.5  #: from here on an answer is given


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def raises(line: str, level: str = "INFO") -> str:
    """The line, more work, then an exception that says nothing."""
    return "\n".join(
        [
            f"{STAMP} INFO - DAG bundles loaded: dags-folder",
            f"{STAMP} {level} - {line}",
            f"{STAMP} INFO - processing part 3",
            f"{STAMP} ERROR - Task failed with exception",
            "Traceback (most recent call last):",
            '  File "/opt/airflow/dags/etl.py", line 33, in run',
            '    raise RuntimeError("part 3 failed")',
            "RuntimeError: part 3 failed",
        ]
    )


def exits(line: str, level: str = "INFO", *after: str) -> str:
    """A program prints the line and ends with 1."""
    said = ["INFO - Output:", "INFO - step 1 begins, 1200 rows read", f"{level} - {line}", *after]
    return "\n".join(
        [
            *(f"{STAMP} {one}" for one in said),
            f"{STAMP} INFO - Command exited with return code 1",
            f"{STAMP} ERROR - Task failed with exception",
            "Traceback (most recent call last):",
            '  File "/x/site-packages/airflow/providers/standard/operators/bash.py", line 233, in execute',
            "AirflowException: Bash command failed. The command returned a non-zero exit code 1.",
        ]
    )


def goes_on(line: str, level: str = "INFO") -> str:
    """A program prints the line, works on and ends with 1."""
    return exits(line, level, "INFO - step 2 begins", "INFO - step 2: writing part 7")


ORDINARY = {
    RootCause.RATE_LIMITED: ["client configured: max 10 requests per second"],
    RootCause.LOCK_CONTENTION: [
        "pull request 12 was opened by renovate",
        "session is held by airflow",
        "no merge conflicts found in 3 branches",
    ],
    RootCause.CAPACITY_UNAVAILABLE: ["Engine v1 is starting", "Warehouse COMPUTE_WH is starting"],
    RootCause.CONSTRAINT_VIOLATION: [
        "SELECT sum(amount) FROM orders WHERE status <> 'void'",
        "Running statement: SELECT sum(amount) FROM orders WHERE status <> 'void', parameters: None",
        "drift score 0.02, threshold 0.2: ok",
        "z-score limit 3.0, 0 rows outside",
        "hash a1b2, manifest says a1b2",
        "time window 5 min, overlap 1 min",
        "solver tolerance = 0.001",
        "1200 rows were loaded before the checkpoint",
        "batch 17 was processed earlier today",
        "0 doublons trouvés",
        "run.sh: line 268: nothing to archive",
    ],
    RootCause.PERMISSION_DENIED: [
        "checkpointing is not enabled for this query",
        "older clients may not use this endpoint",
        "XCom push is not enabled for task load",
    ],
    RootCause.STORAGE_EXHAUSTED: ["Disk /data has 50 GB free, 10 GB required", "0 bytes left in buffer"],
    RootCause.MISSING_DATA: [
        "expected 10 files, found 10",
        "inbox is empty, nothing to archive",
        "reading only 3 of 24 partitions found by pruning",
        "Lag of partition 3 is 2 hours behind, limit 4 hours",
    ],
    RootCause.PLATFORM_ERROR: ["TaskInstance is not in a failed state, leaving it"],
    RootCause.TYPE_MISMATCH: ["Number of corrupt block replicas: 0"],
    RootCause.SCHEMA_DRIFT: [
        "row 5 has 12 fields, expected 12",
        "previously was a list of 3",
        "No breaking schema changes found in catalog",
    ],
    RootCause.AUTHENTICATION_FAILED: ["user svc_old is disabled, left out of the sync"],
    RootCause.MISSING_CONFIGURATION: ["cluster profile gold is not defined in overrides.yaml"],
    RootCause.UPSTREAM_UNAVAILABLE: ["wartungsfenster bis 06:00 beachtet"],
    RootCause.DEPENDENCY_ERROR: ["gpu driver 535 found, need >=470: ok"],
    RootCause.TIMEOUT: ["stopped after 30 min (max 60 min allowed)"],
}


@pytest.mark.parametrize("end", [raises, exits, goes_on])
@pytest.mark.parametrize(
    ("cause", "line"),
    [pytest.param(cause, line, id=line) for cause, lines in ORDINARY.items() for line in lines],
)
def test_an_ordinary_line_names_no_cause(
    base: KnowledgeBase, end: Callable[..., str], cause: RootCause, line: str
) -> None:
    found = base.diagnose(Case(log=TaskLog(text=redact(end(line)))))
    assert found.root_cause is not cause or found.confidence < SAID


COMPLAINTS = {
    "HTTP 429 Too Many Requests: wait 5 seconds before retrying": RootCause.RATE_LIMITED,
    "url=https://api.example.com/v1/orders status_code=429": RootCause.RATE_LIMITED,
    "disk /data is 95% full, refusing to write": RootCause.STORAGE_EXHAUSTED,
    "lock wait 5 s exceeded": RootCause.LOCK_CONTENTION,
    "canceling statement: lock wait 5 s exceeded": RootCause.LOCK_CONTENTION,
    "exit_code=137 oom_killed=true": RootCause.OUT_OF_MEMORY,
    "reason_code=AccessDenied, bucket=orders-prod": RootCause.PERMISSION_DENIED,
    "Failed to delete from staging.orders: permission denied for schema staging": RootCause.PERMISSION_DENIED,
    "could not delete rows from temperature_readings: permission denied for table temperature_readings": (
        RootCause.PERMISSION_DENIED
    ),
    "close failed: s3 AccessDenied when calling CompleteMultipartUpload": RootCause.PERMISSION_DENIED,
    "connection was already closed: FATAL terminating connection due to administrator command": (
        RootCause.UPSTREAM_UNAVAILABLE
    ),
    "slack returned invalid_auth": RootCause.AUTHENTICATION_FAILED,
    "failed to publish event to kafka topic orders: TopicAuthorizationException": RootCause.PERMISSION_DENIED,
    "failed to write metrics to s3://lake/metrics: AccessDenied": RootCause.PERMISSION_DENIED,
    "usage endpoint https://api.vendor.com answered 503 Service Unavailable, failed": (
        RootCause.UPSTREAM_UNAVAILABLE
    ),
    "deployment verification is disabled for expired certificate; x509: certificate has expired": (
        RootCause.TLS_ERROR
    ),
    "leader changed from broker 2 to 3: NotLeaderForPartitionError": RootCause.UPSTREAM_UNAVAILABLE,
}


@pytest.mark.parametrize("end", [raises, exits, goes_on])
@pytest.mark.parametrize(("line", "cause"), COMPLAINTS.items(), ids=list(COMPLAINTS))
def test_a_complaint_that_resembles_a_harmless_line_is_heard_when_nothing_else_says_why(
    base: KnowledgeBase, end: Callable[..., str], line: str, cause: RootCause
) -> None:
    found = base.diagnose(Case(log=TaskLog(text=redact(end(line, "ERROR")))))
    assert found.root_cause is cause
    assert found.confidence >= SAID


def test_a_harmless_line_stays_unheard_beside_another_that_names_the_cause(base: KnowledgeBase) -> None:
    log = exits(
        "close failed: s3 AccessDenied when calling CompleteMultipartUpload",
        "ERROR",
        "ERROR - OSError: [Errno 28] No space left on device: '/data/out'",
    )
    assert base.diagnose(Case(log=TaskLog(text=log))).root_cause is RootCause.STORAGE_EXHAUSTED


def test_a_line_that_a_program_prints_in_every_run_stays_unheard(base: KnowledgeBase) -> None:
    line = "dso_loader.cc:64] Could not load dynamic library 'libcudart.so.11.0'; dlerror: libcudart.so.11.0"
    found = base.diagnose(Case(log=TaskLog(text=raises(line, "WARNING"))))
    assert found.root_cause is RootCause.UNKNOWN


def test_plain_words_name_the_cause_where_they_are_a_complaint(base: KnowledgeBase) -> None:
    line = "delivery 4411 has been imported before (2026-09-11), refusing"
    assert base.diagnose(Case(log=TaskLog(text=exits(line)))).root_cause is RootCause.CONSTRAINT_VIOLATION
    assert base.diagnose(Case(log=TaskLog(text=goes_on(line)))).root_cause is not (
        RootCause.CONSTRAINT_VIOLATION
    )
    wrong = base.diagnose(Case(log=TaskLog(text=goes_on(line, "ERROR"))))
    assert wrong.root_cause is RootCause.CONSTRAINT_VIOLATION
