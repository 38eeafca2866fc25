"""Optional sign-in by OpenID Connect: bearer tokens of a configured issuer, checked with its own keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import structlog

from graph.domain import Role
from graph.errors import SettingsInvalid, SignInUnavailable
from server.access.callers import Caller
from server.settings import Settings

if TYPE_CHECKING:
    import jwt

log = structlog.get_logger("signin")

# Public-key signatures only: with a shared key, whoever can check a token could make one.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
LEEWAY = 60.0  # seconds the issuer's clock may be off
WAIT = 5.0  # seconds the issuer has to answer
LARGEST = 1_000_000  # bytes of one of its documents
FRESH = 600.0  # seconds after which keys are read again: a key that was taken back stops working
COOLDOWN = 30.0  # seconds between two readings, whatever tokens ask for
KEPT = 24 * 3600.0  # seconds that keys serve while the issuer does not answer
NAME_LIMIT = 100  # characters
LONGEST = 16_384  # characters of a token


class NoRole(Exception):
    """The sign-in is good and gives no role here."""


class SignIn:
    """Who a token of the issuer speaks for, and the role its claim gives."""

    def __init__(
        self,
        *,
        issuer: str,
        audience: str,
        role_claim: str,
        roles: Mapping[str, Role],
        jwks_url: str | None = None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._claim = role_claim.split(".")
        self._roles = roles
        self._jwks_url = jwks_url
        self._timer = timer
        self._lock = asyncio.Lock()
        self._keys: dict[str | None, jwt.PyJWK] = {}
        self._read_at = -KEPT
        self._asked_at = -COOLDOWN

    async def caller(self, token: str) -> Caller | None:
        """Who signed in; None when the token is not good. Raises `NoRole`, `SignInUnavailable`."""
        import jwt  # with its cryptography, which only those who sign in this way need

        if len(token) > LONGEST:
            return None
        try:
            header = jwt.get_unverified_header(token)
            if header.get("alg") not in ALGORITHMS:
                return None
            key = await self._key(header.get("kid"))
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key=key,
                algorithms=list(ALGORITHMS),
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY,
                options={"require": ["exp", "iat", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as exc:
            log.info("sign_in_refused", reason=type(exc).__name__)
            return None
        return self._caller_of(claims)

    def _caller_of(self, claims: Mapping[str, Any]) -> Caller:
        subject = str(claims["sub"])
        role = self._role_of(claims)
        if role is None:
            raise NoRole(f"the sign-in gives no role here ({'.'.join(self._claim)} names none that is known)")
        for claim in ("preferred_username", "email"):
            if isinstance(claims.get(claim), str) and claims[claim].isprintable() and claims[claim]:
                return Caller(name=f"{claims[claim][:NAME_LIMIT]} (sign-in)", role=role, id=f"oidc:{subject}")
        shown = subject[:NAME_LIMIT] if subject.isprintable() else "somebody"
        return Caller(name=f"{shown} (sign-in)", role=role, id=f"oidc:{subject}")

    def _role_of(self, claims: Mapping[str, Any]) -> Role | None:
        """The highest role that the claim's values map to."""
        found: Any = claims
        for name in self._claim:
            found = found.get(name) if isinstance(found, Mapping) else None
        values = found if isinstance(found, list) else [found]
        given = {self._roles[value] for value in values if isinstance(value, str) and value in self._roles}
        return max(given, key=list(Role).index, default=None)

    # --- the issuer's keys ---

    async def _key(self, kid: Any) -> jwt.PyJWK | None:
        async with self._lock:
            age = self._timer() - self._read_at
            if (self._named(kid) is None or age > FRESH) and self._timer() - self._asked_at >= COOLDOWN:
                self._asked_at = self._timer()
                await self._read()
            if self._timer() - self._read_at >= KEPT:
                raise SignInUnavailable("the sign-in service does not answer; try again in a moment")
            return self._named(kid)

    def _named(self, kid: Any) -> jwt.PyJWK | None:
        if kid is None and len(self._keys) == 1:
            return next(iter(self._keys.values()))
        return self._keys.get(kid) if isinstance(kid, str) else None

    async def _read(self) -> None:
        """Read the keys anew; the old ones stay when that fails."""
        import jwt

        try:
            async with asyncio.timeout(WAIT), httpx.AsyncClient(timeout=WAIT) as http:
                keys = await _document(http, self._jwks_url or await self._discover(http))
            found = {key.key_id: key for key in jwt.PyJWKSet.from_dict(keys).keys if _signs(key)}
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError, jwt.PyJWTError) as exc:
            log.warning("sign_in_keys_unread", error=str(exc)[:200] or type(exc).__name__)
            return
        self._keys, self._read_at = found, self._timer()

    async def _discover(self, http: httpx.AsyncClient) -> str:
        told = await _document(http, self._issuer.rstrip("/") + "/.well-known/openid-configuration")
        url = told.get("jwks_uri")
        if told.get("issuer") != self._issuer or not isinstance(url, str):
            raise ValueError("its configuration names another issuer, or no keys")
        # We call only what the administrator named.
        if urlsplit(url)[:2] != urlsplit(self._issuer)[:2]:
            raise ValueError("its keys are on another host: name them in AIRMEDIC_OIDC_JWKS_URL")
        return url


