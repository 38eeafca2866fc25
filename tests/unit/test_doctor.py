"""The doctor: every sickness has its finding, and every finding its advice."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cli import doctor
from cli.doctor import Finding, Level
from cli.main import app
from graph.errors import AirflowUnreachable, NotAuthenticated, NotPermitted
from server.db.database import open_database
from server.settings import known_names
from server.store import IncidentStore
from tests.factories import START
from tests.unit.serving import make_settings
from tools.airflow_memory import MemoryAirflow

HEALTH = {"metadatabase": {"status": "healthy"}, "scheduler": {"status": "healthy"}}


async def look(
    answer: httpx.Response | httpx.HTTPError, airflow: MemoryAirflow | None = None, *, heals: bool = True
) -> dict[str, Finding]:
    def respond(request: httpx.Request) -> httpx.Response:
        if isinstance(answer, httpx.HTTPError):
            raise answer
        return answer

    transport = httpx.MockTransport(respond)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow:8080") as http:
        found = doctor.check_airflow(http, airflow or MemoryAirflow(), heals=heals, now=lambda: START)
        return {finding.check: finding async for finding in found}


def healthy(*, apart: float = 0, **parts: Any) -> httpx.Response:
    date = format_datetime(START + timedelta(seconds=apart), usegmt=True)
    return httpx.Response(200, json={**HEALTH, **parts}, headers={"date": date})


async def test_a_healthy_airflow_has_only_one_thing_that_cannot_be_checked() -> None:
    airflow = MemoryAirflow()

    found = await look(healthy(), airflow)

    assert {name for name, finding in found.items() if finding.level is not Level.OK} == {"permissions"}
    assert {"airflow address", "clock", "credentials", "version", "permission: clear_task"} <= set(found)
    assert airflow.writes == []


@pytest.mark.parametrize(
    ("answer", "level", "advice"),
    [
        pytest.param(
            httpx.ConnectError("refused"), Level.FAIL, "check AIRMEDIC_AIRFLOW_URL", id="nobody there"
        ),
        pytest.param(
            httpx.ConnectError("[SSL] certificate"), Level.FAIL, "AIRMEDIC_AIRFLOW_CA_CERT", id="TLS"
        ),
        pytest.param(
            httpx.ConnectError("[Errno -2] Name or service not known"),
            Level.FAIL,
            "spelling",
            id="no such host",
        ),
        pytest.param(httpx.Response(404, json={}), Level.FAIL, "without /api/v2", id="not Airflow 3"),
        pytest.param(httpx.Response(200, text="<html>"), Level.FAIL, "sign-in page", id="a web page"),
        pytest.param(
            httpx.Response(502, text="bad gateway"), Level.FAIL, "proxy", id="a proxy without Airflow"
        ),
        pytest.param(healthy(scheduler={"status": "unhealthy"}), Level.WARN, "logs", id="a sick scheduler"),
    ],
)
async def test_an_address_that_does_not_serve(answer: Any, level: Level, advice: str) -> None:
    finding = (await look(answer))["airflow address"]

    assert finding.level is level
    assert advice in finding.todo


@pytest.mark.parametrize(
    ("apart", "level"),
    [
        pytest.param(20, Level.OK, id="in step"),
        pytest.param(-60, Level.WARN, id="a minute"),
        pytest.param(400, Level.FAIL, id="signatures would be refused"),
    ],
)
async def test_clocks_apart(apart: float, level: Level) -> None:
    assert (await look(healthy(apart=apart)))["clock"].level is level


async def test_an_airflow_without_a_date_leaves_the_clock_to_the_user() -> None:
    found = await look(httpx.Response(200, json=HEALTH))

    assert found["clock"].level is Level.WARN


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        pytest.param(NotAuthenticated("HTTP 401"), "AIRMEDIC_AIRFLOW_TOKEN", id="not accepted"),
        pytest.param(NotPermitted("HTTP 403"), "right to read", id="not allowed to read"),
        pytest.param(AirflowUnreachable("no answer"), "try again", id="no answer"),
    ],
)
async def test_credentials_that_do_not_serve(error: Any, advice: str) -> None:
    airflow = MemoryAirflow()
    airflow.fail_next("updates_since", error)

    found = await look(healthy(), airflow)

    assert found["credentials"].level is Level.FAIL
    assert advice in found["credentials"].todo
    assert "version" not in found


async def test_an_older_airflow_is_said() -> None:
    airflow = MemoryAirflow()
    airflow.status = airflow.status.model_copy(update={"version": "2.11.0"})

    assert (await look(healthy(), airflow))["version"].level is Level.FAIL


@pytest.mark.parametrize(
    ("verb", "action"),
    [
        ("clear_dry_run", "clear_task"),
        ("set_task_note", "add_note"),
        ("variable", "set_variable"),
        ("connection", "patch_connection"),
        ("pool", "set_pool_slots"),
    ],
)
async def test_a_missing_permission_names_the_action(verb: str, action: str) -> None:
    airflow = MemoryAirflow()
    airflow.fail_next(verb, NotPermitted("HTTP 403"))

    finding = (await look(healthy(), airflow))[f"permission: {action}"]

    assert finding.level is Level.FAIL
    assert action in finding.todo


async def test_in_shadow_mode_a_user_who_only_reads_will_do() -> None:
    airflow = MemoryAirflow()
    airflow.fail_next("clear_dry_run", NotPermitted("HTTP 403"))

    found = await look(healthy(), airflow, heals=False)

    assert found["permission: clear_task"].level is Level.WARN


async def findings(found: AsyncIterator[Finding]) -> dict[str, Finding]:
    return {finding.check: finding async for finding in found}


async def test_a_database_that_is_not_there_yet_is_not_made(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)

    found = await findings(doctor.check_database(settings))

    assert found["database"].level is Level.OK
    assert found["plugin"].level is Level.WARN
    assert os.listdir(tmp_path) == []


async def test_a_database_in_no_folder(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, database_url=f"sqlite:///{tmp_path}/none/airmedic.db")

    found = await findings(doctor.check_database(settings))

    assert found["database"].level is Level.FAIL


async def test_a_database_in_use_shows_the_plugin(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    async with open_database(settings.database_url) as engine:
        await IncidentStore(engine, clock=lambda: START).remember("seen_listener", START.isoformat())

    found = await findings(doctor.check_database(settings))

    assert found["database"].level is Level.OK
    assert "can be written" in found["database"].seen
    assert found["plugin"].seen == "last heard of at 2026-03-01T03:00:00 UTC"


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "airmedic.db").write_text("not a database at all, but some text\n" * 100)

    found = await findings(doctor.check_database(make_settings(tmp_path)))

    assert found["database"].level is Level.FAIL


@pytest.mark.parametrize(
    ("room", "level"),
    [
        pytest.param(5_000_000_000, Level.OK, id="enough"),
        pytest.param(500_000_000, Level.WARN, id="little"),
        pytest.param(1_000_000, Level.FAIL, id="none"),
    ],
)
def test_room_on_the_disk(tmp_path: Path, room: int, level: Level) -> None:
    (finding,) = doctor.check_disk(make_settings(tmp_path), free=lambda folder: room)

    assert finding.level is level


@pytest.mark.parametrize(
    ("given", "check", "level"),
    [
        pytest.param({"host": "0.0.0.0"}, "access", Level.FAIL, id="open to strangers"),
        pytest.param({}, "access", Level.WARN, id="no token"),
        pytest.param({"api_token": "short"}, "access", Level.WARN, id="a short token"),
        pytest.param({"api_token": "x" * 64}, "access", Level.OK, id="a token"),
        pytest.param({}, "webhook secret", Level.WARN, id="no secret"),
        pytest.param({"webhook_secret": "x" * 64}, "webhook secret", Level.OK, id="a secret"),
        pytest.param({"webhook_secret": "whsec_"}, "webhook secret", Level.FAIL, id="a prefix alone"),
        pytest.param({"webhook_secret": "x" * 64 + ",short"}, "webhook secret", Level.WARN, id="a short one"),
        pytest.param(
            {"webhook_secret": "x" * 64 + "," + "y" * 64}, "webhook secret", Level.WARN, id="rotating"
        ),
        pytest.param({}, "policy", Level.OK, id="the shipped policy"),
    ],
)
def test_what_the_settings_mean(tmp_path: Path, given: dict[str, str], check: str, level: Level) -> None:
    found = {one.check: one for one in doctor.check_settings(make_settings(tmp_path, **given))}

    assert found[check].level is level


@pytest.mark.parametrize(
    ("given", "level"),
    [
        pytest.param({}, Level.OK, id="none is needed"),
        pytest.param({"llm_model": "some"}, Level.FAIL, id="no key and no address"),
        pytest.param(
            {"llm_model": "some", "AIRMEDIC_LLM_BASE_URL": "http://127.0.0.1:1/v1"},
            Level.WARN,
            id="no answer",
        ),
    ],
)
async def test_a_language_model(tmp_path: Path, given: dict[str, str], level: Level) -> None:
    assert (await doctor.check_language(make_settings(tmp_path, **given))).level is level


def test_a_policy_file_with_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("rules: 3\n")

    found = doctor.check_settings(make_settings(tmp_path, policy=tmp_path / "policy.yaml"))

    (policy,) = [one for one in found if one.check == "policy"]
    assert policy.level is Level.FAIL


def test_the_command_ends_with_status_1_when_something_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in known_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AIRMEDIC_AIRFLOW_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AIRMEDIC_AIRFLOW_TOKEN", "t")
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["doctor"])

    assert done.exit_code == 1
    assert "fail   airflow address: no answer" in done.stdout
    assert "check AIRMEDIC_AIRFLOW_URL" in done.stdout
    assert "1 wrong" in done.stdout


def test_the_command_says_which_settings_are_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in known_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)

    done = CliRunner().invoke(app, ["doctor"])

    assert done.exit_code == 2
    assert "AIRMEDIC_AIRFLOW_URL must be set" in done.stdout
