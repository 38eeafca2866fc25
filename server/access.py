"""Who may call: the bearer token, the webhook's secrets, and what may listen where."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from graph.domain import DomainType, Role
from graph.errors import SettingsInvalid
from server.pulse import Pulse
from server.service import Service
from server.settings import Settings

LOCAL_OPERATOR = "local operator"
TOKEN_OPERATOR = "operator (API token)"

bearer = HTTPBearer(auto_error=False, description="AIRMEDIC_API_TOKEN, when the server has one")


def webhook_secrets(settings: Settings) -> tuple[str, ...]:
    """The secrets a delivery may be signed with, newest first."""
    if settings.webhook_secret is None:
        return ()
    parts = settings.webhook_secret.get_secret_value().split(",")
    return tuple(part.strip() for part in parts if part.strip())


def api_token(settings: Settings) -> str | None:
    """The token every caller of /api must show; None when there is none."""
    token = settings.api_token.get_secret_value().strip() if settings.api_token else ""
    return token or None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(settings: Settings) -> None:
    """Refuse to listen where strangers can reach without asking them for anything."""
    if is_loopback(settings.host):
        return
    missing = [
        name
        for name, given in (
            ("AIRMEDIC_API_TOKEN", api_token(settings)),
            ("AIRMEDIC_WEBHOOK_SECRET", webhook_secrets(settings)),
        )
        if not given
    ]
    if missing:
        raise SettingsInvalid(
            f"AIRMEDIC_HOST is {settings.host!r}, which other machines can reach: "
            f"set {' and '.join(missing)} first"
        )


def answered_hosts(settings: Settings) -> frozenset[str] | None:
    """The Host names answered without a token (DNS rebinding brings others); None when a token is asked."""
    if api_token(settings) is not None:
        return None
    return frozenset({"localhost", "127.0.0.1", "::1", settings.host.strip("[]")})


def start_warnings(settings: Settings) -> list[str]:
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
    if api_token(settings) is None:
        warnings.append("anyone on this machine may decide: AIRMEDIC_API_TOKEN is not set")
    if not settings.airflow_verify_ssl:
        warnings.append("Airflow's certificate is not verified (AIRMEDIC_AIRFLOW_VERIFY_SSL)")
    return warnings


def service_of(request: Request) -> Service:
    """The service the application opened."""
    service: Service = request.app.state.service
    return service


def pulse_of(request: Request) -> Pulse:
    """What is known of the parts the service depends on."""
    pulse: Pulse = request.app.state.pulse
    return pulse


ServiceDep = Annotated[Service, Depends(service_of)]
PulseDep = Annotated[Pulse, Depends(pulse_of)]


ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)  # each may do what those before it may


class Caller(DomainType):
    """Who calls, and what they may do."""

    name: str
    role: Role

    def may(self, role: Role) -> bool:
        """Whether this caller has at least `role`."""
        return ROLES.index(self.role) >= ROLES.index(role)


async def caller(
    service: ServiceDep, given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    """Who calls. Answers 401 when a token is asked for and not shown."""
    wanted = api_token(service.settings)
    if wanted is None:
        return Caller(name=LOCAL_OPERATOR, role=Role.ADMIN)
    shown = given.credentials if given is not None else ""
    if not hmac.compare_digest(shown.encode(), wanted.encode()):
        raise HTTPException(401, "a valid bearer token is required", headers={"www-authenticate": "Bearer"})
    return Caller(name=TOKEN_OPERATOR, role=Role.ADMIN)


def require(role: Role) -> Callable[[Caller], Awaitable[Caller]]:
    """A dependency that lets callers with at least `role` through and answers 403 to others."""

    async def allowed(who: Annotated[Caller, Depends(caller)]) -> Caller:
        if not who.may(role):
            raise HTTPException(403, f"this needs the role {role.value}; {who.name!r} is {who.role.value}")
        return who

    return allowed


ViewerDep = Annotated[Caller, Depends(require(Role.VIEWER))]
OperatorDep = Annotated[Caller, Depends(require(Role.OPERATOR))]
AdminDep = Annotated[Caller, Depends(require(Role.ADMIN))]
