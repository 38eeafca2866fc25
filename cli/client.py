"""Airmedic's API for the command line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from pydantic import JsonValue

from graph.errors import AirmedicError

TIMEOUT = 30.0  # seconds

Body = dict[str, Any]


class ApiUnreachable(AirmedicError):
    """No Airmedic answered at the address; the message says what to do."""

    retryable = True


class ApiRefused(AirmedicError):
    """Airmedic answered no; `status` is the HTTP status, the message its problem's detail."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class ApiClient:
    """The calls the commands need."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def incidents(
        self, *, statuses: tuple[str, ...] = (), dag_id: str | None = None, limit: int = 50
    ) -> Body:
        """One page of incidents, newest first."""
        query: list[tuple[str, str | int]] = [("status", status) for status in statuses]
        query += [("dag_id", dag_id)] if dag_id is not None else []
        return await self._ask("GET", "/api/incidents", params=[*query, ("limit", limit)])

    async def incident(self, incident_id: int) -> Body:
        """Everything about one incident."""
        return await self._ask("GET", f"/api/incidents/{incident_id}")

    async def decide(self, incident_id: int, decision: Mapping[str, JsonValue]) -> Body:
        """Answer the question an incident is waiting on."""
        return await self._ask("POST", f"/api/incidents/{incident_id}/decision", json=dict(decision))

    async def close(self, incident_id: int, reason: str) -> Body:
        """Close an escalated incident."""
        return await self._ask("POST", f"/api/incidents/{incident_id}/close", json={"reason": reason})

    async def reopen(self, incident_id: int, reason: str) -> Body:
        """Give an escalated incident back."""
        return await self._ask("POST", f"/api/incidents/{incident_id}/reopen", json={"reason": reason})

    async def control(self, switches: Mapping[str, JsonValue]) -> Body:
        """Set the switches; what is in force comes back."""
        return await self._ask("POST", "/api/control", json=dict(switches))

    async def status(self) -> Body:
        """How things stand."""
        return await self._ask("GET", "/api/status")

    async def _ask(self, method: str, path: str, **more: Any) -> Body:
        address = self._http.base_url
        try:
            response = await self._http.request(method, path, **more)
        except httpx.TimeoutException as exc:
            raise ApiUnreachable(f"Airmedic at {address} did not answer within {TIMEOUT:.0f} s") from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise ApiUnreachable(
                f"no Airmedic answers at {address} ({exc}); start one with `airmedic serve`, "
                "or set AIRMEDIC_URL"
            ) from exc
        try:
            answer: JsonValue = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise ApiUnreachable(f"what answers at {address} is not Airmedic (HTTP {response.status_code})")
        if response.is_success:
            return answer
        detail = str(answer.get("detail", f"HTTP {response.status_code}"))
        if response.status_code == httpx.codes.UNAUTHORIZED:
            detail += "; set AIRMEDIC_TOKEN to a token of yours (`airmedic token create` makes one)"
        raise ApiRefused(response.status_code, detail)


@asynccontextmanager
async def open_client(url: str, token: str | None) -> AsyncIterator[ApiClient]:
    """A client of the Airmedic at `url`. Raises `ApiUnreachable` when that is no address."""
    if not url.startswith(("http://", "https://")):
        raise ApiUnreachable(f"AIRMEDIC_URL is {url!r}; it must start with http:// or https://")
    headers = {"authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(base_url=url.rstrip("/"), headers=headers, timeout=TIMEOUT) as http:
        yield ApiClient(http)
