"""Everything that can be set, from AIRMEDIC_* in the environment or `.env`. Values only."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, HttpUrl, SecretStr, ValidationError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from graph.errors import SettingsInvalid

PREFIX = "AIRMEDIC_"
NO_TIME = timedelta(0)


def _seconds(value: object) -> object:
    """A bare number as a number: pydantic reads seconds from one, and a time of day from its text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _or_none(value: object) -> object:
    return None if value == "" else value


Duration = Annotated[timedelta, BeforeValidator(_seconds), Field(ge=NO_TIME)]
Pause = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=NO_TIME)]


class Settings(BaseSettings):
    """Settings of `airmedic serve`. Each field is the variable AIRMEDIC_<NAME>."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    # --- your Airflow ---
    airflow_url: HttpUrl = Field(
        validation_alias=AliasChoices("AIRMEDIC_AIRFLOW_URL", "AIRFLOW_API_URL", "AIRFLOW_BASE_URL")
    )
    airflow_token: Annotated[SecretStr | None, BeforeValidator(_or_none)] = Field(
        None, validation_alias=AliasChoices("AIRMEDIC_AIRFLOW_TOKEN", "AIRFLOW_AUTH_TOKEN")
    )
    airflow_username: Annotated[str | None, BeforeValidator(_or_none)] = Field(
        None, validation_alias=AliasChoices("AIRMEDIC_AIRFLOW_USERNAME", "AIRFLOW_USERNAME")
    )
    airflow_password: Annotated[SecretStr | None, BeforeValidator(_or_none)] = Field(
        None, validation_alias=AliasChoices("AIRMEDIC_AIRFLOW_PASSWORD", "AIRFLOW_PASSWORD")
    )
    airflow_ca_cert: Path | None = Field(
        None, validation_alias=AliasChoices("AIRMEDIC_AIRFLOW_CA_CERT", "AIRFLOW_CA_CERT")
    )
    airflow_verify_ssl: bool = Field(
        True, validation_alias=AliasChoices("AIRMEDIC_AIRFLOW_VERIFY_SSL", "AIRFLOW_VERIFY_SSL")
    )
    airflow_id: str = "default"  #: a name for this Airflow; the plugin sends the same

    # --- what Airmedic may do ---
    healing: Literal["shadow", "on"] = "shadow"
    policy: Path | None = None  #: your policy file; the shipped default without it
    knowledge: Path | None = None  #: a folder with your own knowledge files
    environment: str = "production"  #: policies can match on it
    watch_window: Duration = timedelta(hours=24)  #: how long a heal is watched for recurrence, at most
    approval_timeout: Pause = timedelta(hours=12)
    probes: str = ""  #: host:port or URLs, comma-separated; a retry waits until the one it needs answers
    correlate: bool = True  #: failures of one cause in the infrastructure are one incident, across DAGs
    correlate_loopback: bool = False  #: all tasks run on one machine: its own address is one place
    wave_first: int = Field(10, ge=1, le=10_000)  #: task instances in the first wave after the canary
    wave_largest: int = Field(500, ge=1, le=10_000)  #: each wave is twice the one before, up to this
    wave_per_minute: int = Field(600, ge=1, le=1_000_000)  #: task instances; the next wave waits for that
    stuck_after: Duration = timedelta(minutes=10)  #: scheduled or queued that long without starting
    late_after: Duration = timedelta(minutes=5)  #: a run that does not exist that long after it was due
    overrun_after: Duration = timedelta(minutes=5)  #: over the usual before a running task is stuck

    # --- the service ---
    database_url: str = "sqlite:///airmedic.db"
    host: str = "127.0.0.1"
    port: int = Field(8642, ge=0, le=65535)
    webhook_secret: SecretStr | None = None  #: comma-separated while you rotate it
    api_token: SecretStr | None = None  #: a token with the role admin, to begin with
    cors_origins: str = ""  #: comma-separated origins whose pages may call the API from a browser
    rate_token: str = "1200/minute"  #: of each token; off for no limit
    rate_address: str = "3000/minute"  #: of each address that shows no known token
    rate_webhook: str = "600000/minute"  #: of each address; a storm of failures must come through
    redis_url: SecretStr | None = None  #: counts the rates, for servers that share them
    oidc_issuer: str | None = None  #: sign-in by OpenID Connect, as `iss` spells it
    oidc_audience: str | None = None  #: what `aud` must name
    oidc_jwks_url: str | None = None  #: when the issuer keeps its keys on another host
    oidc_role_claim: str = "roles"  #: a dotted path reaches into objects
    oidc_roles: str = "viewer=viewer,operator=operator,admin=admin"  #: value of the claim=role
    poll_interval: Pause = timedelta(seconds=10)
    watch_interval: Pause = timedelta(seconds=60)  #: between two rounds of the watch
    log_file: Path | None = Path("logs/pipeline.log")
    metrics_dags: bool = False  #: /metrics tells DAGs apart by name, 200 of them at the most
    console: bool = True
    stream_limit: Duration = timedelta(hours=1)  #: an event stream ends then; clients come back
    demo: bool = False  #: the demo's employees and simulated failures beside the API

    # --- people are told, and what was done is kept ---
    public_url: HttpUrl | None = None  #: where people reach this server; stands in what they are sent
    notify_urls: SecretStr | None = None  #: Apprise URLs, separated by commas or spaces
    notify: Path | None = None  #: a YAML file that says who is told what
    notify_digest: Duration = timedelta(hours=1)  #: what went well comes bundled that often
    approval_warning: Duration | None = None  #: before a question expires; else a quarter, at most 30 min
    audit_key: SecretStr | None = None  #: the audit trail is chained under it; commas while you rotate it

    # --- what is kept, and how long; the audit trail always is ---
    keep_incidents: Duration = timedelta(days=365)  #: closed ones, with all that hangs on them
    keep_incidents_most: int = Field(1_000_000, ge=1)  #: closed ones; the oldest go first
    keep_logs: Duration = timedelta(days=90)  #: task logs, notices, findings, lines of no incident
    keep_logs_bytes: int = Field(5_000_000_000, ge=0)  #: of all task logs together, as they are stored

    # --- a language model (optional) ---
    llm_model: str | None = None
    llm_base_url: str | None = Field(
        None, validation_alias=AliasChoices("AIRMEDIC_LLM_BASE_URL", "OPENAI_BASE_URL")
    )
    llm_api_key: SecretStr | None = Field(
        None, validation_alias=AliasChoices("AIRMEDIC_LLM_API_KEY", "OPENAI_API_KEY")
    )
    llm_price_input: float | None = Field(None, ge=0)  #: US dollars per million tokens
    llm_price_output: float | None = Field(None, ge=0)


class DatabaseSettings(BaseSettings):
    """The one setting of commands that need no Airflow."""

    model_config = Settings.model_config

    database_url: str = "sqlite:///airmedic.db"


def load_database_url() -> str:
    """Where the database is, from the environment or `.env`."""
    return DatabaseSettings().database_url


# Read by the command line, the plugin and the demo's DAGs, not by the service.
OTHER_NAMES = frozenset({"AIRMEDIC_URL", "AIRMEDIC_TOKEN", "AIRMEDIC_SPOOL_DIR", "AIRMEDIC_DEMO_DIR"})


def known_names() -> set[str]:
    """Every AIRMEDIC_* variable that means something."""
    return {PREFIX + name.upper() for name in Settings.model_fields} | OTHER_NAMES


def reject_unknown(environ: Mapping[str, str | None]) -> None:
    """A misspelled setting stops the start instead of being ignored."""
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known_names() and not name.startswith("AIRMEDIC_DEMO_"):
            close = get_close_matches(name, known_names(), n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingsInvalid(f"{name} is not a setting of Airmedic{hint}")


def env_file_values() -> dict[str, str | None]:
    """What `.env` says, under the names of the environment."""
    return {name.upper(): value for name, value in DotEnvSettingsSource(Settings).env_vars.items()}


def load_settings(environ: Mapping[str, str] | None = None, **given: object) -> Settings:
    """Settings from environment, `.env` and `given`. Raises `SettingsInvalid` with a sentence per mistake."""
    reject_unknown(os.environ if environ is None else environ)
    if "_env_file" not in given:
        reject_unknown(env_file_values())
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
    except ValidationError as exc:
        problems = [_sentence(error["loc"], error["type"], error["msg"]) for error in exc.errors()]
        raise SettingsInvalid("\n".join(problems)) from exc
    if settings.airflow_token is None and (
        settings.airflow_username is None or settings.airflow_password is None
    ):
        raise SettingsInvalid(
            "AIRMEDIC_AIRFLOW_TOKEN, or AIRMEDIC_AIRFLOW_USERNAME and AIRMEDIC_AIRFLOW_PASSWORD, must be set"
        )
    for path, name in (
        (settings.policy, "POLICY"),
        (settings.notify, "NOTIFY"),
        (settings.knowledge, "KNOWLEDGE"),
    ):
        if path is not None and not path.exists():
            raise SettingsInvalid(f"{PREFIX}{name} names {str(path)!r}, which does not exist")
    if str(settings.airflow_url).rstrip("/").endswith(("/api/v1", "/api/v2")):
        raise SettingsInvalid(
            "AIRMEDIC_AIRFLOW_URL is wrong: write the address as you open it in a browser, without /api/v2"
        )
    if settings.airflow_ca_cert is not None and not settings.airflow_ca_cert.is_dir():
        _check_certificates(settings.airflow_ca_cert)
    _check_pairs(settings)
    return settings


def _check_pairs(settings: Settings) -> None:
    """What says nothing by itself, or contradicts something else."""
    for secret, name in ((settings.audit_key, "AUDIT_KEY"), (settings.webhook_secret, "WEBHOOK_SECRET")):
        if secret and secret.get_secret_value().strip() and not secret.get_secret_value().strip(", "):
            raise SettingsInvalid(f"{PREFIX}{name} is wrong: there is nothing between its commas")
    for given, name in ((settings.oidc_audience, "OIDC_AUDIENCE"), (settings.oidc_jwks_url, "OIDC_JWKS_URL")):
        if given and not settings.oidc_issuer:
            raise SettingsInvalid(f"{PREFIX}{name} is set: AIRMEDIC_OIDC_ISSUER must be set, too")
    warning, timeout = settings.approval_warning, settings.approval_timeout
    if warning is not None and warning >= timeout:
        raise SettingsInvalid(
            "AIRMEDIC_APPROVAL_WARNING is wrong: it must be shorter than AIRMEDIC_APPROVAL_TIMEOUT, "
            f"which is {timeout.total_seconds():g} s"
        )


def _check_certificates(path: Path) -> None:
    try:
        ssl.create_default_context(cafile=path)
    except OSError as exc:  # what ssl raises is one too
        raise SettingsInvalid(
            f"AIRMEDIC_AIRFLOW_CA_CERT names {str(path)!r}, which is no file of certificates (PEM): {exc}"
        ) from exc


def _sentence(place: tuple[int | str, ...], kind: str, message: str) -> str:
    name = str(place[0]) if place else "?"
    variable = name if name.isupper() else PREFIX + name.upper()
    if kind == "missing":
        return f"{variable} must be set"
    if kind == "time_delta_parsing":
        return f"{variable} is wrong: write PT10M, or 600 for as many seconds"
    return f"{variable} is wrong: {message.replace(repr(NO_TIME), '0 s')}"
