"""Tokens for Airflow's REST API: one that was given, or one that is fetched and kept fresh."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Protocol

import httpx

from graph.errors import (
    AirflowError,
    AirflowRefused,
    AirflowUnreachable,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
)
from tools.json_text import json_of

DEFAULT_LIFE = timedelta(hours=12)  # for a token that does not tell; Airflow's own default is a day
USED_UP = 0.8  # share of its life after which a token is renewed

AIRFLOW_2 = "this is Airflow 2, which is not supported yet: Airmedic needs Airflow 3"


class TokenSource(Protocol):
    """Where the bearer token of each call comes from."""

    async def token(self) -> str:
        """A token that should be good."""

    async def renew(self, refused: str) -> str | None:
        """Another token after Airflow refused this one; None when there is no other."""


class StaticToken:
    """A token made elsewhere; nothing can be done when it expires."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def token(self) -> str:
        return self._token

    async def renew(self, refused: str) -> str | None:
        return None


class PasswordLogin:
    """Tokens from `POST /auth/token`, renewed before they are too old."""

    def __init__(
        self, http: httpx.AsyncClient, *, username: str, password: str, clock: Callable[[], datetime]
    ) -> None:
        self._http = http
        self._login = {"username": username, "password": password}
        self._clock = clock
        self._token = ""
        self._renew_at: datetime | None = None
        self._lock = asyncio.Lock()

    async def token(self) -> str:
        async with self._lock:
            if self._renew_at is None or self._clock() >= self._renew_at:
                await self._fetch()
            return self._token

    async def renew(self, refused: str) -> str | None:
        """One call fetches for all that were refused together."""
        async with self._lock:
            if self._token == refused:
                await self._fetch()
            return self._token

    async def _fetch(self) -> None:
        try:
            answer = await self._http.post("/auth/token", json=self._login)
            if answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
                raise await self._not_airflow_3()
        except httpx.TransportError as exc:
            raise AirflowUnreachable(f"log in to Airflow: no answer ({type(exc).__name__})") from exc
        if not answer.is_success:
            raise _refusal(answer.status_code)
        try:
            self._token = str(answer.json()["access_token"])
        except (ValueError, KeyError, TypeError) as exc:
            raise AirflowUnreachable("log in to Airflow: the answer holds no token") from exc
        self._renew_at = self._clock() + life_of(self._token) * USED_UP

    async def _not_airflow_3(self) -> AirflowRefused:
        old = await self._http.get("/api/v1/health")
        if old.is_success:
            return AirflowRefused(f"log in to Airflow: {AIRFLOW_2}")
        return NotFound(
            "log in to Airflow: no /auth/token here; the URL must be Airflow 3's, without /api/v2"
        )


def _refusal(status: int) -> AirflowError:
    action = f"log in to Airflow: HTTP {status}"
    if status in (httpx.codes.UNAUTHORIZED, httpx.codes.BAD_REQUEST):
        return NotAuthenticated(f"{action}: user name or password is wrong")
    if status == httpx.codes.FORBIDDEN:
        return NotPermitted(action)
    if status == httpx.codes.UNPROCESSABLE_ENTITY:
        return InvalidRequest(action)
    if httpx.codes.is_client_error(status) and status != httpx.codes.TOO_MANY_REQUESTS:
        return AirflowRefused(action)
    return AirflowUnreachable(action)


def life_of(token: str) -> timedelta:
    """How long a JWT lives by its own claims, which are read and not trusted."""
    try:
        payload = token.split(".")[1]
        claims: Any = json_of(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        seconds = float(claims["exp"]) - float(claims["iat"])
        return timedelta(seconds=min(max(seconds, 1.0), DEFAULT_LIFE.total_seconds() * 2))
    except (IndexError, KeyError, TypeError, ValueError, OverflowError, binascii.Error):
        return DEFAULT_LIFE
