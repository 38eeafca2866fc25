"""What stands around a failure and says nothing, and what was complained of long before it."""

from __future__ import annotations

import pytest

from graph.domain import Diagnosis, RootCause, TaskLog
from tools import evidence
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def read(base: KnowledgeBase, *printed: str) -> Diagnosis:
    said = ["Running command: ['/usr/bin/bash', '-c', '/srv/jobs/load.sh']", "Output:", *printed]
    wrapper = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."
    frame = '  File "/opt/airflow/venv/airflow/providers/standard/operators/bash.py", line 227, in execute'
    end = [
        f"{STAMP} ERROR - Task failed with exception",
        "Traceback (most recent call last):",
        frame,
        wrapper,
    ]
    log = [*(f"{STAMP} INFO - {line}" for line in said), f"{STAMP} INFO - Command exited with return code 1"]
    return base.diagnose(Case(log=TaskLog(text="\n".join([*log, *end]))))


def test_an_object_that_node_shows_hides_no_error(base: KnowledgeBase) -> None:
    shown = [f"        [Symbol({name})]: undefined," for name in ("kCapture", "kError", "errored", "kBytes")]
    inner = [f"      {name}: [Function: {name}]," for name in ("validate", "adapter", "transform")]
    told = read(
        base,
        "[rates] try 2 gave no answer",
        "AggregateError: rates not available",
        "    <ref *1> AxiosError: timeout of 3000ms exceeded",
        "        at createTimeoutError (file:///srv/jobs/node_modules/axios/lib/adapters/http.js:766:16)",
        *(shown + inner) * 12,
        "Node.js v20.20.2",
    )
    assert (told.root_cause, told.transient) == (RootCause.TIMEOUT, True)


def test_source_code_above_a_caret_is_not_read() -> None:
    said = ("  throw new Error(`connection to ${host} refused`)", "        ^", "Error: batch rejected")
    text = "\n".join(f"{STAMP} INFO - {line}" for line in said)
    complains = {piece.text.strip(): piece.errorish for piece in evidence.read(TaskLog(text=text)).pieces}
    assert not complains[said[0].strip()]
    assert complains[said[2]]


def test_what_is_missing_after_a_refused_login_is_no_cause(base: KnowledgeBase) -> None:
    told = read(
        base,
        "Login failed: 530 Authentication failed.",
        "files on disk: 0",
        "ERROR: expected 8 lane files for 2026-11-26, found 0",
    )
    assert told.root_cause is RootCause.AUTHENTICATION_FAILED


def test_a_kill_that_the_kernel_counted_goes_before_the_file_it_left_out(base: KnowledgeBase) -> None:
    told = read(
        base,
        "scored shard 12",
        "slice max_usage=94371840 failcnt=100 oom_kill=1",
        "ls: cannot access '/srv/work/merged.csv': No such file or directory",
    )
    assert told.root_cause is RootCause.OUT_OF_MEMORY


def test_the_only_complaint_of_a_log_tells_why_it_failed(base: KnowledgeBase) -> None:
    work = [f"adding entry uid=u{number}" for number in range(30)]
    told = read(base, "ldap_add: Object class violation (65)", *work)
    assert told.root_cause is RootCause.CONSTRAINT_VIOLATION


def test_a_complaint_that_was_tried_again_is_not_the_only_one(base: KnowledgeBase) -> None:
    work = [f"adding entry uid=u{number}" for number in range(30)]
    told = read(base, "connect: Connection refused, retrying in 5 s", *work)
    assert told.root_cause in (RootCause.EXTERNAL_JOB_FAILED, RootCause.UNKNOWN)


def test_a_key_that_the_header_does_not_list_is_drift(base: KnowledgeBase) -> None:
    told = read(
        base,
        '/srv/jobs/tariff.rb:6:in `fetch\': key not found: "unit_price" (KeyError)',
        "\tfrom /usr/lib/ruby/3.1.0/csv/table.rb:539:in `each'",
        "tariff: 399 lines, header sku|netto_preis|currency|valid_from",
    )
    assert told.root_cause is RootCause.SCHEMA_DRIFT


def test_a_session_that_was_hung_up_is_the_network(base: KnowledgeBase) -> None:
    frame = '  File "/usr/local/lib/python3.11/ftplib.py", line 218, in getline'
    log = [f"{STAMP} INFO - logged in", f"{STAMP} ERROR - Task failed with exception"]
    log += ["Traceback (most recent call last):", frame, "EOFError"]
    told = base.diagnose(Case(log=TaskLog(text="\n".join(log))))
    assert (told.root_cause, told.transient) == (RootCause.NETWORK_UNREACHABLE, True)


def test_a_command_of_airflow_that_fails_at_its_database_is_the_platform(base: KnowledgeBase) -> None:
    trace = "Traceback (most recent call last):"
    told = read(
        base,
        trace,
        '  File "/venv/lib/sqlalchemy/engine/default.py", line 1192, in do_execute',
        "sqlite3.OperationalError: no such table: connection",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        trace,
        '  File "/venv/lib/airflow/cli/commands/connection_command.py", line 277, in connections_export',
        '  File "/venv/lib/sqlalchemy/engine/base.py", line 1494, in execute',
        "sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) no such table: connection",
    )
    assert told.root_cause is RootCause.PLATFORM_ERROR


def test_what_stumbles_over_an_answer_is_no_rival_to_it(base: KnowledgeBase) -> None:
    told = read(
        base,
        "GET /geocode?q=Kiel -> 200",
        "GET /geocode?q=Jena -> 429",
        'PHP Fatal error:  Uncaught ErrorException: Undefined array key "results" in /srv/geocode.php:10',
        "Stack trace:",
        "#0 /srv/jobs/geocode.php(13): geocode()",
        "#1 {main}",
    )
    assert (told.root_cause, told.transient) == (RootCause.RATE_LIMITED, True)
    assert "stumbled over it" in told.summary


def test_a_line_of_a_stack_tells_of_nothing_that_went_well(base: KnowledgeBase) -> None:
    frames = [f"\tfrom /usr/lib/ruby/3.1.0/net/http.rb:{line}:in `start'" for line in (200, 965, 976, 2005)]
    error = (
        "/usr/lib/ruby/3.1.0/net/http.rb:1018:in `initialize': Failed to open TCP connection to a.test:9200"
    )
    told = read(base, f"{error} (Connection refused - connect(2)) (Errno::ECONNREFUSED)", *frames * 6)
    assert (told.root_cause, told.transient) == (RootCause.NETWORK_UNREACHABLE, True)


def test_a_folder_that_was_left_out_is_the_only_complaint_of_a_transfer(base: KnowledgeBase) -> None:
    counted = [f"Number of files: {number}" for number in range(40)]
    told = read(
        base,
        'rsync: [sender] link_stat "/srv/tiles/z14" failed: No such file or directory (2)',
        *counted,
        "rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1394)",
    )
    assert told.root_cause is RootCause.MISSING_DATA
