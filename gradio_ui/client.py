"""Airmedic's API for the console: its answers as types, its refusals as errors that can be shown."""

from __future__ import annotations

from typing import TypeVar

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from gradio_ui.glances import Glances
from graph.domain import Status
from graph.errors import AirmedicError
from server.schemas import AgentEventOut, IncidentDetailOut, IncidentOut, IncidentPage, LogPage, StatusOut

TIMEOUT = 15.0  # seconds
LOG_PAGE = 1000  # events of one request
LOG_PAGES = 50  # requests of one look at the agent log

Answered = TypeVar("Answered", bound=BaseModel)


class ServerSilent(AirmedicError):
    """No Airmedic answered; the same call may work later."""

    retryable = True


class SignInNeeded(AirmedicError):
    """The server wants a token, and this one is not it."""


class MovedOn(AirmedicError):
    """The incident is not where it was when it was shown."""


class Refused(AirmedicError):
    """The server understood and said no; the message is its reason."""


class ConsoleClient:
    """The calls of the console. Every one carries the token of the person who looks."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._glances = Glances()

    async def status(self, token: str) -> StatusOut:
        """How things stand."""

        async def look() -> StatusOut:
            return _read(StatusOut, await self._ask("GET", "/api/status", token))

        return await self._glances.at(("status", token), look)

    async def incidents(
        self, token: str, *, statuses: tuple[Status, ...] = (), limit: int = 50
    ) -> IncidentPage:
        """The newest incidents; of these statuses only, when some are named."""
        query: list[tuple[str, str | int]] = [("status", status.value) for status in statuses]
        query.append(("limit", limit))

        async def look() -> IncidentPage:
            return _read(IncidentPage, await self._ask("GET", "/api/incidents", token, params=query))

        return await self._glances.at(("incidents", token, *query), look)

    async def incident(self, token: str, number: int) -> IncidentDetailOut:
        """Everything about one incident, of a moment ago at most."""

        async def look() -> IncidentDetailOut:
            return _read(IncidentDetailOut, await self._ask("GET", f"/api/incidents/{number}", token))

        return await self._glances.at(("incident", token, number), look)

    async def stored_log(self, token: str, number: int) -> str:
        """The failed try's log as it was stored."""
        return (await self._ask("GET", f"/api/incidents/{number}/log", token)).text

    async def decide(self, token: str, number: int, decision: dict[str, JsonValue]) -> IncidentOut:
        """Answer the question an incident is waiting on. Raises `MovedOn` when it is another by now."""
        try:
            answer = await self._ask("POST", f"/api/incidents/{number}/decision", token, json=decision)
        finally:
            self._glances.clear()
        return _read(IncidentOut, answer)

    async def close(self, token: str, number: int, reason: str) -> IncidentOut:
        """Close an incident that people took over."""
        answer = await self._ask("POST", f"/api/incidents/{number}/close", token, json={"reason": reason})
        self._glances.clear()
        return _read(IncidentOut, answer)

    async def events(self, token: str, *, after: int, keep: int) -> tuple[list[AgentEventOut], int]:
        """What the agent log holds after `after`, at most the newest `keep`; and where to go on."""
        found: list[AgentEventOut] = []
        for _ in range(LOG_PAGES):
            query = {"after": after, "limit": LOG_PAGE}
            page = _read(LogPage, await self._ask("GET", "/api/logs", token, params=query))
            found = [*found, *page.items][-keep:]
            after = page.next
            if len(page.items) < LOG_PAGE:
                break
        return found, after

    async def _ask(
        self,
        method: str,
        path: str,
        token: str,
        *,
        params: object = None,
        json: dict[str, JsonValue] | None = None,
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        try:
            answer = await self._http.request(
                method,
                path,
                params=params,  # type: ignore[arg-type]
                json=json,
                headers=headers,
            )
        except httpx.TimeoutException as exc:
            raise ServerSilent(f"Airmedic did not answer within {TIMEOUT:.0f} s.") from exc
        except (httpx.HTTPError, UnicodeError) as exc:
            raise ServerSilent("Airmedic does not answer.") from exc
        if answer.is_success:
            return answer
        raise _problem(answer)


def _read(kind: type[Answered], answer: httpx.Response) -> Answered:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as exc:
        raise ServerSilent("What answers is not an Airmedic of this version.") from exc


def _problem(answer: httpx.Response) -> AirmedicError:
    try:
        given = answer.json()
    except ValueError:
        given = None
    detail = str(given.get("detail", "")) if isinstance(given, dict) else ""
    detail = detail or f"Airmedic answered HTTP {answer.status_code}."
    if answer.status_code in {httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN}:
        return SignInNeeded(detail)
    if answer.status_code == httpx.codes.CONFLICT:
        return MovedOn(detail)
    return ServerSilent(detail) if answer.status_code >= 500 else Refused(detail)