def _signs(key: jwt.PyJWK) -> bool:
    return key.algorithm_name in ALGORITHMS and key.public_key_use in (None, "sig")


async def _document(http: httpx.AsyncClient, url: str) -> dict[str, Any]:
    async with http.stream("GET", url, headers={"accept": "application/json"}) as answer:
        answer.raise_for_status()
        body = bytearray()
        async for piece in answer.aiter_bytes():
            body += piece
            if len(body) > LARGEST:
                raise ValueError("the answer is too large")
    found = httpx.Response(200, content=bytes(body)).json()
    if not isinstance(found, dict):
        raise ValueError("the answer is no object")
    return found


def role_names(spelled: str) -> dict[str, Role]:
    """The mapping that AIRMEDIC_OIDC_ROLES spells: `team-a=admin,everyone=viewer`."""
    names: dict[str, Role] = {}
    for part in filter(None, (one.strip() for one in spelled.split(","))):
        name, _, role = part.rpartition("=")
        if not name.strip() or role.strip() not in set(Role):
            raise SettingsInvalid(
                f"AIRMEDIC_OIDC_ROLES: {part!r} must be <value of the claim>=viewer|operator|admin"
            )
        names[name.strip()] = Role(role.strip())
    return names


def sign_in_of(settings: Settings) -> SignIn | None:
    """The sign-in that the settings ask for; None without an issuer. Raises `SettingsInvalid`."""
    if not settings.oidc_issuer:
        return None
    if not settings.oidc_audience:
        raise SettingsInvalid("AIRMEDIC_OIDC_AUDIENCE must be set: without it, tokens for others would do")
    for name, url in (("ISSUER", settings.oidc_issuer), ("JWKS_URL", settings.oidc_jwks_url)):
        _check_address(f"AIRMEDIC_OIDC_{name}", url)
    return SignIn(
        issuer=settings.oidc_issuer,
        audience=settings.oidc_audience,
        role_claim=settings.oidc_role_claim,
        roles=role_names(settings.oidc_roles),
        jwks_url=settings.oidc_jwks_url,
    )


def _check_address(variable: str, url: str | None) -> None:
    """Keys that came in the clear prove nothing, but on this machine."""
    if url is None:
        return
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise SettingsInvalid(f"{variable} is {url!r}: {exc}") from exc
    near = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.hostname is None or parts.scheme not in ({"http", "https"} if near else {"https"}):
        raise SettingsInvalid(f"{variable} is {url!r}: it must be an https:// address")
