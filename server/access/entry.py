"""Who may call: the bearer token, the webhook's secrets, and what may listen where."""

from __future__ import annotations

import binascii
import ipaddress
import re
from functools import lru_cache
from typing import Annotated

import structlog
from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from graph.domain import Role
from graph.errors import SettingsInvalid, StoreUnavailable
from server.access.callers import LOCAL_OPERATOR as LOCAL_OPERATOR
from server.access.callers import TOKEN_OPERATOR as TOKEN_OPERATOR
from server.access.callers import Caller as Caller
from server.access.doorkeeper import api_token as api_token
from server.access.doorkeeper import doorkeeper_of, shown_token
from server.access.signin import NoRole
from server.access.tokens import has_valid_token
from server.events import signing_key
from server.observe.pulse import Pulse
from server.record import IncidentRecord
from server.service import Service
from server.settings import Settings

log = structlog.get_logger("access")

EMPTY_SECRET = "whsec_"
ORIGIN = re.compile(r"https?://(?:[a-z0-9.-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")

bearer = HTTPBearer(auto_error=False, description="an access token (`airmedic token create`)")


def webhook_secrets(settings: Settings) -> tuple[str, ...]:
    """The secrets a delivery may be signed with, newest first. Raises `SettingsInvalid`."""
    if settings.webhook_secret is None:
        return ()
    return _parts(settings.webhook_secret.get_secret_value())


@lru_cache(maxsize=4)
def _parts(listed: str) -> tuple[str, ...]:
    secrets = tuple(part.strip() for part in listed.split(",") if part.strip())
    if EMPTY_SECRET in secrets:
        raise SettingsInvalid(f"AIRMEDIC_WEBHOOK_SECRET: {EMPTY_SECRET!r} with nothing after it is no secret")
    for secret in secrets:
        try:
            signing_key(secret)
        except binascii.Error as exc:
            raise SettingsInvalid(
                f"AIRMEDIC_WEBHOOK_SECRET: what follows {EMPTY_SECRET} is not base64: "
                "take what `openssl rand -base64 32` prints"
            ) from exc
    return secrets


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def can_sign_in(settings: Settings, *, stored: bool) -> bool:
    """Whether anybody is able to show who they are; `stored`: with a token from the database."""
    return stored or api_token(settings) is not None or bool(settings.oidc_issuer)


def check_exposure(settings: Settings, *, stored: bool = False) -> None:
    """Refuse to listen where strangers can reach without asking them for anything."""
    webhook_secrets(settings)  # one that is none is none on this machine, too
    if is_loopback(settings.host):
        return
    missing = [
        name
        for name, given in (
            ("AIRMEDIC_API_TOKEN", can_sign_in(settings, stored=stored)),
            ("AIRMEDIC_WEBHOOK_SECRET", webhook_secrets(settings)),
        )
        if not given
    ]
    if missing:
        other = "" if can_sign_in(settings, stored=stored) else " (or make a token: `airmedic token create`)"
        raise SettingsInvalid(
            f"AIRMEDIC_HOST is {settings.host!r}, which other machines can reach: "
            f"set {' and '.join(missing)} first{other}"
        )


async def check_exposure_with_tokens(settings: Settings) -> None:
    """The same, with the tokens that the database holds; it is opened only when they matter."""
    stored = False
    if not is_loopback(settings.host) and not can_sign_in(settings, stored=False):
        stored = await has_valid_token(settings.database_url)
    check_exposure(settings, stored=stored)


def local_hosts(settings: Settings) -> frozenset[str]:
    """The Host names answered while no token is asked: DNS rebinding brings others."""
    return frozenset({"localhost", "127.0.0.1", "::1", settings.host.strip("[]")})


