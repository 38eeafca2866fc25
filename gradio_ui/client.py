"""Airmedic's API for the console: its answers as types, its refusals as errors that can be shown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, JsonValue, ValidationError

from gradio_ui.glances import Glances
from graph.errors import AirmedicError
from server.routes.me import MeOut
from server.schemas import ControlOut, IncidentDetailOut, IncidentOut, IncidentPage, LogPage
from server.schemas_overview import StatusOut, SummaryOut
from tools.json_text import json_of

TIMEOUT = 15.0  # seconds
CHAT_TIMEOUT = 300.0  # seconds between two signs of life of an answer in the chat

Answered = TypeVar("Answered", bound=BaseModel)
Query = Sequence[tuple[str, str | int]]
Body = dict[str, JsonValue]


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
        self.glances = Glances()

    async def me(self, token: str) -> MeOut:
        """Who looks. Raises `SignInNeeded`."""
        return await self._glance(MeOut, "/api/me", token)

    async def status(self, token: str) -> StatusOut:
        """How things stand."""
        return await self._glance(StatusOut, "/api/status", token)

    async def incidents(self, token: str, query: Query) -> IncidentPage:
        """One page of incidents."""
        return await self._glance(IncidentPage, "/api/incidents", token, query)

    async def incident(self, token: str, number: int) -> IncidentDetailOut:
        """Everything about one incident, of a moment ago at most."""
        return await self._glance(IncidentDetailOut, f"/api/incidents/{number}", token)

    async def log_page(self, token: str, query: Query) -> LogPage:
        """One page of the agent log."""
        return await self._glance(LogPage, "/api/logs", token, query)

    async def summary(self, token: str, window: str) -> SummaryOut:
        """Figures over a window."""
        return await self._glance(SummaryOut, "/api/metrics/summary", token, [("window", window)])

    async def newest_event(self, token: str) -> int:
        """The number of the last line of the agent log; 0 when it is empty. Never from memory."""
        query = {"order": "newest", "limit": 1}
        page = _read(LogPage, await self._ask("GET", "/api/logs", token, params=query))
        return page.items[0].id if page.items else 0

    async def stored_log(self, token: str, number: int) -> str:
        """The failed try's log as it was stored."""
        return (await self._ask("GET", f"/api/incidents/{number}/log", token)).text

    async def decide(self, token: str, number: int, decision: Body) -> IncidentOut:
        """Answer the question an incident is waiting on. Raises `MovedOn` when it is another by now."""
        return await self._write(IncidentOut, f"/api/incidents/{number}/decision", token, decision)

    async def close(self, token: str, number: int, reason: str) -> IncidentOut:
        """Close an incident that people took over."""
        return await self._write(IncidentOut, f"/api/incidents/{number}/close", token, {"reason": reason})

    async def reopen(self, token: str, number: int, reason: str) -> IncidentOut:
        """Give an incident that people took over back to Airmedic."""
        return await self._write(IncidentOut, f"/api/incidents/{number}/reopen", token, {"reason": reason})

    async def control(self, token: str, switches: Body) -> ControlOut:
        """Set the kill switch or shadow mode."""
        return await self._write(ControlOut, "/api/control", token, switches)

    async def feedback(self, token: str, said: Body) -> None:
        """Rate an incident."""
        try:
            await self._ask("POST", "/api/feedback", token, json_body=said)
        finally:
            self.glances.clear()

    async def hints(self, token: str, typed: str) -> JsonValue:
        """What could be meant by what is typed in the chat."""
        answer = await self._ask("GET", "/api/chat/hints", token, params={"q": typed})
        return _json(answer)

    async def threads(self, token: str) -> JsonValue:
        """One's own threads."""
        return _json(await self._ask("GET", "/api/chat", token))

    async def thread(self, token: str, thread: str) -> JsonValue:
        """What was said in a thread of one's own."""
        return _json(await self._ask("GET", f"/api/chat/{thread}", token))

    @asynccontextmanager
    async def chat(self, token: str, said: Body) -> AsyncIterator[AsyncIterator[tuple[str, Body]]]:
        """The answer to one message, event by event."""
        timeout = httpx.Timeout(TIMEOUT, read=CHAT_TIMEOUT)
        try:
            async with self._http.stream(
                "POST", "/api/chat", json=said, headers=_headers(token), timeout=timeout
            ) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise _problem(answer)
                yield events_of(answer.aiter_lines())
        except httpx.HTTPError as exc:
            raise ServerSilent("Airmedic stopped answering in the middle of it.") from exc

    async def _glance(self, kind: type[Answered], path: str, token: str, query: Query = ()) -> Answered:
        async def look() -> Answered:
            return _read(kind, await self._ask("GET", path, token, params=list(query)))

        return await self.glances.at((path, token, *query), look)

    async def _write(self, kind: type[Answered], path: str, token: str, body: Body) -> Answered:
        try:
            return _read(kind, await self._ask("POST", path, token, json_body=body))
        finally:
            self.glances.clear()

    async def _ask(
        self, method: str, path: str, token: str, *, params: Any = None, json_body: Body | None = None
    ) -> httpx.Response:
        try:
            answer = await self._http.request(
                method, path, params=params, json=json_body, headers=_headers(token)
            )
        except httpx.TimeoutException as exc:
            raise ServerSilent(f"Airmedic did not answer within {TIMEOUT:.0f} s.") from exc
        except (httpx.HTTPError, UnicodeError) as exc:
            raise ServerSilent("Airmedic does not answer.") from exc
        if answer.is_success:
            return answer
        raise _problem(answer)


async def events_of(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, Body]]:
    """Server-sent events with JSON objects in them; what is none is left out."""
    name, data = "message", ""
    async for line in lines:
        if line.startswith("event:"):
            name = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data += line.removeprefix("data:").removeprefix(" ") + "\n"
        elif not line:
            if data:
                body = _parsed(data)
                if isinstance(body, dict):
                    yield name, body
            name, data = "message", ""


def _headers(token: str) -> dict[str, str]:
    # Header values are bytes: what no token can hold is not sent at all.
    return {"authorization": f"Bearer {token}"} if token and token.isascii() and token.isprintable() else {}


def _parsed(spelled: str) -> JsonValue:
    try:
        return json_of(spelled)
    except ValueError:
        return None


def _json(answer: httpx.Response) -> JsonValue:
    return _parsed(answer.text)


def _read(kind: type[Answered], answer: httpx.Response) -> Answered:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as exc:
        raise ServerSilent("What answers is not an Airmedic of this version.") from exc


def _problem(answer: httpx.Response) -> AirmedicError:
    given = _json(answer)
    detail = str(given.get("detail", "")) if isinstance(given, dict) else ""
    detail = detail or f"Airmedic answered HTTP {answer.status_code}."
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        return SignInNeeded(detail)
    if answer.status_code == httpx.codes.CONFLICT:
        return MovedOn(detail)
    return ServerSilent(detail) if answer.status_code >= 500 else Refused(detail)
