"""Reading logs: lines, chains, the end that failed, and nothing that makes it fall over."""

from __future__ import annotations

import random
import time

import pytest

from graph.domain import TaskLog
from tools import evidence
from tools.evidence_lines import BLOCK, CHUNK, HEAD_LINES, HOT_LINES, TAIL_LINES, clean, excerpt_of

AIRFLOW_3 = """::group::Log message source details
::endgroup::
[2026-03-02T04:10:01.120000Z] INFO - ::group::Pre Execute
[2026-03-02T04:10:02.000000Z] INFO - ::endgroup::
[2026-03-02T04:10:03.000000Z] INFO - loading orders
[2026-03-02T04:10:04.000000Z] ERROR - Task failed with exception
Traceback (most recent call last):
  File "/opt/airflow/dags/orders.py", line 12, in load
  File "/opt/airflow/venv/lib/python3.11/site-packages/psycopg/cursor.py", line 97, in execute
LoadFailed: could not load
second line of the message
Traceback (most recent call last):
  File "/opt/airflow/dags/orders.py", line 9, in insert
UniqueViolation: duplicate key value
[2026-03-02T04:10:04.100000Z] INFO - ::group::Post Execute"""

NATIVE = """Traceback (most recent call last):
  File "/srv/etl/job.py", line 3, in read
    return rows["id"]
KeyError: 'id'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/etl/job.py", line 9, in main
    raise RuntimeError("no rows")
RuntimeError: no rows"""

JAVA = """Exception in thread "main" org.apache.spark.SparkException: Job aborted
\tat org.apache.spark.Main.run(Main.scala:1)
Caused by: java.net.ConnectException: Connection refused
\tat java.net.Socket.connect(Socket.java:1)
\t... 12 more"""


def read(text: str) -> evidence.Evidence:
    return evidence.read(TaskLog(text=text))


@pytest.mark.parametrize(
    ("text", "outermost", "innermost"),
    [
        pytest.param(AIRFLOW_3, "LoadFailed", "UniqueViolation", id="Airflow 3 prints the outermost first"),
        pytest.param(NATIVE, "RuntimeError", "KeyError", id="Python prints the innermost first"),
        pytest.param(JAVA, "SparkException", "ConnectException", id="Java's causes follow"),
    ],
)
def test_chains_are_ordered(text: str, outermost: str, innermost: str) -> None:
    chain = read(text).chain
    assert chain is not None
    assert [chain.raised[0].short, chain.raised[-1].short] == [outermost, innermost]


def test_a_message_may_span_lines() -> None:
    chain = read(AIRFLOW_3).chain
    assert chain is not None
    assert chain.raised[0].message == "could not load\nsecond line of the message"


def test_the_users_frame_is_not_a_librarys() -> None:
    frame = read(AIRFLOW_3).user_frame
    assert frame is not None
    assert (frame.file, frame.line) == ("/opt/airflow/dags/orders.py", 9)


@pytest.mark.parametrize(
    ("raw", "level", "text"),
    [
        pytest.param("[2026-03-02T04:10:03.0Z] INFO - hello", "info", "hello", id="Airflow 3"),
        pytest.param("[2024-05-06, 03:00:01 UTC] {x.py:7} ERROR - bad", "error", "bad", id="Airflow 2"),
        pytest.param("[2019-05-06 03:00:01,123] {{x.py:7}} WARNING - hm", "warning", "hm", id="Airflow 1.10"),
        pytest.param("26/03/02 04:10:01 WARN Task: lost", "warning", "WARN Task: lost", id="Spark"),
        pytest.param(
            "E0302 04:10:01.1 1 x.go:5] down", "error", "E0302 04:10:01.1 1 x.go:5] down", id="klog"
        ),
        pytest.param("\x1b[31mERROR\x1b[0m: no", "error", "ERROR: no", id="colours go"),
        pytest.param('{"level": "error", "msg": "x"}', "error", '{"level": "error", "msg": "x"}', id="JSON"),
        pytest.param("plain words", "", "plain words", id="no level"),
    ],
)
def test_prefixes_and_levels(raw: str, level: str, text: str) -> None:
    line = clean(1, raw)
    assert (line.level, line.text) == (level, text)


def test_what_recovered_weighs_little() -> None:
    text = "\n".join(
        [
            "[2026-03-02T04:10:01.0Z] WARNING - connection refused, retrying in 2s",
            "[2026-03-02T04:10:03.0Z] INFO - connected",
            "[2026-03-02T04:10:04.0Z] ERROR - column region not found",
        ]
    )
    weights = {piece.line: piece.weight for piece in read(text).pieces}
    assert weights[1] < 0.4 < weights[3]