def cors_origins(settings: Settings) -> tuple[str, ...]:
    """The origins whose pages may call from a browser. Raises `SettingsInvalid`."""
    origins = tuple(filter(None, (one.strip() for one in settings.cors_origins.split(","))))
    for origin in origins:
        if ORIGIN.fullmatch(origin) is None:
            raise SettingsInvalid(
                f"AIRMEDIC_CORS_ORIGINS: {origin!r} is no origin; write it like https://ops.example.com"
            )
    return origins


def start_warnings(settings: Settings, *, stored: bool = False) -> list[str]:
    """What a user should know at start, in sentences."""
    warnings = []
    if settings.healing == "shadow":
        warnings.append(
            "shadow mode: it decides and records, and touches nothing (AIRMEDIC_HEALING=on heals)"
        )
    if not webhook_secrets(settings):
        warnings.append(
            "unsigned webhooks are accepted from this machine: AIRMEDIC_WEBHOOK_SECRET is not set"
        )
    if not can_sign_in(settings, stored=stored):
        warnings.append(
            "anyone on this machine may decide: no token exists (`airmedic token create`, AIRMEDIC_API_TOKEN)"
        )
    if not settings.airflow_verify_ssl:
        warnings.append("Airflow's certificate is not verified (AIRMEDIC_AIRFLOW_VERIFY_SSL)")
    return warnings


# Async, though they wait for nothing: FastAPI sends others to a thread, which costs more than the rest.


async def service_of(request: Request) -> Service:
    """The service the application opened."""
    service: Service = request.app.state.service
    return service


async def pulse_of(request: Request) -> Pulse:
    """What is known of the parts the service depends on."""
    pulse: Pulse = request.app.state.pulse
    return pulse


ServiceDep = Annotated[Service, Depends(service_of)]
PulseDep = Annotated[Pulse, Depends(pulse_of)]


async def caller(
    request: Request,
    service: ServiceDep,
    _given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)],
) -> Caller:
    """Who calls. Answers 401 when a token is asked for and not shown."""
    try:
        who = await doorkeeper_of(request.app).identify(shown_token(request.headers), service)
    except NoRole as exc:
        raise HTTPException(403, str(exc)) from exc
    if who is None:
        raise HTTPException(401, "a valid bearer token is required", headers={"www-authenticate": "Bearer"})
    return who


class Require:
    """A dependency that lets callers with at least `role` through and answers 403 to others."""

    def __init__(self, role: Role) -> None:
        self.role = role

    async def __call__(
        self, request: Request, service: ServiceDep, who: Annotated[Caller, Depends(caller)]
    ) -> Caller:
        """The caller, who may."""
        if who.may(self.role):
            return who
        why = f"this needs the role {self.role.value}; {who.name!r} is {who.role.value}"
        try:
            await service.audit.note("refused", by=who.name, what=request.url.path[:200], why=why)
        except StoreUnavailable as exc:
            log.warning("refusal_unrecorded", error=str(exc))
        raise HTTPException(403, why)


def require(role: Role) -> Require:
    """The dependency for this role."""
    return Require(role)


ViewerDep = Annotated[Caller, Depends(require(Role.VIEWER))]
OperatorDep = Annotated[Caller, Depends(require(Role.OPERATOR))]


async def check_approver(who: Caller, record: IncidentRecord, service: Service) -> None:
    """Answer 403 when the incident's question is for a higher role than this caller's, and note the try."""
    question = record.question if isinstance(record.question, dict) else {}
    asked = question.get("approvers", Role.OPERATOR.value)
    needed = Role(asked) if asked in set(Role) else Role.ADMIN
    if who.may(needed):
        return
    data = {"by": who.name, "role": who.role.value, "needed": needed.value}
    log.warning("answer_refused", incident_id=record.id, **data)
    try:
        await service.store.add_event(
            "answer_refused", incident_id=record.id, node="human", level="warning", data=data
        )
    except StoreUnavailable as exc:
        log.warning("note_lost", incident_id=record.id, error=str(exc))
    raise HTTPException(
        403, f"policy asks for {needed.value} to decide this; {who.name!r} is {who.role.value}"
    )
