"""`airmedic doctor`: each thing that can be wrong, whether it is, and what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path

import httpx
from pydantic import SecretStr

from graph.domain import TaskRef
from graph.errors import (
    AirmedicError,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    SettingsInvalid,
)
from server.access.entry import api_token, can_sign_in, check_exposure, is_loopback, webhook_secrets
from server.db.checkup import look_at_database, sqlite_file
from server.db.database import open_database
from server.ground import connect
from server.observe.vitals import LOW_SPACE, NO_SPACE, rooms
from server.settings import Settings, load_settings
from server.store import IncidentStore
from tools.actions import ActionCatalogue
from tools.gateway import AirflowGateway
from tools.policy_file import load_policy
from tools.terminal import inert

SKEW = 30.0  # seconds of difference that are harmless
TOO_SKEWED = 300.0  # seconds; signatures are refused from here on
SHORT_SECRET = 16  # characters
WAIT = 10.0  # seconds for one answer
# Never a real name: what is asked about it changes nothing and shows whether the asking is allowed.
PROBE = TaskRef(dag_id="airmedic_doctor_probe", run_id="airmedic_doctor_probe", task_id="none")


class Level(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One check: how it ended, what was seen, and what to do."""

    check: str
    level: Level
    seen: str
    todo: str = ""


def ok(check: str, seen: str) -> Finding:
    return Finding(check, Level.OK, seen)


def warn(check: str, seen: str, todo: str = "") -> Finding:
    return Finding(check, Level.WARN, seen, todo)


def fail(check: str, seen: str, todo: str) -> Finding:
    return Finding(check, Level.FAIL, seen, todo)


# --- Airflow ----------------------------------------------------------------------------------------------


async def check_airflow(
    http: httpx.AsyncClient, airflow: AirflowGateway, *, heals: bool, now: Callable[[], datetime]
) -> AsyncIterator[Finding]:
    """Address and clock first; what needs credentials only when something answers."""
    try:
        answer = await http.get("/api/v2/monitor/health")
    except httpx.HTTPError as exc:
        yield fail("airflow address", f"no answer ({exc or type(exc).__name__})", _address_advice(exc))
        return
    address = _address(answer)
    yield address
    if address.level is Level.FAIL:
        return
    yield _clock(answer.headers.get("date"), now())
    async for finding in _check_access(airflow, heals=heals):
        yield finding


def _address_advice(exc: httpx.HTTPError) -> str:
    words = str(exc).lower()
    if "certificate" in words or "ssl" in words:
        return "set AIRMEDIC_AIRFLOW_CA_CERT to the certificate of your authority"
    if "name or service" in words or "getaddrinfo" in words or "name resolution" in words:
        return "the host name in AIRMEDIC_AIRFLOW_URL does not resolve here: check its spelling"
    return "check AIRMEDIC_AIRFLOW_URL, and that Airflow's API server runs and can be reached from here"


def _address(answer: httpx.Response) -> Finding:
    name = "airflow address"
    try:
        told = answer.json()
    except ValueError:
        told = None
    if answer.status_code == httpx.codes.NOT_FOUND:
        todo = "this is no Airflow 3 API: give the address without /api/v2, as you open it in a browser"
        return fail(name, "HTTP 404 for /api/v2/monitor/health", todo)
    if not isinstance(told, dict) or "metadatabase" not in told:
        return fail(
            name,
            f"HTTP {answer.status_code}, not Airflow's answer",
            "something else answers there, perhaps a proxy or a sign-in page: check AIRMEDIC_AIRFLOW_URL",
        )
    sick = [
        part for part, state in told.items() if isinstance(state, dict) and state.get("status") == "unhealthy"
    ]
    if sick:
        return warn(name, f"answers; unhealthy: {', '.join(sick)}", "look at the logs of these components")
    return ok(name, f"answers at {answer.url.copy_with(path='/')}")


def _clock(date: str | None, now: datetime) -> Finding:
    try:
        theirs = parsedate_to_datetime(date or "")
    except ValueError:
        return warn("clock", "Airflow tells no time", "compare the clocks of both machines yourself")
    apart = abs((theirs.replace(tzinfo=theirs.tzinfo or UTC) - now).total_seconds())
    todo = "synchronise both machines with NTP: webhooks are refused from five minutes on"
    if apart >= TOO_SKEWED:
        return fail("clock", f"{apart:.0f} s apart from Airflow's", todo)
    if apart > SKEW:
        return warn("clock", f"{apart:.0f} s apart from Airflow's", todo)
    return ok("clock", "in step with Airflow's")


