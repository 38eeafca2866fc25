"""Which line led to which: effects, wrappers, lines beside the work, and what was got over."""

from __future__ import annotations

import pytest

from graph.domain import RootCause, TaskLog
from tools.diagnosis import Case
from tools.evidence import read
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"
USER = '  File "/opt/airflow/dags/orders.py", line 12, in load'
LIBRARY = "/opt/venv/lib/python3.11/site-packages"


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def failed(error: str, *before: str, frame: str = USER) -> str:
    head = [f"{STAMP} ERROR - Task failed with exception", "Traceback (most recent call last):", frame]
    return "\n".join([*(f"{STAMP} {line}" for line in before), *head, error])


def child(*lines: str) -> str:
    said = [f"{STAMP} INFO - {line}" for line in ("Output:", *lines, "Command exited with return code 1")]
    wrapper = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."
    return "\n".join(
        [*said, failed(wrapper, frame=f'  File "{LIBRARY}/airflow/bash.py", line 1, in execute')]
    )


def airflow_frame(file: str, function: str) -> str:
    return f'  File "{LIBRARY}/airflow/{file}", line 7, in {function}'


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            failed("JSONDecodeError: Expecting value: line 1 column 1 (char 0)", "INFO - GET /rates -> 503"),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="an error page is no JSON",
        ),
        pytest.param(
            child("HTTP/2 429", "jq: error (at <stdin>:1): Cannot iterate over null (null)"),
            RootCause.RATE_LIMITED,
            id="nor for a program that reads it",
        ),
        pytest.param(
            child(
                "sort: write failed: /tmp/s: No space left on device", "gzip: x.gz: unexpected end of file"
            ),
            RootCause.STORAGE_EXHAUSTED,
            id="the file that could not be written is cut short",
        ),
        pytest.param(
            child(
                "TLS: peer cert untrusted or revoked (0x42)",
                "TLS: can't connect: (unknown error code).",
                "ldap_sasl_bind(SIMPLE): Can't contact LDAP server (-1)",
                "ldap_sasl_bind(SIMPLE): Can't contact LDAP server (-1)",
            ),
            RootCause.TLS_ERROR,
            id="a client that cannot contact its server, for what the handshake said",
        ),
        pytest.param(
            child(
                "ssh: connect to host 127.0.0.1 port 2222: Connection refused",
                "fatal: Could not read from remote repository.",
            ),
            RootCause.NETWORK_UNREACHABLE,
            id="what git says of the remote is no reason for a refused connection",
        ),
        pytest.param(
            failed("IndexError: list index out of range", "INFO - manifest is empty"),
            RootCause.MISSING_DATA,
            id="nothing came, and the code stumbled over it",
        ),
        pytest.param(
            failed("KeyError: 'results'", "INFO - response keys: ['data', 'meta']"),
            RootCause.SCHEMA_DRIFT,
            id="the log lists what came instead of the key",
        ),
        pytest.param(
            failed("KeyError: 'results'", "INFO - response keys: ['results', 'meta']"),
            RootCause.CODE_ERROR,
            id="and here the key did come",
        ),
        pytest.param(
            failed(
                "TypeError: unsupported operand type(s) for +: 'int' and 'str'", "INFO - row 17: qty='n/a'"
            ),
            RootCause.TYPE_MISMATCH,
            id="the log shows the value that is no number",
        ),
        pytest.param(
            failed("ConnectionError: hub not reachable", "WARNING - SSL: certificate of hub expired"),
            RootCause.TLS_ERROR,
            id="why it could not connect",
        ),
        pytest.param(
            failed(
                "PublishError: Local: Message timed out",
                "WARNING - broker-1:9092: Connect failed: Connection refused",
                "WARNING - broker-2:9092: Connect failed: Connection refused",
            ),
            RootCause.NETWORK_UNREACHABLE,
            id="what it waited for until time ran out",
        ),
        pytest.param(
            failed(
                "OperationalError: FATAL: sorry, too many clients already",
                frame=airflow_frame("models/taskinstance.py", "refresh_from_db"),
            ),
            RootCause.PLATFORM_ERROR,
            id="raised in Airflow's own machinery",
        ),
        pytest.param(
            failed(
                "ClientError: An error occurred (AccessDenied) when calling the PutObject operation",
                "INFO - Done. Returned value was: 7",
                frame=airflow_frame("sdk/execution_time/task_runner.py", "_run_task_and_map_outcome"),
            ),
            RootCause.PLATFORM_ERROR,
            id="raised after the work was done",
        ),
        pytest.param(
            child(
                "mysql: ERROR 1146 (42S02): Table 'x.y' doesn't exist",
                "could not send mail: Connection refused",
            ),
            RootCause.MISSING_DATA,
            id="a mail that was not sent is beside the work",
        ),
        pytest.param(
            child("could not send mail: Connection refused"),
            RootCause.NETWORK_UNREACHABLE,
            id="unless sending it was the work",
        ),
        pytest.param(
            child("frobnicate: the quux is not aligned"),
            RootCause.UNKNOWN,
            id="a complaint that nobody can read is no silent job",
        ),
    ],
)
def test_lines_are_linked(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    said = base.diagnose(Case(log=TaskLog(text=log)))
    assert said.root_cause is cause, said.summary


@pytest.mark.parametrize(
    ("complaint", "later"),
    [
        pytest.param(
            "WARNING - db-7 refused the connection, attempt 1", "INFO - db-7 ready, 20 rows", id="a host"
        ),
        pytest.param("WARNING - GET /v1/orders -> 503", "INFO - GET /v1/orders -> 200", id="a path"),
        pytest.param("WARNING - page 4: read timed out", "INFO - page 4: 200 rows", id="a numbered item"),
    ],
)
def test_what_went_well_later_was_got_over(complaint: str, later: str) -> None:
    pieces = read(TaskLog(text=failed("RuntimeError: no", complaint, later))).pieces
    again = read(TaskLog(text=failed("RuntimeError: no", later, complaint))).pieces

    assert next(p for p in pieces if p.line == 1).recovered
    assert not next(p for p in again if p.line == 2).recovered


def test_a_continued_message_is_no_success() -> None:
    log = child("/srv/x.sh: line 31: syntax error near unexpected token `done'", "/srv/x.sh: line 31: `done'")
    assert not any(piece.recovered for piece in read(TaskLog(text=log)).pieces)


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            child(
                "warn items service attempt 3/3: 502 Bad Gateway",
                "scoring items",
                "TypeError: Cannot read properties of undefined (reading 'map')",
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="the last attempt failed too, and code got nothing",
        ),
        pytest.param(
            child(
                "warn catalog attempt 1/3: 503 Service Unavailable",
                "catalog loaded ok",
                "TypeError: Cannot read properties of undefined (reading 'map')",
            ),
            RootCause.CODE_ERROR,
            id="what went well since explains nothing",
        ),
        pytest.param(
            child(
                "Error in url(u) : cannot open the connection to 'https://feed/x'",
                "In addition: Warning message:",
                "  cannot open URL 'https://feed/x': HTTP status was '503 Service Unavailable'",
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="a program may add the reason",
        ),
        pytest.param(
            child(
                "ERROR: module is read only", "rsync error: syntax or usage error (code 1) at main.c(1185)"
            ),
            RootCause.PERMISSION_DENIED,
            id="the other side refused before the usage error",
        ),
        pytest.param(
            child(
                'ERROR:  duplicate key value violates unique constraint "orders_pkey"',
                "ERROR:  current transaction is aborted, commands ignored until end of transaction block",
            ),
            RootCause.CONSTRAINT_VIOLATION,
            id="a session that refuses all statements after the one that failed",
        ),
        pytest.param(
            failed(
                "TimeoutError: nats: timeout",
                "INFO - error callback: nats: permissions violation for publish",
            ),
            RootCause.PERMISSION_DENIED,
            id="an answer that never came because it was not allowed",
        ),
        pytest.param(
            failed(
                "AirflowException: Jenkins job failed, final state : FAILURE",
                "ERROR - handle_other(): Mutual authentication failed",
                "INFO - Job executed on Jenkins side with the build number 319",
                frame=f'  File "{LIBRARY}/airflow/jenkins.py", line 7, in execute',
            ),
            RootCause.EXTERNAL_JOB_FAILED,
            id="a job that was started after the complaint",
        ),
        pytest.param(
            child(
                'payload keys: ["orderList"] (yesterday: ["orders"])',
                "jq: error (at x:1): Cannot iterate over null",
            ),
            RootCause.SCHEMA_DRIFT,
            id="keys that came beside those that came before",
        ),
        pytest.param(
            child("widget 14: error: parity disagrees"), RootCause.UNKNOWN, id="a reason not understood"
        ),
        pytest.param(
            child("step 3 of 4 failed"), RootCause.EXTERNAL_JOB_FAILED, id="a job that says no more"
        ),
        pytest.param(
            f"{STAMP} INFO - batch 14: 500 rows read\n{STAMP} WARNING - Process exited abnormally",
            RootCause.UNKNOWN,
            id="progress in round numbers is not zero rows",
        ),
        pytest.param(
            failed("KeyError: 'EUR'", "INFO - rates parsed: {}", "INFO - revaluing 118 positions"),
            RootCause.MISSING_DATA,
            id="a key is not there because nothing came",
        ),
        pytest.param(
            failed("KeyError: 'tas'", "INFO - ['t2m', 'lat']"),
            RootCause.SCHEMA_DRIFT,
            id="a bare list of names shows what came",
        ),
        pytest.param(
            child(
                "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
                "ModuleNotFoundError: No module named 'acme_core'",
            ),
            RootCause.STORAGE_EXHAUSTED,
            id="a module is not there because it could not be installed",
        ),
        pytest.param(
            child(
                "gzip: stdout: No space left on device",
                "this is odd, please report this bug; the stage is not ready yet",
            ),
            RootCause.STORAGE_EXHAUSTED,
            id="how things stand is no cause after a complaint",
        ),
        pytest.param(
            failed(
                'OperationalError: could not translate host name "None" to address: Name or service not known'
            ),
            RootCause.MISSING_CONFIGURATION,
            id="a host in quotes that has no name was not set",
        ),
        pytest.param(
            failed(
                "KilledWorker: all those workers died while running it",
                "INFO - worker 3: exceeded 95% memory budget, restarting",
            ),
            RootCause.OUT_OF_MEMORY,
            id="workers that died at the limit of their memory",
        ),
    ],
)
def test_the_reason_before_its_effect(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    said = base.diagnose(Case(log=TaskLog(text=log)))

    assert said.root_cause is cause, said
