"""What the last exception only shows: the reason stands elsewhere in the failure."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from graph.domain import Diagnosis, RootCause, TaskLog
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"
WRAPPER = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def log_of(*traceback: str, before: tuple[str, ...] = ()) -> str:
    head = [f"{STAMP} ERROR - Task failed with exception", "Traceback (most recent call last):"]
    return "\n".join([*(f"{STAMP} {line}" for line in before), *head, *traceback])


def ask(base: KnowledgeBase, log: str) -> Diagnosis:
    return base.diagnose(Case(log=TaskLog(text=log)))


OWN = '  File "/opt/airflow/dags/orders.py", line 12, in load'


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            log_of(
                OWN,
                "StartError: node n7 went to ERROR, code 500",
                before=("ERROR - {'code': 500, 'message': 'No capacity: not enough hosts available.'}",),
            ),
            RootCause.CAPACITY_UNAVAILABLE,
            id="an answer's message tells more than its status",
        ),
        pytest.param(
            log_of(
                OWN,
                "RuntimeError: worker process (pid 88) is killed by signal: Terminated.",
                "Traceback (most recent call last):",
                '  File "/usr/lib/python3.11/multiprocessing/connection.py", line 395, in _recv',
                "ConnectionResetError: [Errno 104] Connection reset by peer",
            ),
            RootCause.WORKER_LOST,
            id="a connection breaks because the other process died",
        ),
        pytest.param(
            log_of(
                OWN,
                "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='api.None.acme.example'): "
                "Failed to resolve 'api.None.acme.example' ([Errno -2] Name or service not known)",
            ),
            RootCause.MISSING_CONFIGURATION,
            id="a host of None lacks a setting",
        ),
        pytest.param(
            log_of(
                OWN,
                "TransportError: Server returned response (502) with invalid XML: mismatched tag: line 1",
                "Traceback (most recent call last):",
                "xml.etree.ElementTree.ParseError: mismatched tag: line 1, column 92",
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="a page of a server that could not serve",
        ),
        pytest.param(
            log_of(
                OWN,
                "KilledWorker: Attempted to run task 'fit-3' on 3 workers, but all those workers died",
                before=(
                    "WARNING - Worker tcp://10.0.0.4:4001 (pid=51) exceeded 95% memory budget. Restarting...",
                    "INFO - Register worker addr: tcp://10.0.0.4:4002",
                    *(
                        f"INFO - Starting established connection to tcp://10.0.0.4:{port}"
                        for port in range(40)
                    ),
                    "INFO - Worker process 51 was killed by signal 15",
                    "INFO - Lost all workers",
                ),
            ),
            RootCause.OUT_OF_MEMORY,
            id="a watchman ended workers for their memory",
        ),
        pytest.param(log_of(OWN, "Exception: Unspecified error"), RootCause.UNKNOWN, id="hollow words"),
    ],
)
def test_the_reason_stands_elsewhere(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert ask(base, log).root_cause is cause


def test_what_is_tidied_up_after_a_complaint_is_not_the_reason(base: KnowledgeBase) -> None:
    lines = (
        "ERROR - login failed: INVALID_LOGIN: Invalid username, password, security token",
        "Traceback (most recent call last):",
        '  File "/srv/etl/pull.py", line 40, in <module>',
        "    shutil.rmtree(folder)",
        "FileNotFoundError: [Errno 2] No such file or directory: '/tmp/pull-7'",
        "Command exited with return code 1",
    )
    frame = '  File "/x/site-packages/airflow/bash.py", line 12, in load'
    log = log_of(frame, WRAPPER, before=tuple(f"INFO - {line}" for line in lines))

    assert ask(base, log).root_cause is RootCause.AUTHENTICATION_FAILED


def test_neither_reader_hears_of_a_line_known_to_be_harmless(tmp_path: Path) -> None:
    entry = {"id": "port", "cause": "unknown", "strength": "decisive", "patterns": ["studio port"]}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"family": "own", "entries": [entry]}))
    log = log_of(
        OWN, "Halted: 77", before=("WARNING - studio port: connection refused, connection timed out",)
    )

    heard = ask(KnowledgeBase.load(), log)
    silent = ask(KnowledgeBase.load(tmp_path), log)

    assert heard.root_cause is not RootCause.UNKNOWN
    assert silent.root_cause is RootCause.UNKNOWN
