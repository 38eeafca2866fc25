"""A program that fails without a word, and what its exit status says."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph.domain import Diagnosis, RootCause, TaskLog
from graph.errors import KnowledgeInvalid
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def bash(script: str, status: int, *printed: str) -> str:
    said = [
        f"Running command: {['/usr/bin/bash', '-c', script]!r}",
        "Output:",
        *printed,
        f"Command exited with return code {status}",
    ]
    return "\n".join(
        [
            *(f"{STAMP} INFO - {line}" for line in said),
            f"{STAMP} ERROR - Task failed with exception",
            "Traceback (most recent call last):",
            '  File "/opt/airflow/venv/airflow/providers/standard/operators/bash.py", line 227, in execute',
            f"AirflowException: Bash command failed. The command returned a non-zero exit code {status}.",
        ]
    )


def called(command: str, status: int) -> str:
    return "\n".join(
        [
            f"{STAMP} INFO - asking for the rates of the day",
            f"{STAMP} ERROR - Task failed with exception",
            "Traceback (most recent call last):",
            '  File "/opt/airflow/dags/rates.py", line 12, in fetch',
            "    subprocess.run(command, check=True)",
            f"subprocess.CalledProcessError: Command {command} returned non-zero exit status {status}.",
        ]
    )


def read(base: KnowledgeBase, log: str) -> Diagnosis:
    return base.diagnose(Case(log=TaskLog(text=log)))


@pytest.mark.parametrize(
    ("log", "cause", "transient"),
    [
        pytest.param(
            bash("curl -sf https://a.test/x -o x", 6), RootCause.NETWORK_UNREACHABLE, True, id="curl"
        ),
        pytest.param(bash("curl -s https://a.test/x -o x", 60), RootCause.TLS_ERROR, False, id="certificate"),
        pytest.param(bash("curl -s -m 5 https://a.test/x", 28), RootCause.TIMEOUT, True, id="its own limit"),
        pytest.param(bash("wget -q ftp://a.test/x", 6), RootCause.AUTHENTICATION_FAILED, False, id="wget"),
        pytest.param(
            bash("set -euo pipefail\ncd /srv && A=1 sudo -n /usr/bin/curl -s https://a.test | jq .", 7),
            RootCause.NETWORK_UNREACHABLE,
            True,
            id="within a script",
        ),
        pytest.param(
            bash("/srv/jobs/fetch.sh", 35, "+ mkdir -p out", "+ curl -s https://a.test/x"),
            RootCause.TLS_ERROR,
            False,
            id="the last command that was traced",
        ),
        pytest.param(
            called("'['rsync', '-a', 'a/', 'b::c']'", 30), RootCause.TIMEOUT, True, id="called from Python"
        ),
        pytest.param(
            called("'restic backup /srv'", 11), RootCause.LOCK_CONTENTION, True, id="a shell's text"
        ),
        pytest.param(bash("/srv/jobs/close", 126), RootCause.PERMISSION_DENIED, False, id="not executable"),
        pytest.param(bash("/srv/jobs/close", 75), RootCause.UPSTREAM_UNAVAILABLE, True, id="sysexits.h"),
    ],
)
def test_the_status_of_a_silent_program_is_read(
    base: KnowledgeBase, log: str, cause: RootCause, transient: bool
) -> None:
    told = read(base, log)
    assert (told.root_cause, told.transient) == (cause, transient)
    assert told.evidence


@pytest.mark.parametrize(
    "log",
    [
        pytest.param(bash("/srv/jobs/close --month 10", 7), id="a program nobody knows"),
        pytest.param(bash("curl -s https://a.test/x", 1000), id="no status"),
        pytest.param(bash("python load.py && rclone sync a b", 5), id="could be the other program's"),
        pytest.param(bash("curl -s https://a.test/x -o x", 22), id="an answer that may be any"),
        pytest.param(bash("echo 'curl -s https://a.test'; /srv/jobs/close", 6), id="a name in quotes"),
    ],
)
def test_a_status_that_says_nothing_is_left_alone(base: KnowledgeBase, log: str) -> None:
    assert read(base, log).root_cause in (RootCause.EXTERNAL_JOB_FAILED, RootCause.UNKNOWN)


def test_what_the_program_printed_goes_before_its_status(base: KnowledgeBase) -> None:
    told = read(base, bash("/srv/jobs/close", 77, "could not connect to server: Connection refused"))
    assert told.root_cause is RootCause.NETWORK_UNREACHABLE


def test_a_status_is_told_of_by_program_and_meaning(base: KnowledgeBase) -> None:
    assert "exit status 6 of curl: a name could not be resolved" in read(base, bash("curl -s a", 6)).summary


def test_own_programs_come_on_top(tmp_path: Path) -> None:
    own = "programs:\n  close: [{status: [7], cause: lock_contention, says: the ledger is being closed}]\n"
    (tmp_path / "_exit_statuses.yaml").write_text(own, "utf-8")
    told = read(KnowledgeBase.load(tmp_path), bash("/srv/jobs/close", 7))
    assert (told.root_cause, told.transient) == (RootCause.LOCK_CONTENTION, True)


def test_own_programs_that_are_wrong_stop_the_start(tmp_path: Path) -> None:
    (tmp_path / "_exit_statuses.yaml").write_text("programs:\n  close: [{status: [], cause: x}]\n", "utf-8")
    with pytest.raises(KnowledgeInvalid, match=r"_exit_statuses\.yaml"):
        KnowledgeBase.load(tmp_path)


def test_a_message_goes_on_in_the_indented_line_below(base: KnowledgeBase) -> None:
    said = ('Error in read.csv("orders.csv") : ', "  no lines available in input", "Execution halted")
    assert read(base, bash("Rscript load.R", 1, *said)).root_cause is RootCause.MISSING_DATA


def test_a_script_tells_of_the_program_and_its_status(base: KnowledgeBase) -> None:
    told = read(
        base,
        bash("/srv/jobs/people.sh", 1, "adding 40 entries", "people: ldapadd rc=68, 38 entries in the tree"),
    )
    assert told.root_cause is RootCause.CONSTRAINT_VIOLATION


def test_a_command_written_by_a_stranger_takes_no_time(base: KnowledgeBase) -> None:
    for told in ("[" * 3_900, "[" + "-" * 3_900 + "1]", "'" * 3_900, "a." * 1_900, "[" + "'\\" * 1_900 + "]"):
        log = bash("true", 7, *(f"Running command: {told}" for _ in range(20)), told)
        assert read(base, log).root_cause in (RootCause.EXTERNAL_JOB_FAILED, RootCause.UNKNOWN)


def test_a_program_that_spoke_up_by_its_own_name_is_known_behind_a_script(base: KnowledgeBase) -> None:
    slow = "curl: (28) Operation too slow. Less than 20000 bytes/sec transferred the last 5 seconds"
    told = read(
        base, bash("bash /srv/jobs/fetch.sh", 28, slow, "stock.csv: 30066 lines", "last line complete")
    )
    assert (told.root_cause, told.transient) == (RootCause.TIMEOUT, True)
    other = read(base, bash("bash /srv/jobs/fetch.sh", 28, "curl: slow today", "rsync: sent 4 files"))
    assert other.root_cause is not RootCause.TIMEOUT


def test_a_status_that_was_got_over_is_no_cause(base: KnowledgeBase) -> None:
    said = ("fetching from mirror 1", "curl rc=28, next mirror", "fetched from mirror 2", "closing the month")
    told = read(base, bash("/srv/jobs/close.sh", 1, *said))
    assert told.root_cause in (RootCause.EXTERNAL_JOB_FAILED, RootCause.UNKNOWN)
