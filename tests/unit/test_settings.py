"""Settings: a sentence for every mistake, and one example file that knows them all."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import certifi
import pytest

from graph.errors import SettingsInvalid
from server.settings import Settings, known_names, load_settings

EXAMPLE = Path(__file__).parents[2] / ".env.example"
NEEDED = {"AIRMEDIC_AIRFLOW_URL": "http://localhost:8080", "AIRMEDIC_AIRFLOW_TOKEN": "token-of-airflow"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment with what must be set and nothing else, in a folder without a `.env`."""
    for name in known_names() | {"AIRFLOW_API_URL", "AIRFLOW_BASE_URL", "OPENAI_API_KEY", "OPENAI_BASE_URL"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in NEEDED.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    return monkeypatch


def test_an_address_and_a_token_are_enough(environment: pytest.MonkeyPatch) -> None:
    settings = load_settings()

    assert settings.healing == "shadow"
    assert settings.host == "127.0.0.1"
    assert settings.approval_timeout == timedelta(hours=12)
    assert "token-of-airflow" not in repr(settings)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        pytest.param("AIRMEDIC_AIRFLOW_URL", None, "AIRMEDIC_AIRFLOW_URL must be set", id="no address"),
        pytest.param("AIRMEDIC_AIRFLOW_URL", "here", "AIRMEDIC_AIRFLOW_URL is wrong", id="no URL"),
        pytest.param("AIRMEDIC_AIRFLOW_TOKEN", None, "AIRMEDIC_AIRFLOW_TOKEN, or", id="no credentials"),
        pytest.param("AIRMEDIC_HEALING", "yes", "AIRMEDIC_HEALING is wrong", id="no such mode"),
        pytest.param("AIRMEDIC_PORT", "90000", "AIRMEDIC_PORT is wrong", id="no such port"),
        pytest.param("AIRMEDIC_POLICY", "gone.yaml", "AIRMEDIC_POLICY names 'gone.yaml'", id="no such file"),
        pytest.param("AIRMEDIC_HEALIN", "on", "did you mean AIRMEDIC_HEALING", id="a misspelled name"),
        pytest.param(
            "AIRMEDIC_WATCH_WINDOW", "soon", "WATCH_WINDOW is wrong: write PT10M, or 600", id="no duration"
        ),
        pytest.param(
            "AIRMEDIC_KEEP_INCIDENTS", "-P1D", "AIRMEDIC_KEEP_INCIDENTS is wrong", id="less than none"
        ),
        pytest.param("AIRMEDIC_POLL_INTERVAL", "0", "AIRMEDIC_POLL_INTERVAL is wrong", id="without a pause"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_a_sentence(
    environment: pytest.MonkeyPatch, name: str, value: str | None, sentence: str
) -> None:
    if value is None:
        environment.delenv(name)
    else:
        environment.setenv(name, value)

    with pytest.raises(SettingsInvalid, match=sentence):
        load_settings()


@pytest.mark.parametrize(("spelled", "meant"), [("90", 90), ("1.5", 1.5), ("86400", 86400), ("PT2M", 120)])
def test_a_duration_is_iso_8601_or_seconds(
    environment: pytest.MonkeyPatch, spelled: str, meant: float
) -> None:
    environment.setenv("AIRMEDIC_POLL_INTERVAL", spelled)

    assert load_settings().poll_interval == timedelta(seconds=meant)


def test_a_misspelled_name_in_the_env_file_stops_the_start_too(
    environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("AIRMEDIC_HEALIN=on\n")

    with pytest.raises(SettingsInvalid, match="did you mean AIRMEDIC_HEALING"):
        load_settings()


@pytest.mark.parametrize("found", [None, "no certificate"])
def test_a_ca_file_that_holds_no_certificate_stops_the_start_with_a_sentence(
    environment: pytest.MonkeyPatch, tmp_path: Path, found: str | None
) -> None:
    if found is not None:
        (tmp_path / "ca.pem").write_text(found)
    environment.setenv("AIRMEDIC_AIRFLOW_CA_CERT", "ca.pem")

    with pytest.raises(SettingsInvalid, match=r"AIRMEDIC_AIRFLOW_CA_CERT names 'ca\.pem'"):
        load_settings()


def test_the_address_of_the_api_itself_stops_the_start_with_a_sentence(
    environment: pytest.MonkeyPatch,
) -> None:
    environment.setenv("AIRMEDIC_AIRFLOW_URL", "http://localhost:8080/api/v2/")

    with pytest.raises(SettingsInvalid, match=r"AIRMEDIC_AIRFLOW_URL is wrong: .* without /api/v2"):
        load_settings()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"AUDIT_KEY": " , "}, "AIRMEDIC_AUDIT_KEY is wrong: there is nothing"),
        ({"WEBHOOK_SECRET": ","}, "AIRMEDIC_WEBHOOK_SECRET is wrong: there is nothing"),
        ({"OIDC_AUDIENCE": "airmedic"}, "AIRMEDIC_OIDC_ISSUER must be set"),
        ({"OIDC_JWKS_URL": "https://keys.example/jwks"}, "AIRMEDIC_OIDC_ISSUER must be set"),
        (
            {"APPROVAL_WARNING": "PT2H", "APPROVAL_TIMEOUT": "PT1H"},
            "must be shorter than AIRMEDIC_APPROVAL_TIMEOUT, which is 3600 s",
        ),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_what_says_nothing_by_itself_stops_the_start(
    environment: pytest.MonkeyPatch, given: dict[str, str], told: str
) -> None:
    for name, value in given.items():
        environment.setenv(f"AIRMEDIC_{name}", value)

    with pytest.raises(SettingsInvalid, match=told):
        load_settings()


def test_an_empty_line_of_a_settings_file_sets_nothing(environment: pytest.MonkeyPatch) -> None:
    for name in ("AUDIT_KEY", "WEBHOOK_SECRET", "OIDC_AUDIENCE"):
        environment.setenv(f"AIRMEDIC_{name}", "")

    load_settings()


def test_an_empty_token_does_not_stand_before_a_password(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("AIRMEDIC_AIRFLOW_TOKEN", "")
    environment.setenv("AIRMEDIC_AIRFLOW_USERNAME", "ada")
    environment.setenv("AIRMEDIC_AIRFLOW_PASSWORD", "secret")

    assert load_settings().airflow_token is None


def test_names_that_airflow_users_have_already_are_read(environment: pytest.MonkeyPatch) -> None:
    for name in NEEDED:
        environment.delenv(name)
    environment.setenv("AIRFLOW_API_URL", "http://airflow:8080")
    environment.setenv("AIRFLOW_USERNAME", "ada")
    environment.setenv("AIRFLOW_PASSWORD", "secret")

    settings = load_settings()

    assert (str(settings.airflow_url), settings.airflow_username) == ("http://airflow:8080/", "ada")


def test_the_example_file_names_every_setting_and_no_other() -> None:
    named = set(re.findall(r"^#?(AIRMEDIC_[A-Z_]+)=", EXAMPLE.read_text(), re.MULTILINE))

    settings = {"AIRMEDIC_" + name.upper() for name in Settings.model_fields}
    assert named - {"AIRMEDIC_URL", "AIRMEDIC_TOKEN"} == settings


def test_the_example_file_is_valid(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in NEEDED:
        environment.delenv(name)
    (tmp_path / ".env").write_text(EXAMPLE.read_text())

    assert load_settings().airflow_username == "airmedic"


@pytest.mark.parametrize(
    "default", re.findall(r"^#(AIRMEDIC_[A-Z_]+=.+)$", EXAMPLE.read_text(), re.MULTILINE)
)
def test_what_the_example_shows_is_accepted(
    environment: pytest.MonkeyPatch, tmp_path: Path, default: str
) -> None:
    name, value = default.split("=", 1)
    if name.lstrip("#") in {"AIRMEDIC_POLICY", "AIRMEDIC_KNOWLEDGE", "AIRMEDIC_NOTIFY"}:
        (tmp_path / value).touch()
    if name == "AIRMEDIC_AIRFLOW_CA_CERT":
        value = certifi.where()
    if name.startswith("AIRMEDIC_OIDC_"):
        environment.setenv("AIRMEDIC_OIDC_ISSUER", "https://sso.example.com")
    environment.setenv(name, value)

    load_settings()
