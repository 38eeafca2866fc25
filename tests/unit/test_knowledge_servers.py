"""Numbers and names of servers: read where they are the server's, left alone where they may be others'."""

from __future__ import annotations

import pytest

from graph.domain import RootCause, TaskLog
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def failed(error: str, *before: str) -> str:
    frame = '  File "/opt/airflow/dags/orders.py", line 12, in load'
    head = [f"{STAMP} ERROR - Task failed with exception", "Traceback (most recent call last):", frame]
    return "\n".join([*(f"{STAMP} INFO - {line}" for line in before), *head, error])


def printed(line: str) -> str:
    wrapper = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."
    return failed(wrapper, "Output:", line, "Command exited with return code 1")


@pytest.mark.parametrize(
    ("log", "cause", "transient"),
    [
        pytest.param(
            failed("pymysql.err.InternalError: (1479, 'Syntax error: RANGE PARTITIONING requires VALUES')"),
            RootCause.QUERY_ERROR,
            False,
            id="MySQL by a client class",
        ),
        pytest.param(
            printed("ERROR 1059 (42000) at line 3: Identifier name 'a_very_long_one' is too long"),
            RootCause.QUERY_ERROR,
            False,
            id="MySQL by its command line",
        ),
        pytest.param(
            failed("pika.exceptions.ConnectionClosedByBroker: (503, 'COMMAND_INVALID - unknown method')"),
            RootCause.CODE_ERROR,
            False,
            id="AMQP: closed for a wrong command is no lost connection",
        ),
        pytest.param(
            failed("smtplib.SMTPRecipientsRefused: {'a@b.c': (452, b'4.3.1 Insufficient system storage')}"),
            RootCause.STORAGE_EXHAUSTED,
            True,
            id="SMTP by its enhanced status",
        ),
        pytest.param(
            printed("session setup failed: NT_STATUS_LOGON_FAILURE"),
            RootCause.AUTHENTICATION_FAILED,
            False,
            id="SMB by its status",
        ),
        pytest.param(
            printed(
                'rpc error: code = Unavailable desc = connection error: desc = "transport: authentication '
                'handshake failed: x509: certificate signed by unknown authority"'
            ),
            RootCause.TLS_ERROR,
            False,
            id="gRPC: no channel for want of a certificate",
        ),
    ],
)
def test_what_a_server_says(base: KnowledgeBase, log: str, cause: RootCause, transient: bool) -> None:
    found = base.diagnose(Case(log=TaskLog(text=log)))

    assert (found.root_cause, found.transient) == (cause, transient)


@pytest.mark.parametrize(
    ("log", "wrong"),
    [
        pytest.param(
            printed("ERROR 1205: widget batch not posted"),
            RootCause.LOCK_CONTENTION,
            id="a program's own number",
        ),
        pytest.param(
            failed("KeyError: 'total'", "consumer_timeout_ms = 5000"),
            RootCause.TIMEOUT,
            id="a setting that is printed",
        ),
        pytest.param(
            printed("grade=STATUS_INTERNAL_ERROR rows=0"),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="a program's own status",
        ),
    ],
)
def test_what_may_be_of_others(base: KnowledgeBase, log: str, wrong: RootCause) -> None:
    assert base.diagnose(Case(log=TaskLog(text=log))).root_cause is not wrong