async def _check_access(airflow: AirflowGateway, *, heals: bool) -> AsyncIterator[Finding]:
    try:
        health = await airflow.health()
        await airflow.updates_since(datetime.now(UTC) - timedelta(minutes=1), limit=1)
    except NotAuthenticated as exc:
        todo = "set AIRMEDIC_AIRFLOW_TOKEN, or AIRMEDIC_AIRFLOW_USERNAME and AIRMEDIC_AIRFLOW_PASSWORD"
        yield fail("credentials", str(exc), todo)
        return
    except NotPermitted as exc:
        yield fail(
            "credentials", str(exc), "give Airmedic's user the right to read task instances of all DAGs"
        )
        return
    except AirmedicError as exc:
        yield fail("credentials", str(exc), "try again; if it stays, read the API server's log")
        return
    yield ok("credentials", "accepted; task instances of all DAGs can be read")
    yield _version(health.version)
    for action, asking, words in (
        ("clear_task", _dry_clear(airflow), "clear task instances (a dry run was asked for)"),
        ("add_note", airflow.set_task_note(PROBE, "probe"), "note task instances"),
    ):
        found = await _may(action, asking, words)
        # In shadow mode nothing is written, so a user who only reads will do.
        shadowed = not heals and found.level is Level.FAIL
        yield replace(found, level=Level.WARN) if shadowed else found
    yield await _may("set_variable", airflow.variable("airmedic_contract_probe"), "read Variables")
    yield await _may("patch_connection", airflow.connection(PROBE.dag_id), "read Connections")
    yield await _may("set_pool_slots", airflow.pool(PROBE.dag_id), "read pools")
    yield warn(
        "permissions",
        "changing Variables, Connections and pools could not be checked without changing one",
        "give Airmedic's user the right to edit them if your policy lets these actions run",
    )


def _version(version: str) -> Finding:
    major = version.split(".")[0]
    if major == "3":
        return ok("version", f"Airflow {version}")
    return fail("version", f"Airflow {version or '?'}", "this version of Airmedic heals Airflow 3")


async def _dry_clear(airflow: AirflowGateway) -> object:
    return await airflow.clear(PROBE.dag_id, PROBE.run_id, [PROBE], dry_run=True)


async def _may(action: str, asking: Awaitable[object], words: str) -> Finding:
    """Ask about something that does not exist: "not found" means that asking is allowed."""
    name = f"permission: {action}"
    try:
        await asking
    except (NotFound, InvalidRequest):
        return ok(name, f"may {words}")
    except NotPermitted:
        return fail(
            name, f"may not {words}", f"give Airmedic's user that right, or deny {action} in your policy"
        )
    except AirmedicError as exc:
        return warn(name, f"could not be checked: {exc}")
    return ok(name, f"may {words}")


# --- ourselves --------------------------------------------------------------------------------------------


async def check_database(settings: Settings) -> AsyncIterator[Finding]:
    """The database, and what it remembers of the plugin."""
    file = sqlite_file(settings.database_url)
    try:
        state = await look_at_database(settings.database_url)
    except AirmedicError as exc:
        yield fail("database", str(exc), "check AIRMEDIC_DATABASE_URL, that it runs, and that we may write")
        return
    if file is not None and not state.exists:
        yield _new_file(file)
    elif state.schema is None:
        yield ok("database", "opens, and is empty; the tables are made at the first start")
    elif state.schema != state.newest:
        yield warn(
            "database",
            f"schema {state.schema}, newest is {state.newest}",
            "the next `airmedic serve` brings it up to date; back it up before",
        )
    else:
        yield ok("database", f"opens, can be written, schema {state.schema}")
    yield await _plugin(settings, known=state.schema == state.newest)


def _new_file(file: Path) -> Finding:
    folder = file.resolve().parent
    if not folder.is_dir():
        return fail(
            "database", f"the folder {folder} does not exist", "make it, or change AIRMEDIC_DATABASE_URL"
        )
    return ok("database", f"{file} is made at the first start")


async def _plugin(settings: Settings, *, known: bool) -> Finding:
    todo = (
        "copy airflow/plugins/airmedic_listener.py into Airflow's plugins folder and set AIRMEDIC_URL there; "
        "until then the poll finds failures, some seconds later"
    )
    seen = None
    if known:
        async with open_database(settings.database_url) as engine:
            seen = await IncidentStore(engine, clock=lambda: datetime.now(UTC)).setting("seen_listener")
    if isinstance(seen, str):
        return ok("plugin", f"last heard of at {seen[:19]} UTC")
    return warn("plugin", "never heard of", todo)


def check_disk(settings: Settings, *, free: Callable[[Path], int] | None = None) -> list[Finding]:
    """Room for the database file and the log."""
    findings = []
    for room in rooms(settings, free=free):
        seen, todo = (
            f"{room.free / 1e9:.1f} GB free for the {room.name} in {room.folder}",
            "make room on this disk",
        )
        if room.free < NO_SPACE:
            findings.append(fail("disk", seen, todo))
        else:
            findings.append(warn("disk", seen, todo) if room.free < LOW_SPACE else ok("disk", seen))
    return findings


def check_settings(settings: Settings, *, stored: bool = False) -> list[Finding]:
    """What follows from the settings, and from whether the database holds a token that is good."""
    return [_exposure(settings, stored=stored), _webhooks(settings), _policy(settings), _healing(settings)]


