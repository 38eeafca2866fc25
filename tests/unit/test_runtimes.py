"""What scripts in other languages and programs in other tongues print, by cause."""

from __future__ import annotations

import pytest

from graph.domain import RootCause, TaskLog
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase

STAMP = "[2026-03-02T04:10:04.000000Z]"


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def child(*lines: str) -> TaskLog:
    said = [f"{STAMP} INFO - {line}" for line in (*lines, "Command exited with return code 1")]
    wrapper = "AirflowException: Bash command failed. The command returned a non-zero exit code 1."
    return TaskLog(text="\n".join([*said, f"{STAMP} ERROR - Task failed with exception", wrapper]))


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        pytest.param("Undefined subroutine &main::load_rows called", RootCause.CODE_ERROR, id="perl"),
        pytest.param(
            "undefined method `total' for nil:NilClass (NoMethodError)", RootCause.CODE_ERROR, id="ruby"
        ),
        pytest.param('Error in f(x) : could not find function "g"', RootCause.CODE_ERROR, id="R"),
        pytest.param("./main.go:12:2: undefined: loadRows", RootCause.CODE_ERROR, id="go"),
        pytest.param(
            "ReferenceError: Cannot access 'x' before initialization", RootCause.CODE_ERROR, id="node"
        ),
        pytest.param("PHP Parse error:  syntax error, unexpected token", RootCause.CODE_ERROR, id="php"),
        pytest.param(
            'load.sh: line 4: 5 / 0: division by 0 (error token is "0")',
            RootCause.CODE_ERROR,
            id="shell arithmetic",
        ),
        pytest.param(
            "java.lang.NoClassDefFoundError: org/acme/Producer", RootCause.DEPENDENCY_ERROR, id="java"
        ),
        pytest.param(
            "X: The term 'X' is not recognized as a name of a cmdlet",
            RootCause.DEPENDENCY_ERROR,
            id="powershell",
        ),
        pytest.param(
            'Argument "12,5" isn\'t numeric in addition (+)', RootCause.TYPE_MISMATCH, id="perl's value"
        ),
        pytest.param("load.rb: invalid date (Date::Error)", RootCause.TYPE_MISMATCH, id="ruby's value"),
        pytest.param(
            "FEHLER:  ungültige Eingabesyntax für Typ integer", RootCause.TYPE_MISMATCH, id="German"
        ),
        pytest.param("FATAL:  trop de clients connectés", RootCause.RATE_LIMITED, id="French"),
        pytest.param("cp: espacio insuficiente en disco", RootCause.STORAGE_EXHAUSTED, id="Spanish"),
        pytest.param("エラー: 認証に失敗しました", RootCause.AUTHENTICATION_FAILED, id="Japanese"),
        pytest.param(
            "ORA-12520: TNS:listener could not find available handler",
            RootCause.CAPACITY_UNAVAILABLE,
            id="a listener without handlers",
        ),
        pytest.param(
            "Worker tcp://127.0.0.1:4 exceeded 95% memory budget",
            RootCause.OUT_OF_MEMORY,
            id="a worker's budget",
        ),
        pytest.param(
            "CUDA error: all CUDA-capable devices are busy", RootCause.CAPACITY_UNAVAILABLE, id="busy devices"
        ),
        pytest.param(
            "agent-3 went offline; agent went offline during the build",
            RootCause.WORKER_LOST,
            id="an agent that left",
        ),
    ],
)
def test_a_program_s_message_names_the_cause(base: KnowledgeBase, said: str, cause: RootCause) -> None:
    assert base.diagnose(Case(log=child(said))).root_cause is cause


@pytest.mark.parametrize(
    "said",
    [
        "batch 10: 500 rows read",
        "GET /orders?page=500 -> 200",
        "took 503 ms",
        "disk usage 45%",
        "queue depth 0",
    ],
)
def test_progress_says_nothing(base: KnowledgeBase, said: str) -> None:
    log = TaskLog(text=f"{STAMP} INFO - {said}\n{STAMP} WARNING - Process exited abnormally exit_code=1")

    assert base.diagnose(Case(log=log)).root_cause is RootCause.UNKNOWN
