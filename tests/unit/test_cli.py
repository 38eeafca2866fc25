"""The command itself: quick help, sentences for wrong settings, a real server that starts and stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cli.incidents import STATUSES
from cli.main import SUB_APPS, app
from graph.domain import Status
from server.settings import known_names

HEAVY = ("langgraph", "fastapi", "sqlalchemy", "uvicorn", "httpx", "pydantic", "airflow_client")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """No AIRMEDIC_* settings, and a folder of our own."""
    for name in known_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("serve", "doctor", "incidents", "show", "approve", "reject"):
        assert command in done.stdout


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({}, "AIRMEDIC_AIRFLOW_URL must be set", id="nothing is set"),
        pytest.param(
            {"AIRMEDIC_AIRFLOW_URL": "http://a", "AIRMEDIC_PROT": "1"}, "did you mean", id="a wrong name"
        ),
        pytest.param(
            {"AIRMEDIC_AIRFLOW_URL": "http://a", "AIRMEDIC_AIRFLOW_TOKEN": "t", "AIRMEDIC_HOST": "0.0.0.0"},
            "set AIRMEDIC_API_TOKEN and AIRMEDIC_WEBHOOK_SECRET first",
            id="open to strangers",
        ),
        pytest.param(
            {"AIRMEDIC_AIRFLOW_URL": "http://a", "AIRMEDIC_AIRFLOW_TOKEN": "t", "AIRMEDIC_DATABASE_URL": "x"},
            "AIRMEDIC_DATABASE_URL must start with",
            id="no database",
        ),
    ],
)
def test_serve_with_wrong_settings_ends_with_the_sentence(
    bare: pytest.MonkeyPatch, settings: dict[str, str], sentence: str
) -> None:
    for name, value in settings.items():
        bare.setenv(name, value)

    done = CliRunner().invoke(app, ["serve", "--port", "0"])

    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.output


@pytest.mark.parametrize("name", [name for name, _, _ in SUB_APPS])
def test_every_listed_command_exists(name: str) -> None:
    done = CliRunner().invoke(app, [name, "--help"])

    assert done.exit_code == 0, done.output
    assert f"airmedic {name}" in done.stdout


def test_a_command_of_no_server_says_so(bare: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["incidents", "--url", "http://127.0.0.1:1"])

    assert done.exit_code == 1
    assert "no Airmedic answers at http://127.0.0.1:1" in done.stderr
    assert "airmedic serve" in done.stderr


def test_an_address_that_is_none_is_named(bare: pytest.MonkeyPatch) -> None:
    done = CliRunner().invoke(app, ["show", "1", "--url", "localhost"])

    assert done.exit_code == 1
    assert "must start with http://" in done.stderr


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_serve_runs_until_a_signal_and_closes_what_it_opened(tmp_path: Path, ending: signal.Signals) -> None:
    """Without an Airflow: the service starts, says so, is alive, and ends with status 0."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRMEDIC_")}
    environment |= {"AIRMEDIC_AIRFLOW_URL": "http://127.0.0.1:1", "AIRMEDIC_AIRFLOW_TOKEN": "t"}
    serving = subprocess.Popen(
        [sys.executable, "-c", "from cli.main import app; app()", "serve", "--port", "0"],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert serving.stdout is not None
        address = serving.stdout.readline().split()[2]
        said = [serving.stdout.readline() for _ in range(2)]
        assert _get(address + "/healthz").status_code == 200
    finally:
        serving.send_signal(ending)
        rest, errors = serving.communicate(timeout=30)
    assert serving.returncode == 0, errors
    assert "shadow mode" in "".join(said) + rest
    assert "Traceback" not in errors
    assert (tmp_path / "logs" / "pipeline.log").read_text().splitlines()[-1].count('"stopped"') == 1


def _get(url: str) -> httpx.Response:
    for _ in range(100):
        try:
            return httpx.get(url, timeout=10)
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def test_the_benches_are_listed_and_each_tells_its_options(capfd: pytest.CaptureFixture[str]) -> None:
    every = CliRunner().invoke(app, ["bench", "--help"])
    one = CliRunner().invoke(app, ["bench", "redaction", "--help"])

    assert (every.exit_code, one.exit_code) == (0, 0)
    assert "takeover" in every.output
    assert "--megabytes" in capfd.readouterr().out


def test_help_names_the_statuses_one_may_ask_for() -> None:
    assert STATUSES.split(", ") == [status.value for status in Status]
    assert "waiting_decision" in CliRunner().invoke(app, ["incidents", "--help"]).output
