"""Logs: JSON lines in a file, readable lines in the terminal, no secret in either."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog

from graph.errors import SettingsInvalid
from server.logs import open_logs


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_an_event_is_one_json_line_with_its_values_as_keys(tmp_path: Path) -> None:
    file = tmp_path / "logs" / "pipeline.log"

    with open_logs(file, terminal=None), structlog.contextvars.bound_contextvars(incident_id=7):
        structlog.get_logger("runner").info("fix_applied", attempt=1)

    (line,) = lines(file)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "fix_applied",
        "attempt": 1,
        "incident_id": 7,
        "level": "info",
        "logger": "runner",
    }


def test_the_terminal_reads_the_same_event(tmp_path: Path) -> None:
    terminal = io.StringIO()

    with open_logs(None, terminal=terminal):
        structlog.get_logger("runner").info("fix_applied", attempt=1)

    assert "fix_applied" in terminal.getvalue()
    assert "attempt=1" in terminal.getvalue()
    assert "\x1b" not in terminal.getvalue()


@pytest.mark.parametrize("library", [False, True], ids=["our own event", "a library's line"])
def test_secrets_are_removed_from_values_and_traces(tmp_path: Path, library: bool) -> None:
    file, terminal = tmp_path / "pipeline.log", io.StringIO()
    secret = "password=hunter2secret"

    with open_logs(file, terminal=terminal):
        try:
            raise ValueError(f"cannot connect with {secret}")
        except ValueError:
            if library:
                logging.getLogger("uvicorn.error").error("failed with %s", secret, exc_info=True)
            else:
                structlog.get_logger("api").exception("failed", said=[{"deep": secret}], text=secret)

    assert "ValueError" in file.read_text()
    assert "hunter2secret" not in file.read_text()
    assert "hunter2secret" not in terminal.getvalue()


def test_chatty_libraries_are_quiet(tmp_path: Path) -> None:
    file = tmp_path / "pipeline.log"

    with open_logs(file, terminal=None):
        logging.getLogger("httpx").info("HTTP Request: GET http://airflow?token=abc")
        logging.getLogger("httpx").warning("odd")

    assert [line["event"] for line in lines(file)] == ["odd"]


def test_everything_is_put_back_afterwards(tmp_path: Path) -> None:
    before = list(logging.getLogger().handlers), logging.getLogger().level

    with open_logs(tmp_path / "pipeline.log", terminal=None):
        pass

    assert (logging.getLogger().handlers, logging.getLogger().level) == before
    assert not structlog.is_configured()


def test_a_log_file_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        pytest.raises(SettingsInvalid, match=r"AIRMEDIC_LOG_FILE names .* cannot be written"),
        open_logs(tmp_path / "file" / "pipeline.log", terminal=None),
    ):
        pass


@pytest.mark.parametrize("hidden", ["\x1b[2J", "\x9b2J", "\x1b]0;x\x07"], ids=["screen", "in one", "title"])
def test_a_strangers_text_cannot_drive_the_terminal(tmp_path: Path, hidden: str) -> None:
    file, terminal = tmp_path / "pipeline.log", io.StringIO()

    with open_logs(file, terminal=terminal):
        structlog.get_logger("intake").warning(
            "rejected", dag_id=f"orders{hidden}", reason=f"no {hidden} such"
        )
        logging.getLogger("uvicorn.error").warning("GET /%s", hidden)
        try:
            raise ValueError(hidden)
        except ValueError:
            structlog.get_logger("runner").exception("failed")

    told = terminal.getvalue()
    assert "rejected" in told
    assert "ValueError" in told
    assert all(char.isprintable() or char in "\n\t" for char in told)
    assert lines(file)[0]["dag_id"] == f"orders{hidden}"
