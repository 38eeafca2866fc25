"""Reason before effect, doubt where the end stays unread, and what was got over is no evidence."""

from __future__ import annotations

import pytest

from graph.domain import RootCause, TaskLog
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"
LIBRARY = "/opt/venv/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def failed(error: str, *before: str, file: str = "/opt/airflow/dags/orders.py") -> str:
    frame = f'  File "{file}", line 12, in load'
    head = [f"{STAMP} ERROR - Task failed with exception", "Traceback (most recent call last):", frame]
    return "\n".join([*(f"{STAMP} {line}" for line in before), *head, error])


def child(*lines: str) -> str:
    said = [f"{STAMP} INFO - {line}" for line in ("Output:", *lines, "Command exited with return code 1")]
    wrapper = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."
    return "\n".join([*said, failed(wrapper, file=f"{LIBRARY}/airflow/bash.py")])


UNREAD = "acme.core.StageFault: merge step saw 3 heads where 1 was planned"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            failed("RuntimeError: watermark not saved", "INFO - etcdserver: too many requests"),
            RootCause.RATE_LIMITED,
            id="code that gives up said why just before, even at INFO",
        ),
        pytest.param(
            failed(
                "RuntimeError: image backend unavailable",
                "ERROR - loader: libvips.so.99: cannot open shared object file: No such file or directory",
            ),
            RootCause.DEPENDENCY_ERROR,
            id="an error line just before outweighs the summary of it",
        ),
        pytest.param(
            child(
                "warn items service attempt 2/3: 502 Bad Gateway",
                "warn items service attempt 3/3: 502 Bad Gateway",
                "scoring items",
                "TypeError: Cannot read properties of undefined (reading 'map')",
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="the last attempt of all was not got over",
        ),
        pytest.param(
            failed(
                "ApiException: (500) Reason: Internal Server Error "
                '{"code": "internal error", "message": "write wal/7: no space left on device"}'
            ),
            RootCause.STORAGE_EXHAUSTED,
            id="what an answer carries outweighs its status",
        ),
        pytest.param(
            child(
                "error: timed out waiting for pods/x",
                "FailedScheduling: 0/14 nodes are available: 6 Insufficient cpu",
            ),
            RootCause.CAPACITY_UNAVAILABLE,
            id="a pod that found no node waited for nothing else",
        ),
        pytest.param(
            child("12 rows rejected: kein Zugriff", "cp: '/out/a.csv': Keine Berechtigung"),
            RootCause.PERMISSION_DENIED,
            id="the system speaks the language of its locale",
        ),
        pytest.param(
            failed(UNREAD, "WARNING - row 17: invalid date '2026-02-30', set to null"),
            RootCause.UNKNOWN,
            id="what was dealt with in the same line",
        ),
        pytest.param(
            failed(UNREAD, "WARNING - lock held by pid 311, waiting", "INFO - lock acquired after 2 s"),
            RootCause.UNKNOWN,
            id="what went well two lines later",
        ),
        pytest.param(
            failed(
                UNREAD,
                "WARNING - collector: 403 Forbidden, lineage switched off for this run",
                "INFO - part 1",
            ),
            RootCause.UNKNOWN,
            id="what was switched off",
        ),
        pytest.param(
            failed(UNREAD, "INFO - last run ended with OutOfMemoryError, memory doubled", "INFO - part 1"),
            RootCause.UNKNOWN,
            id="what happened in an earlier run",
        ),
        pytest.param(
            child("segment 4: Q-1743 of gate B", "0 rows written"),
            RootCause.EXTERNAL_JOB_FAILED,
            id="nothing written is an effect, not missing data",
        ),
        pytest.param(
            child("bash: line 7: 9470 Killed  (rc 137), memory.events: oom_kill 0"),
            RootCause.WORKER_LOST,
            id="a counter of memory kills at zero is no evidence of memory",
        ),
    ],
)
def test_the_line_that_decides(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert base.diagnose(Case(log=TaskLog(text=log))).root_cause is cause


def test_a_retry_needs_an_answer_without_a_lasting_rival(base: KnowledgeBase) -> None:
    """Two readings of one line: under one of them a retry is of no use."""
    one = failed("FeedError: HTTP 503 Service Unavailable")
    two = failed("FeedError: HTTP 503 Service Unavailable: permission denied for relation orders")

    assert base.diagnose(Case(log=TaskLog(text=one))).transient is True
    assert base.diagnose(Case(log=TaskLog(text=two))).transient is False


def test_what_entry_and_words_both_say_is_surer(base: KnowledgeBase) -> None:
    both = base.diagnose(Case(log=TaskLog(text=failed("StoreError: ENOSPC, no space left on the disk"))))
    words = base.diagnose(Case(log=TaskLog(text=failed("StoreError: insufficient disk volume"))))

    assert both.root_cause is words.root_cause is RootCause.STORAGE_EXHAUSTED
    assert both.confidence >= words.confidence
