"""Tells who calls from the bearer token they show, and whether they call too often."""

from __future__ import annotations

import hmac
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fastapi import FastAPI

from graph.domain import Role
from server.access.callers import LOCAL_OPERATOR, TOKEN_OPERATOR, Caller
from server.access.rates import Limiter, limiter_of, place_of, rate_of
from server.access.signin import SignIn, sign_in_of
from server.access.tokens import TokenStore, digest_of, is_token
from server.service import Service
from server.settings import Settings

FRESH = 3.0  # seconds for which a look into the database serves: a revoked token works no longer than that
KNOWN = 10_000  # callers remembered


def api_token(settings: Settings) -> str | None:
    """The token the settings name; None when there is none."""
    token = settings.api_token.get_secret_value().strip() if settings.api_token else ""
    return token or None


def shown_token(headers: Mapping[str, str]) -> str:
    """The bearer token of a request; empty when it shows none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


@dataclass(frozen=True)
class Known:
    """A caller who showed a good token, and when that was looked up."""

    caller: Caller
    at: float


class Doorkeeper:
    """One for each application. Remembers good tokens for a moment, by their digest."""

    def __init__(self, settings: Settings, *, timer: Callable[[], float] = time.monotonic) -> None:
        """Raises `SettingsInvalid` for rates or a sign-in that cannot be."""
        self._token = api_token(settings)
        self._sign_in: SignIn | None = sign_in_of(settings)
        self._limiter: Limiter = limiter_of(
            settings.redis_url.get_secret_value() if settings.redis_url else None
        )
        self._per_token = rate_of(settings.rate_token, variable="AIRMEDIC_RATE_TOKEN")
        self._per_address = rate_of(settings.rate_address, variable="AIRMEDIC_RATE_ADDRESS")
        self._per_sender = rate_of(settings.rate_webhook, variable="AIRMEDIC_RATE_WEBHOOK")
        self._timer = timer
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._stored: tuple[bool, float] | None = None

    async def asks(self, service: Service) -> bool:
        """Whether callers must show a token: as soon as one exists anywhere."""
        if self._token is not None or self._sign_in is not None:
            return True
        if self._stored is None or self._timer() - self._stored[1] > FRESH:
            self._stored = (await service.tokens.exist(), self._timer())
        return self._stored[0]

    async def identify(self, shown: str, service: Service) -> Caller | None:
        """Who shows this token; None when a token is asked for and this is none.

        Raises `NoRole` for a good sign-in without a role, `StoreUnavailable`, `SignInUnavailable`.
        """
        if self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode()):
            return Caller(name=TOKEN_OPERATOR, role=Role.ADMIN, id="token:settings")
        if is_token(shown):
            return await self._stored_caller(shown, service.tokens)
        if self._sign_in is not None and shown.count(".") == 2:
            return self._remember(shown, await self._sign_in.caller(shown))
        return None if await self.asks(service) else Caller(name=LOCAL_OPERATOR, role=Role.ADMIN)

    async def _stored_caller(self, shown: str, tokens: TokenStore) -> Caller | None:
        known = self._known.get(digest_of(shown))
        if known is not None and self._timer() - known.at <= FRESH:
            return known.caller
        found = await tokens.find(shown)
        return self._remember(shown, found.caller() if found is not None else None)

    def _remember(self, shown: str, caller: Caller | None) -> Caller | None:
        digest = digest_of(shown)
        self._known.pop(digest, None)
        if caller is not None:
            self._known[digest] = Known(caller, self._timer())
            if len(self._known) > KNOWN:
                self._known.popitem(last=False)
        return caller

    async def spend(
        self, headers: Mapping[str, str], client: tuple[str, int] | None, *, webhook: bool
    ) -> float:
        """Count one request: 0, or the seconds its sender must wait.

        Who shows a token that was good a moment ago has a budget of their own. All others of one address
        share one, so that guessing is slow and cannot use up what the known have.
        """
        if webhook:
            return await self._limiter.spend(self._per_sender, place_of(client)) if self._per_sender else 0.0
        shown = shown_token(headers)
        if key := self._key_of(shown):
            return await self._limiter.spend(self._per_token, key) if self._per_token else 0.0
        return await self._limiter.spend(self._per_address, place_of(client)) if self._per_address else 0.0

    def _key_of(self, shown: str) -> str:
        if not shown:
            return ""
        if self._token is not None and hmac.compare_digest(shown.encode(), self._token.encode()):
            return "token:settings"
        known = self._known.get(digest_of(shown))
        return known.caller.key if known is not None else ""

    async def close(self) -> None:
        """Let go of what counting holds open."""
        await self._limiter.close()


def doorkeeper_of(app: FastAPI) -> Doorkeeper:
    """The application's doorkeeper."""
    keeper: Doorkeeper = app.state.doorkeeper
    return keeper
