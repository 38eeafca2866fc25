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


WENT_ON = ("INFO - part 1: 400 rows", "INFO - part 2: 410 rows")


@pytest.mark.parametrize(
    "aside",
    [
        "cache host refused the connection (cache disabled)",
        "lock on staging held, waited 1.6s",
        "token expired at 02:00, got a new one",
        "permission denied on /srv/extra.toml - going without",
        "replica db-2 unavailable, read from db-1",
        "worker 3 lost, its shards were reassigned",
        "earlier attempt was OOMKilled, memory raised to 8 GB",
        "timeout raised to 600 s after yesterday's timeout",
        "host db-old unknown in DNS, db-new resolves",
    ],
)
@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_what_was_dealt_with_never_wins(base: KnowledgeBase, aside: str, level: str) -> None:
    log = failed("ValueError: invalid literal for int() with base 10: '12,5'", f"{level} - {aside}", *WENT_ON)
    assert base.diagnose(Case(log=TaskLog(text=log))).root_cause is RootCause.TYPE_MISMATCH


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        pytest.param(
            ("loader up", "another instance holds the lock"),
            RootCause.LOCK_CONTENTION,
            id="a child's last words need no word for error",
        ),
        pytest.param(
            ("step 1 ok", "STEP010 - ABEND=U4711"),
            RootCause.UNKNOWN,
            id="an abend nobody reads is a complaint",
        ),
        pytest.param(
            ("unit 1 ok", "unit 2 ok", "unit 3 rc=4"),
            RootCause.EXTERNAL_JOB_FAILED,
            id="a bare code is none",
        ),
        pytest.param(
            (
                "rsync: [receiver] write failed on /data/x: No space left on device (28)",
                "rsync: [sender] write error: Broken pipe (32)",
            ),
            RootCause.STORAGE_EXHAUSTED,
            id="a reason that names itself is no effect",
        ),
    ],
)
def test_how_a_child_ended(base: KnowledgeBase, said: tuple[str, ...], cause: RootCause) -> None:
    assert base.diagnose(Case(log=TaskLog(text=child(*said)))).root_cause is cause