def _exposure(settings: Settings, *, stored: bool) -> Finding:
    try:
        check_exposure(settings, stored=stored)
    except SettingsInvalid as exc:
        return fail("access", str(exc), "set them, or listen on 127.0.0.1")
    token = api_token(settings)
    if not can_sign_in(settings, stored=stored):
        todo = "make one with `airmedic token create` where others can sign in to this machine"
        return warn("access", "no token exists: anyone on this machine may decide", todo)
    if token is not None and len(token) < SHORT_SECRET:
        return warn("access", "AIRMEDIC_API_TOKEN is short", "use `openssl rand -hex 32`")
    where = "this machine only" if is_loopback(settings.host) else f"{settings.host}"
    return ok("access", f"listens on {where}, asks for a token")


def _webhooks(settings: Settings) -> Finding:
    try:
        secrets = webhook_secrets(settings)
    except SettingsInvalid as exc:
        return fail("webhook secret", str(exc), "use `openssl rand -hex 32`, here and in Airflow")
    if not secrets:
        todo = "set AIRMEDIC_WEBHOOK_SECRET here and in Airflow to the same value (`openssl rand -hex 32`)"
        return warn("webhook secret", "not set: unsigned webhooks are accepted from this machine", todo)
    if min(len(secret) for secret in secrets) < SHORT_SECRET:
        return warn("webhook secret", "short", "use `openssl rand -hex 32`")
    if len(secrets) > 1:
        seen = f"{len(secrets)} secrets are accepted"
        return warn("webhook secret", seen, "remove the old one when every plugin has the new one")
    return ok("webhook secret", "set")


def _policy(settings: Settings) -> Finding:
    try:
        load_policy(settings.policy, catalogue=ActionCatalogue.default())
    except SettingsInvalid as exc:
        return fail("policy", str(exc), "mend the file that AIRMEDIC_POLICY names")
    return ok("policy", "your file is valid" if settings.policy else "the shipped default")


def _healing(settings: Settings) -> Finding:
    if settings.healing == "shadow":
        return ok("healing", "shadow: decides and records, touches nothing (AIRMEDIC_HEALING=on heals)")
    return ok("healing", "on: what policy allows is done")


async def check_language(settings: Settings) -> Finding:
    """The language model, by one tiny call when there is one."""
    name = "language model"
    if settings.llm_model is None:
        return ok(name, "none: diagnoses come from memory and the knowledge base")
    if settings.llm_api_key is None and settings.llm_base_url is None:
        return fail(name, "no key for OpenAI", "set AIRMEDIC_LLM_API_KEY, or AIRMEDIC_LLM_BASE_URL")
    from tools.llm import check_model
    from tools.llm_endpoint import ModelSettings

    found = await check_model(
        ModelSettings(
            model=settings.llm_model,
            # Servers of one's own often ask for none, and the client insists on one.
            api_key=settings.llm_api_key or SecretStr("none"),
            base_url=settings.llm_base_url,
        )
    )
    if not found.ok:
        todo = (
            "check AIRMEDIC_LLM_MODEL, _BASE_URL and _API_KEY; until then the knowledge base diagnoses alone"
        )
        return warn(name, f"{settings.llm_model}: {found.detail}", todo)
    return ok(name, f"{settings.llm_model}: {found.detail}, {found.seconds:.1f} s")


# --- all together -----------------------------------------------------------------------------------------


async def examine(settings: Settings) -> AsyncIterator[Finding]:
    """Every check, in the order in which one would look."""
    verify: bool | str = str(settings.airflow_ca_cert or "") or settings.airflow_verify_ssl
    url, heals = str(settings.airflow_url).rstrip("/"), settings.healing == "on"
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=url, verify=verify, timeout=WAIT))
        airflow = await stack.enter_async_context(connect(settings))
        async for finding in check_airflow(http, airflow, heals=heals, now=lambda: datetime.now(UTC)):
            yield finding
    async for finding in check_database(settings):
        yield finding
    # They take their findings from here.
    from cli.doctor_people import check_people
    from cli.doctor_service import check_service, has_good_token

    stored = await has_good_token(settings)
    for finding in (*check_disk(settings), *check_settings(settings, stored=stored)):
        yield finding

    async for finding in check_people(settings):
        yield finding
    async for finding in check_service(settings):
        yield finding
    yield await check_language(settings)


def line_of(finding: Finding) -> str:
    """One finding as it is printed."""
    todo = f"\n{'':6} -> {finding.todo}" if finding.todo and finding.level is not Level.OK else ""
    return inert(f"{finding.level.value:<6} {finding.check}: {finding.seen}{todo}")


def run(*, say: Callable[[str], None]) -> int:
    """Print every finding; the exit status is 1 when one failed, 2 when the settings cannot be read."""
    try:
        settings = load_settings()
    except SettingsInvalid as exc:
        for sentence in str(exc).splitlines():
            say(line_of(fail("settings", sentence, "see .env.example")))
        return 2
    return asyncio.run(_run(settings, say=say))


async def _run(settings: Settings, *, say: Callable[[str], None]) -> int:
    counts = dict.fromkeys(Level, 0)
    async for finding in examine(settings):
        counts[finding.level] += 1
        say(line_of(finding))
    say(f"{counts[Level.OK]} ok, {counts[Level.WARN]} to look at, {counts[Level.FAIL]} wrong")
    return 1 if counts[Level.FAIL] else 0