@pytest.mark.parametrize(
    "words",
    [
        "rebuilding",
        "using default",
        "skipping",
        "ignored",
        "falling back to the local copy",
        "continuing without it",
        "will be recreated",
        "estimating",
        "now replacing it with zero",
    ],
)
def test_a_complaint_that_says_what_was_done_instead_is_worth_little(words: str) -> None:
    lines = (f"cache: permission denied reading lookup.pkl, {words}", "cache: permission denied, exiting")
    pieces = read("\n".join(f"[2026-03-02T04:10:03.000000Z] INFO - {line}" for line in lines)).pieces
    dealt_with, gave_up = (piece.weight for piece in pieces)
    assert dealt_with <= 0.2
    assert gave_up >= 0.7


@pytest.mark.parametrize(
    "stack",
    [
        pytest.param([f"    from /usr/lib/ruby/json.rb:{n}:in `parse'" for n in range(20)], id="Ruby"),
        pytest.param(
            [
                "    at Object.open (node:fs:600:10)",
                "  errno: -2,",
                "  code: 'ENOENT'",
                "}",
                "Node.js v20.1.0",
            ]
            * 5,
            id="Node",
        ),
        pytest.param(["   1: core::panicking::panic_fmt", "stack backtrace:"] * 10, id="Rust"),
    ],
)
def test_a_stack_is_no_work_that_went_on(stack: list[str]) -> None:
    said = ["Error: unexpected token at '{'", *stack, "Command exited with return code 1"]
    piece = read("\n".join(f"[2026-03-02T04:10:03.000000Z] INFO - {line}" for line in said)).pieces[0]
    assert piece.near
    assert piece.after == 0
    assert piece.weight >= 0.7


def test_exit_codes_stand_in_the_structure_only() -> None:
    event = "Task exited"
    log = TaskLog(
        text="[2026-03-02T04:10:04.0Z] ERROR - Task exited",
        content=({"event": event, "level": "error", "exit_code": 137},),
    )
    found = evidence.read(log)
    assert any("exit_code=137" in piece.text and piece.line == 1 for piece in found.pieces)


def test_notes_and_groups_join_their_exception() -> None:
    detail = {
        "exc_type": "ExceptionGroup",
        "exc_value": "two failed",
        "exc_notes": ["shard 7"],
        "frames": [],
        "exceptions": [[{"exc_type": "ValueError", "exc_value": "bad date"}]],
    }
    log = TaskLog(
        text="[2026-03-02T04:10:04.0Z] ERROR - Task failed with exception\nExceptionGroup: two failed",
        content=({"event": "Task failed with exception", "error_detail": [detail]},),
    )
    text = "\n".join(piece.text for piece in evidence.read(log).pieces if piece.raised)
    assert "shard 7" in text
    assert "ValueError: bad date" in text


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(random.Random(3).randbytes(300_000), id="noise"),
        pytest.param(b"x" * (3 * CHUNK) + b"\nlast", id="an endless line"),
        pytest.param("Ошибка: нет места\n连接被拒绝\n".encode() * 50, id="other languages"),
        pytest.param(b"\xff\xfe" + "Fehler\r\n".encode("utf-16-le"), id="mixed encodings"),
        pytest.param(b"", id="empty"),
        pytest.param(b"[" * 5_000 + b"{" * 5_000, id="brackets"),
    ],
)
def test_no_bytes_make_it_fall_over(data: bytes) -> None:
    text = excerpt_of([data[i : i + CHUNK] for i in range(0, len(data), CHUNK)])
    evidence.read(TaskLog(text=text))


def test_line_numbers_survive_streaming() -> None:
    lines = [f"row {n}" for n in range(1, 60_001)]
    lines[30_000] = "ERROR: disk full"
    data = "\n".join(lines).encode()
    text = excerpt_of([data[:1_000], data[1_000:]])
    assert text.split("\n")[30_000] == "ERROR: disk full"
    assert text.split("\n")[-1] == "row 60000"
    assert text.split("\n")[20_000] == ""


@pytest.mark.parametrize("every", [2, 7, 40])
@pytest.mark.parametrize("size", [977, BLOCK, CHUNK])
def test_of_a_long_log_head_tail_and_the_newest_complaints_are_kept(every: int, size: int) -> None:
    lines = [f"row {n} {'timed out' if n % every == 0 else 'written'}" for n in range(1, 12_001)]
    data = "\n".join(lines).encode()

    kept = excerpt_of(data[i : i + size] for i in range(0, len(data), size)).split("\n")

    hot = [n for n in range(1, 12_001) if n % every == 0][-HOT_LINES:]
    wanted = {*range(1, HEAD_LINES + 1), *hot, *range(12_001 - TAIL_LINES, 12_001)}
    assert {number: text for number, text in enumerate(kept, 1) if text} == {
        number: lines[number - 1] for number in wanted
    }


@pytest.mark.parametrize("unit", ["-", "= ", "a.", "[", "A(", "1/", ": ", "not ", "'a' "])
def test_no_line_takes_long(unit: str) -> None:
    """A ruler of dashes fits every part of a prefix; reading it must stay linear."""
    begin = time.perf_counter()

    evidence.read(TaskLog(text="\n".join([f"[2026-03-02T04:10:04Z] INFO - {(unit * 3_000)[:3_000]}"] * 3)))

    assert time.perf_counter() - begin < 2
