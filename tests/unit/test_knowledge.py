"""The knowledge base: files are checked, evidence is combined, context moves the answer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from evals.cases import read_cases
from evals.scorers import Prediction, score
from graph.domain import (
    ColumnProblem,
    DataReport,
    Diagnosis,
    Pool,
    Remediation,
    RootCause,
    TaskLog,
    TaskRef,
    TaskSnapshot,
)
from graph.errors import KnowledgeInvalid
from tools.diagnosis import Case, Context, UpstreamTask
from tools.knowledge import KnowledgeBase, KnowledgeDiagnostician

OWN = Path(__file__).parents[2] / "evals" / "cases"
REF = TaskRef(dag_id="orders", run_id="r1", task_id="load")
STAMP = "[2026-03-02T04:10:04.000000Z]"


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def failed(error: str, before: tuple[str, ...] = (), file: str = "/opt/airflow/dags/orders.py") -> str:
    lines = [f"{STAMP} {line}" for line in before]
    frame = f'  File "{file}", line 12, in load'
    head = [f"{STAMP} ERROR - Task failed with exception", "Traceback (most recent call last):", frame]
    return "\n".join([*lines, *head, error])


def child(code: int, *lines: str) -> str:
    said = [
        f"{STAMP} INFO - {line}" for line in ("Output:", *lines, f"Command exited with return code {code}")
    ]
    wrapper = f"AirflowException: Bash command failed. The command returned a non-zero exit code {code}."
    return "\n".join([*said, failed(wrapper, file="/x/site-packages/airflow/bash.py")])


def snapshot(state: str = "failed", version: int = 3, duration: float = 10.0) -> TaskSnapshot:
    start = datetime(2026, 3, 2, 4, tzinfo=UTC)
    return TaskSnapshot(task=REF, state=state, dag_version=version, duration=duration, start=start)


@pytest.mark.parametrize(
    ("log", "cause", "transient"),
    [
        pytest.param(
            failed(
                "ConnectionError: HTTPConnectionPool(host='src', port=80): Max retries exceeded with url: / "
                "(Caused by NewConnectionError('[Errno 111] Connection refused'))"
            ),
            RootCause.NETWORK_UNREACHABLE,
            True,
            id="a refused connection passes",
        ),
        pytest.param(
            f"{STAMP} CRITICAL - Process terminated by signal. Likely out of memory error (OOM).",
            RootCause.WORKER_LOST,
            True,
            id="Airflow's hint at memory is no evidence of memory",
        ),
        pytest.param(
            f"{STAMP} INFO - memory usage 98%\n{STAMP} CRITICAL - Process terminated by signal.",
            RootCause.OUT_OF_MEMORY,
            False,
            id="a kill with memory evidence is memory",
        ),
        pytest.param(
            child(
                1, "psql: error: connection to server failed: FATAL:  password authentication failed for user"
            ),
            RootCause.AUTHENTICATION_FAILED,
            False,
            id="the child's error beats its exit code",
        ),
        pytest.param(
            child(3, "step one", "step two"), RootCause.EXTERNAL_JOB_FAILED, False, id="a silent job"
        ),
        pytest.param(
            failed("KeyError: 'token'", ('INFO - auth answered HTTP 401 {"error": "invalid_client"}',)),
            RootCause.AUTHENTICATION_FAILED,
            False,
            id="what was answered beats what stumbled over it",
        ),
        pytest.param(
            failed(
                'UniqueViolation: duplicate key value violates unique constraint "pk"',
                ("WARNING - Connection refused, retrying", "INFO - connected"),
            ),
            RootCause.CONSTRAINT_VIOLATION,
            False,
            id="what recovered is not the cause",
        ),
        pytest.param(
            failed("ReadTimeout: HTTPSConnectionPool(host='a', port=443): Read timed out."),
            RootCause.TIMEOUT,
            True,
            id="a read timeout is a timeout",
        ),
        pytest.param(
            failed("ConnectTimeout: Connection to a timed out. (connect timeout=5)"),
            RootCause.NETWORK_UNREACHABLE,
            True,
            id="a connection timeout is the network",
        ),
        pytest.param(
            failed("ConnectError: [SSL: CERTIFICATE_VERIFY_FAILED] certificate has expired"),
            RootCause.TLS_ERROR,
            False,
            id="the reason beats the exception's class",
        ),
        pytest.param(
            failed("RuntimeError: it did not work"), RootCause.UNKNOWN, False, id="no evidence, no guess"
        ),
        pytest.param("", RootCause.UNKNOWN, False, id="an empty log"),
    ],
)
def test_evidence_is_combined(base: KnowledgeBase, log: str, cause: RootCause, transient: bool) -> None:
    said = base.diagnose(Case(log=TaskLog(text=log)))
    assert (said.root_cause, said.transient) == (cause, transient), said.summary


def html(title: str) -> str:
    return f"INFO - body starts with: <!DOCTYPE html><html><head><title>{title}</title></head>"


@pytest.mark.parametrize(
    ("log", "cause"),
    [
        pytest.param(
            child(
                2,
                "cache: permission denied reading /var/cache/lookup.pkl, rebuilding",
                "cache rebuilt in 0.8s",
                "gzip: stdout: No space left on device",
                "pack finished, rc=2",
                "gzip: stdin: unexpected end of file",
            ),
            RootCause.STORAGE_EXHAUSTED,
            id="a full disk explains the file cut short, a complaint dealt with nothing",
        ),
        pytest.param(
            child(
                143, "lookup: access denied, using default", "got SIGTERM from pid 1 (node draining), leaving"
            ),
            RootCause.WORKER_LOST,
            id="a program told to stop from outside lost its machine",
        ),
        pytest.param(
            child(143, "part 3 done", "watchdog: time limit of 600 s reached", "got SIGTERM, leaving"),
            RootCause.TIMEOUT,
            id="a program told to stop at its limit was slow",
        ),
        pytest.param(
            child(1, "schema registry: timed out after 2s, using cached schema", "rows: 12"),
            RootCause.EXTERNAL_JOB_FAILED,
            id="a silent job with a complaint dealt with is a job that failed",
        ),
        pytest.param(
            failed("cryptography.exceptions.InvalidSignature: Signature did not match digest.").replace(
                "/opt/airflow/dags/orders.py", "/x/site-packages/cryptography/fernet.py"
            ),
            RootCause.PLATFORM_ERROR,
            id="what Fernet cannot decrypt is the key of Airflow",
        ),
        pytest.param(
            failed("SerializedDagNotFound: DAG 'a' not found in serialized_dag table"),
            RootCause.PLATFORM_ERROR,
            id="a DAG that Airflow did not store is no setting",
        ),
        pytest.param(
            failed("XPathEvalError: Invalid predicate"), RootCause.QUERY_ERROR, id="an expression is a query"
        ),
        pytest.param(
            child(3, "jq: error: syntax error, unexpected INVALID_CHARACTER", "jq: 1 compile error"),
            RootCause.QUERY_ERROR,
            id="a filter is a query",
        ),
        pytest.param(
            child(1, 'psql: error: definition of service "reports" not found'),
            RootCause.MISSING_CONFIGURATION,
            id="a service that is not defined is a setting",
        ),
        pytest.param(
            failed("FileNotFoundError: [Errno 2] No such file or directory: '/etc/app/service-account.json'"),
            RootCause.MISSING_CONFIGURATION,
            id="a file of credentials is a setting, not data",
        ),
        pytest.param(
            failed("DeltaError: Invalid data found: 3 rows failed validation check."),
            RootCause.CONSTRAINT_VIOLATION,
            id="rows that fail a check break a rule",
        ),
        pytest.param(
            failed(
                "JSONDecodeError: Expecting value: line 1 column 1 (char 0)", (html("Scheduled maintenance"),)
            ),
            RootCause.UPSTREAM_UNAVAILABLE,
            id="what was answered explains what could not be decoded",
        ),
        pytest.param(
            failed("KeyError: 'spend'", ("WARNING - keys differ from yesterday: removed spend, added cost",)),
            RootCause.SCHEMA_DRIFT,
            id="the line just before explains a generic exception",
        ),
        pytest.param(
            failed("KeyError: 'spend'", ("WARNING - cache file /tmp/c not found, building it anew",)),
            RootCause.CODE_ERROR,
            id="what was passed over explains nothing",
        ),
        pytest.param(
            child(3, "rows so far: 70, bad rows: 0", "0 rows failed validation", "errors=0"),
            RootCause.EXTERNAL_JOB_FAILED,
            id="a counter at zero is no evidence",
        ),
        pytest.param(
            child(3, "GET /status: 503, asked again", *(f"page {n} written" for n in range(9))),
            RootCause.UNKNOWN,
            id="a complaint that much work follows is no reason",
        ),
        pytest.param(
            child(134, "Fatal: the remote certificate is invalid: NotTimeValid", "Aborted (core dumped)"),
            RootCause.TLS_ERROR,
            id="what was printed before the core dump is the reason",
        ),
        pytest.param(
            child(1, "Caused by: x.AuthenticationException: The remote certificate is invalid: untrusted"),
            RootCause.TLS_ERROR,
            id="a message corrects its exception's class",
        ),
        pytest.param(
            failed("DriverError: FOO-77: SQLSTATE=23999"),
            RootCause.CONSTRAINT_VIOLATION,
            id="an unknown number falls back to its class",
        ),
        pytest.param(
            "\n".join(
                [
                    f'{STAMP} ERROR - {{"message":"[AVAILABLE_FLUX_CAPACITY_EXCEEDED] asked for 224"}}',
                    failed("AirflowException: Job 77 has failed or has been cancelled."),
                ]
            ),
            RootCause.CAPACITY_UNAVAILABLE,
            id="an unknown code in a JSON error beats the wrapper",
        ),
    ],
)
def test_mechanisms(base: KnowledgeBase, log: str, cause: RootCause) -> None:
    said = base.diagnose(Case(log=TaskLog(text=log)))
    assert said.root_cause is cause, said.summary


def test_broken_code_is_named_with_file_and_line(base: KnowledgeBase) -> None:
    said = base.diagnose(
        Case(log=TaskLog(text=failed('TypeError: can only concatenate str (not "int") to str')))
    )
    assert said.root_cause is RootCause.CODE_ERROR
    assert said.location is not None
    assert (said.location.file, said.location.line) == ("/opt/airflow/dags/orders.py", 12)


def test_evidence_quotes_the_line_as_printed(base: KnowledgeBase) -> None:
    log = failed("IntegrityError: NOT NULL constraint failed: orders.id")
    said = base.diagnose(Case(log=TaskLog(text=log)))
    assert said.evidence
    for line in said.evidence:
        assert log.split("\n")[line.line - 1] == line.text


def keyed(base: KnowledgeBase, context: Context, task: TaskSnapshot) -> Diagnosis:
    return base.diagnose(Case(log=TaskLog(text=failed("KeyError: 'email'")), task=task, context=context))


def test_the_same_error_is_drift_on_old_code_and_code_on_new(base: KnowledgeBase) -> None:
    past = tuple(snapshot("success") for _ in range(5))
    drift = keyed(base, Context(history=past, dag_version_of_last_success=3), snapshot(version=3))
    code = keyed(base, Context(history=past, dag_version_of_last_success=3), snapshot(version=4))
    assert (drift.root_cause, code.root_cause) == (RootCause.SCHEMA_DRIFT, RootCause.CODE_ERROR)
    assert "version" in drift.summary
    assert "version" in code.summary


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        pytest.param("missing", RootCause.SCHEMA_DRIFT, id="a column is gone"),
        pytest.param("unexpected", RootCause.SCHEMA_DRIFT, id="a column is new"),
        pytest.param("type", RootCause.TYPE_MISMATCH, id="a type changed"),
        pytest.param("null", RootCause.CONSTRAINT_VIOLATION, id="values are missing"),
        pytest.param("duplicate", RootCause.CONSTRAINT_VIOLATION, id="keys repeat"),
        pytest.param("empty", RootCause.MISSING_DATA, id="nothing came"),
    ],
)
def test_the_tasks_own_report_decides(base: KnowledgeBase, kind: str, cause: RootCause) -> None:
    problem = ColumnProblem.model_validate({"kind": kind, "column": "email"})
    report = DataReport(contract="airmedic_contract_x", satisfied=False, problems=(problem,))
    log = failed("ContractViolation: the feed breaks its contract")
    said = base.diagnose(Case(log=TaskLog(text=log), context=Context(report=report)))
    assert said.root_cause is cause
    assert said.facts.report == report


def test_an_empty_upstream_is_the_cause(base: KnowledgeBase) -> None:
    upstream = UpstreamTask(task_id="extract", state="success", returned=0)
    case = Case(
        log=TaskLog(text=failed("IndexError: list index out of range")), context=Context(upstream=(upstream,))
    )
    assert base.diagnose(case).root_cause is RootCause.MISSING_DATA


def test_a_pool_without_slots_is_capacity(base: KnowledgeBase) -> None:
    case = Case(log=TaskLog(text=""), context=Context(pool=Pool(name="etl", slots=0)))
    said = base.diagnose(case)
    assert (said.root_cause, said.facts.pool) == (RootCause.CAPACITY_UNAVAILABLE, "etl")


@pytest.mark.parametrize(
    ("trace", "cause"),
    [
        pytest.param("ModuleNotFoundError: No module named 'x'", RootCause.DEPENDENCY_ERROR, id="a module"),
        pytest.param("SyntaxError: invalid syntax", RootCause.CODE_ERROR, id="syntax"),
    ],
)
def test_a_dag_that_does_not_import(base: KnowledgeBase, trace: str, cause: RootCause) -> None:
    text = f'Traceback (most recent call last):\n  File "/dags/a.py", line 1, in <module>\n{trace}'
    assert base.diagnose(Case(log=TaskLog(text=""), context=Context(import_failure=text))).root_cause is cause


def test_slow_once_may_be_retried_slow_again_not(base: KnowledgeBase) -> None:
    log = TaskLog(text=failed("AirflowTaskTimeout: Timeout, PID: 7"))
    past = tuple(snapshot("success", duration=10) for _ in range(4))
    once = base.diagnose(Case(log=log, task=snapshot(duration=60), context=Context(history=past)))
    again = (snapshot("failed", duration=60), *past)
    twice = base.diagnose(Case(log=log, task=snapshot(duration=60), context=Context(history=again)))
    assert (once.transient, once.remediation) == (True, Remediation.RETRY)
    assert (twice.transient, twice.remediation) == (False, Remediation.RAISE_LIMIT)


def test_facts_say_how_long_to_wait(base: KnowledgeBase) -> None:
    log = failed("HTTPError: 429 Client Error: Too Many Requests", ("WARNING - answer 429, Retry-After: 20",))
    assert base.diagnose(Case(log=TaskLog(text=log))).facts.retry_after == 20


@pytest.mark.parametrize("name", ["other_technologies", "other_styles", "field", "hard_scenarios"])
def test_our_own_cases(base: KnowledgeBase, name: str) -> None:
    cases = read_cases(OWN / f"{name}.jsonl")
    asked = [case.to_case() for case in cases]
    said = [Prediction.of(a.id, base.diagnose(b), b.log.text) for a, b in zip(cases, asked, strict=True)]
    scores = score(cases, said, {case.id: case.to_case().log.text for case in cases})
    assert scores.macro_f1 > 0.9
    assert scores.transient.precision > 0.95
    assert scores.cited == 1.0


def entry(**changes: object) -> str:
    import yaml

    written = {"id": "x", "cause": "timeout", "strength": "exact", "patterns": ["a b c"], **changes}
    return yaml.safe_dump({"family": "mine", "entries": [written]})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param(entry(patterns=["(unclosed"]), ["mine.yaml", "'x'", "unclosed"], id="a broken pattern"),
        pytest.param(entry(cause="gremlins"), ["mine.yaml", "'x'", "cause"], id="an unknown cause"),
        pytest.param(entry(strength="huge"), ["mine.yaml", "'x'", "huge"], id="an unknown strength"),
        pytest.param(entry(colour="red"), ["mine.yaml", "'x'", "colour"], id="an unknown key"),
        pytest.param("family: [", ["mine.yaml"], id="not YAML"),
        pytest.param("entries: []", ["mine.yaml", "family"], id="no family"),
    ],
)
def test_a_malformed_file_stops_the_start(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(KnowledgeInvalid) as caught:
        KnowledgeBase.load(tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_users_add_their_own_knowledge(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(entry(patterns=["FLUX-[0-9]+"], cause="lock_contention"))
    said = KnowledgeBase.load(tmp_path).diagnose(Case(log=TaskLog(text=failed("FluxError: FLUX-77 busy"))))
    assert said.root_cause is RootCause.LOCK_CONTENTION


async def test_the_port_answers_the_same(base: KnowledgeBase) -> None:
    case = Case(log=TaskLog(text=failed("MemoryError")))
    assert await KnowledgeDiagnostician(base).diagnose(case) == base.diagnose(case)
