"""`airmedic diagnose`: any log, from a file or a pipe, without Airflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app

REFUSED = "psycopg2.OperationalError: connection to server failed: Connection refused"


def diagnose(*args: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["diagnose", *args], input=text)


def test_a_log_is_read_from_a_file_and_from_a_pipe(tmp_path: Path) -> None:
    file = tmp_path / "task.log"
    file.write_text(f"starting\n{REFUSED}\n")

    from_file, from_pipe = diagnose(str(file)), diagnose("-", text=file.read_text())

    assert from_file.exit_code == 0, from_file.output
    assert from_file.stdout == from_pipe.stdout
    assert from_file.stdout.startswith("network_unreachable")
    assert "       2  psycopg2.OperationalError" in from_file.stdout


def test_for_machines_it_is_one_object() -> None:
    found = json.loads(diagnose("-", "--json", text=REFUSED).stdout)

    assert found["root_cause"] == "network_unreachable"
    assert found["transient"] is True


def test_secrets_are_not_printed() -> None:
    for args in ((), ("--json",)):
        done = diagnose("-", *args, text=f"dsn=postgresql://etl:hunter2secret@db.example/x\n{REFUSED}\n")

        assert done.exit_code == 0, done.output
        assert "hunter2secret" not in done.output


@pytest.mark.parametrize(
    "hidden",
    [
        pytest.param("\x1b[2J", id="clears the screen"),
        pytest.param("\x1b]52;c;YWJj\x07", id="fills the clipboard"),
        pytest.param("\x9b2J", id="the same in one character"),
        pytest.param("\u202e", id="turns the direction of text"),
    ],
)
def test_text_from_logs_cannot_drive_the_terminal(hidden: str) -> None:
    done = diagnose(
        "-", text=f'  File "/dags/{hidden}x.py", line 3, in f\n{REFUSED} {hidden} [bold]x[/bold]\n'
    )

    assert done.exit_code == 0, done.output
    assert "[bold]x[/bold]" in done.stdout
    assert not set(hidden[:1]) & set(done.stdout)
    assert all(char.isprintable() or char == "\n" for char in done.stdout)


@pytest.mark.parametrize("text", ["", "\n\n", "all is well\n"], ids=["empty", "blank", "no failure"])
def test_a_log_that_does_not_say_is_unknown(text: str) -> None:
    done = diagnose("-", text=text)

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("unknown")


def test_bytes_that_are_no_text_are_read_all_the_same() -> None:
    done = diagnose("-", text=b"\xff\xfe\x00 garbage\n" + REFUSED.encode())

    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("network_unreachable")


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        pytest.param(("no-such.log",), "no-such.log: No such file", id="no file"),
        pytest.param((".",), ".: Is a directory", id="a folder"),
        pytest.param(("-", "--knowledge", "no-such"), "no-such", id="no knowledge"),
    ],
)
def test_a_mistake_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, args: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)

    done = diagnose(*args, text="")

    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.output