def test_a_pods_printed_state_is_not_read_as_words(base: KnowledgeBase) -> None:
    state = (
        "{'status': {'container_statuses': [{'state': {'terminated': {'container_id': 'containerd://9'}}}]}}"
    )
    error = f"AirflowException: Pod a-b returned a failure.\nremote_pod: {state}"
    log = failed(error, "INFO - [base] step 3 of 4", file=f"{LIBRARY}/airflow/pod.py")
    assert base.diagnose(Case(log=TaskLog(text=log))).root_cause is not RootCause.WORKER_LOST


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            failed(
                "CypherSyntaxError: {code: Neo.ClientError.Statement.ArgumentError} "
                "{message: Text cannot be parsed to a Date}"
            ),
            RootCause.TYPE_MISMATCH,
            id="a value that does not parse is no wrong query",
        ),
        pytest.param(
            child('Exception in thread "main" java.lang.NullPointerException: ETL_HOME is not set'),
            RootCause.MISSING_CONFIGURATION,
            id="the message names a setting, whatever class was thrown",
        ),
        pytest.param(
            child(
                "#9 58.0 E: You don't have enough free space in /var/cache/apt/archives/.",
                'ERROR: failed to solve: process "/bin/sh -c apt install x" did not complete successfully: '
                "exit code: 100",
            ),
            RootCause.STORAGE_EXHAUSTED,
            id="apt's own line says why the image was not built",
        ),
        pytest.param(
            child(
                "IGZ0020S A logic error occurred. No FILE STATUS was specified for file CUSTIN "
                "in program CUSTLOAD at relative location X'0A12'. The status code was 35."
            ),
            RootCause.MISSING_DATA,
            id="COBOL's status 35 is a file that is not there",
        ),
        pytest.param(
            failed('ConnectionClosedByBroker: (530, "NOT_ALLOWED - vhost etl not found")'),
            RootCause.MISSING_CONFIGURATION,
            id="a virtual host that is not there denies nothing",
        ),
        pytest.param(
            failed("ReadError: ", file=f"{LIBRARY}/httpx/_transports/default.py"),
            RootCause.NETWORK_UNREACHABLE,
            id="httpx's read error",
        ),
        pytest.param(
            failed("ReadError: ", file="/usr/lib/python3.11/tarfile.py"),
            RootCause.TYPE_MISMATCH,
            id="tarfile's read error",
        ),
        pytest.param(
            failed("NoValidWorkerError: ", file=f"{LIBRARY}/distributed/scheduler.py"),
            RootCause.CAPACITY_UNAVAILABLE,
            id="a class says it where the message is empty",
        ),
        pytest.param(
            failed(
                "RuntimeError: not done", "WARNING - event not delivered (ConnectionRefusedError: refused)"
            ),
            RootCause.UNKNOWN,
            id="a report that did not reach Airmedic is no cause",
        ),
    ],
)
def test_what_was_meant_is_read(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert base.diagnose(Case(log=TaskLog(text=log))).root_cause is cause


def test_a_limit_that_is_set_is_no_connection_that_timed_out(base: KnowledgeBase) -> None:
    error = (
        "ServerSelectionTimeoutError: db:27017: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
        "self-signed certificate (configured timeouts: socketTimeoutMS: 20000.0ms, "
        "connectTimeoutMS: 20000.0ms), "
        "Timeout: 1.5s, Topology Description: <TopologyDescription id: 6, topology_type: Unknown>"
    )
    answer = base.diagnose(Case(log=TaskLog(text=failed(error, file=f"{LIBRARY}/pymongo/topology.py"))))

    assert answer.root_cause is RootCause.TLS_ERROR
    assert answer.confidence > 0.9


@pytest.mark.parametrize(
    ("log", "passes"),
    [
        pytest.param(
            failed("acme.LinkError: reply from the depot timed out"), True, id="another's answer did not come"
        ),
        pytest.param(
            failed("TimeoutError: timed out", file="/usr/lib/python3.11/socket.py"),
            True,
            id="raised while a socket was read",
        ),
        pytest.param(
            failed("acme.LinkError: the job to answer 40 tickets timed out"), False, id="own work is too long"
        ),
        pytest.param(failed("acme.LinkError: timed out"), False, id="nobody says what it waited for"),
        pytest.param(
            child('%5|FAIL|orders: KafkaError{code=_MSG_TIMED_OUT,str="Local: Message timed out"}'),
            True,
            id="a broker did not acknowledge",
        ),
        pytest.param(
            failed("KafkaError: Application maximum poll interval (max.poll.interval.ms) exceeded"),
            False,
            id="a consumer was too slow",
        ),
    ],
)
def test_waiting_for_an_answer_passes_and_work_that_is_too_long_does_not(
    base: KnowledgeBase, log: str, passes: bool
) -> None:
    found = base.diagnose(Case(log=TaskLog(text=log)))
    assert (found.root_cause, found.transient) == (RootCause.TIMEOUT, passes)


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            failed("RuntimeError: depots not counted", "ERROR - Connection refused, Timeout: 0.7s"),
            RootCause.NETWORK_UNREACHABLE,
            id="0.7 s is no count of none",
        ),
        pytest.param(
            failed(
                "OperationalError: (20009, b'Net-Lib error during Connection refused (111)\\nDB-Lib error"
                " 20009:\\nUnable to connect: TDS server is unavailable or does not exist (db)')"
            ),
            RootCause.NETWORK_UNREACHABLE,
            id="what does not exist there is not the Airflow connection",
        ),
        pytest.param(
            failed(
                "QueryError: Insufficient resources to execute plan on pool etl [Timedout waiting for"
                " resource request: Request exceeds limits: Memory(KB) Exceeded: Requested = 9, Free = 4]"
            ),
            RootCause.CAPACITY_UNAVAILABLE,
            id="waited in the queue of a pool",
        ),
        pytest.param(
            child("docker: Cannot connect to the Docker daemon at tcp://10.0.0.7:2376."),
            RootCause.NETWORK_UNREACHABLE,
            id="a daemon on another host",
        ),
        pytest.param(
            child("docker: Cannot connect to the Docker daemon at unix:///var/run/docker.sock."),
            RootCause.PLATFORM_ERROR,
            id="the worker's own daemon",
        ),
        pytest.param(
            failed("OperationalError: (2013, 'Lost connection to MySQL server during query (timed out)')"),
            RootCause.TIMEOUT,
            id="no answer inside the read timeout",
        ),
        pytest.param(
            child('bash: line 3: 4 files: syntax error in expression (error token is "files")'),
            RootCause.CODE_ERROR,
            id="arithmetic of the shell",
        ),
        pytest.param(
            failed(
                "BrokenProcessPool: A process in the process pool was terminated abruptly while running.",
                "WARNING - rss 7.9 GiB of 8.0 GiB",
            ),
            RootCause.OUT_OF_MEMORY,
            id="a pool's process died with its memory at the limit",
        ),
        pytest.param(
            child("error: could not find `Cargo.toml` in `/srv/job` or any parent directory"),
            RootCause.MISSING_DATA,
            id="a manifest is a file, not a library",
        ),
    ],
)
def test_what_looks_alike_is_told_apart(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    assert base.diagnose(Case(log=TaskLog(text=log))).root_cause is cause
