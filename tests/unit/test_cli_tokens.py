"""`airmedic token`, before any server runs and beside one."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.tokens import life_of
from graph.domain import Role
from graph.errors import SettingsInvalid, TokenInvalid
from server.access.entry import check_exposure_with_tokens
from server.access.tokens import is_token
from server.settings import known_names
from tests.unit.serving import make_settings


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is set but where the database is: no Airflow is needed for this."""
    for name in known_names():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRMEDIC_DATABASE_URL", f"sqlite:///{tmp_path / 'airmedic.db'}")
    monkeypatch.setenv("COLUMNS", "200")


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["token", *words])


def test_a_token_is_shown_once_alone_on_standard_output() -> None:
    made = run("create", "--name", "ada", "--role", "admin")

    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    assert is_token(token)
    assert "ada is admin; expires" in made.stderr
    listed = run("list").stdout
    assert token not in listed
    assert token[:10] in listed
    for word in ("ada", "admin", "valid", "never"):
        assert word in listed


def test_a_token_is_revoked_by_its_name() -> None:
    run("create", "--name", "ada", "--role", "viewer", "--expires", "never")

    assert "is revoked" in run("revoke", "ada").stdout
    assert "revoked" in run("list").stdout
    again = run("revoke", "ada")

    assert again.exit_code == 2
    assert "no token in force is called 'ada'" in again.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        pytest.param(("--name", "a b", "--role", "admin"), "cannot be a token's name", id="a name"),
        pytest.param(("--name", "a", "--role", "boss"), "'boss' is not one of", id="a role"),
        pytest.param(("--name", "a", "--role", "admin", "--expires", "soon"), "write 90d", id="an end"),
        pytest.param(("--role", "admin"), "--name", id="no name"),
    ],
)
def test_a_mistake_is_a_sentence(words: tuple[str, ...], sentence: str) -> None:
    done = run("create", *words)

    assert done.exit_code == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.output
    assert "no tokens" in run("list").stdout


def test_a_database_that_is_none_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRMEDIC_DATABASE_URL", "mysql://x")

    done = run("list")

    assert done.exit_code == 2
    assert "AIRMEDIC_DATABASE_URL must start with" in done.stderr


@pytest.mark.parametrize(
    ("spelled", "life"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("never", None),
    ],
)
def test_how_long_a_token_lives(spelled: str, life: timedelta | None) -> None:
    assert life_of(spelled) == life


@pytest.mark.parametrize("spelled", ["", "0d", "-1d", "1w", "90", "d", "1.5h"])
def test_what_is_no_time(spelled: str) -> None:
    with pytest.raises(TokenInvalid):
        life_of(spelled)


@pytest.mark.parametrize(
    ("steps", "opens"),
    [
        pytest.param((), False, id="no token"),
        pytest.param((("create", "--name", "ada", "--role", "admin"),), True, id="a token"),
        pytest.param(
            (("create", "--name", "ada", "--role", "admin"), ("revoke", "ada")), False, id="a revoked one"
        ),
    ],
)
async def test_strangers_may_reach_a_server_with_a_token_in_force(
    tmp_path: Path, steps: tuple[tuple[str, ...], ...], opens: bool
) -> None:
    for step in steps:
        done = await asyncio.to_thread(run, *step)
        assert done.exit_code == 0, done.output
    settings = make_settings(tmp_path, host="0.0.0.0", webhook_secret="s" * 32)

    if opens:
        await check_exposure_with_tokens(settings)
    else:
        with pytest.raises(SettingsInvalid, match="airmedic token create"):
            await check_exposure_with_tokens(settings)


def test_roles_are_the_three() -> None:
    assert [role.value for role in Role] == ["viewer", "operator", "admin"]
    assert Role.ADMIN.includes(Role.OPERATOR)
    assert Role.OPERATOR.includes(Role.OPERATOR)
    assert not Role.VIEWER.includes(Role.OPERATOR)
