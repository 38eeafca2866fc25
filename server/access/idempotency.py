"""`Idempotency-Key` on writes: the same request again gets the first one's answer, and is done once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Awaitable, Callable

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.errors import AirmedicError, StoreUnavailable
from server.access.callers import Caller
from server.access.doorkeeper import doorkeeper_of, shown_token
from server.access.kept_answers import Kept, KeptAnswers
from server.access.limits import Refusal, refuse
from server.access.signin import NoRole
from server.service import Service

log = structlog.get_logger("api")

HEADER = "idempotency-key"
KEY = re.compile(r"[\x21-\x7e]{1,255}")
LARGEST = 256 * 1024  # bytes of an answer that is kept
SAME_AGAIN = ("content-type", "etag", "location")
# Answers that say nothing of the write itself: the next try may fare better.
NOT_KEPT = frozenset({401, 403, 408, 413, 415, 421, 429})


class Idempotency:
    """Stands right before the application. The body has been read and checked when a request comes here."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith("/api/"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get(HEADER)
        if given is None:
            await self._app(scope, receive, send)
            return
        try:
            if KEY.fullmatch(given) is None:
                raise Refusal(422, "idempotency-key", "Idempotency-Key: 1 to 255 visible ASCII characters")
            service: Service = scope["app"].state.service
            who = await _caller(scope, headers, service)
            if who is None:
                await self._app(scope, receive, send)
                return
            await self._once(given, who, service.kept_answers, scope, receive, send)
        except StoreUnavailable as exc:
            await refuse(Refusal(503, "database-unavailable", str(exc), wait=5), scope, receive, send)
        except Refusal as refusal:
            await refuse(refusal, scope, receive, send)

    async def _once(
        self, given: str, who: Caller, answers: KeptAnswers, scope: Scope, receive: Receive, send: Send
    ) -> None:
        message = await receive()
        asked = _digest(
            scope["method"],
            scope["path"],
            scope["query_string"].decode("latin-1"),
            Headers(scope=scope).get("if-match", ""),
            message.get("body", b"").decode("latin-1"),
        )
        key = _digest(who.key, who.role.value, given)
        found = await answers.begin(key, asked)
        if found is not None:
            await _again(found, asked, send)
            return

        async def settle(kept: Kept | None) -> None:
            await _settle(answers, key, kept)

        recorder = _Recorder(send, asked, settle)
        try:
            await self._app(scope, _first(message, receive), recorder)
        finally:
            await recorder.end()


async def _caller(scope: Scope, headers: Headers, service: Service) -> Caller | None:
    """Nobody gets a kept answer without showing the token of whom it is kept for."""
    try:
        return await doorkeeper_of(scope["app"]).identify(shown_token(headers), service)
    except (NoRole, AirmedicError):
        return None  # the application says it better


async def _again(found: Kept, asked: str, send: Send) -> None:
    if found.request != asked:
        raise Refusal(422, "idempotency-key-reused", "this Idempotency-Key was used for another request")
    if found.status is None:
        raise Refusal(409, "idempotency-key-at-work", "the first request with this key is at work", wait=1)
    start: Message = {"type": "http.response.start", "status": found.status, "headers": []}
    headers = MutableHeaders(scope=start)
    for name, value in found.headers.items():
        headers[name] = value
    headers["content-length"] = str(len(found.body))
    headers["idempotency-replayed"] = "true"
    await send(start)
    await send({"type": "http.response.body", "body": found.body})


async def _settle(answers: KeptAnswers, key: str, kept: Kept | None) -> None:
    """The write is done or not whatever happens here: its answer is on its way already."""
    try:
        if kept is None:
            await answers.forget(key)
        else:
            await answers.keep(key, kept)
    except StoreUnavailable as exc:
        log.warning("answer_not_kept", error=str(exc))


class _Recorder:
    """Passes an answer on, kept before its end is sent; one that streams or is large is not kept."""

    def __init__(self, send: Send, asked: str, settle: Callable[[Kept | None], Awaitable[None]]) -> None:
        self._send = send
        self._asked = asked
        self._settle = settle
        self._settled = False
        self._status = 0
        self._headers: dict[str, str] = {}
        self._body: bytearray | None = bytearray()
        self._ended = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = Headers(raw=message["headers"])
            self._headers = {name: headers[name] for name in SAME_AGAIN if name in headers}
            if headers.get("content-type", "").startswith("text/event-stream"):
                self._body = None
        elif message["type"] == "http.response.body":
            if self._body is not None:
                self._body += message.get("body", b"")
                if len(self._body) > LARGEST:
                    self._body = None
            if not message.get("more_body", False):
                self._ended = True
                await self.end()
        await self._send(message)

    async def end(self) -> None:
        """Keep the answer, or give the key back when there is none to keep."""
        if not self._settled:
            self._settled = True
            await self._settle(self._kept())

    def _kept(self) -> Kept | None:
        says_it = 200 <= self._status < 500 and self._status not in NOT_KEPT
        if not (says_it and self._ended) or self._body is None:
            return None
        return Kept(self._asked, self._status, self._headers, bytes(self._body))


def _first(message: Message, receive: Receive) -> Receive:
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return message

    return again


def _digest(*parts: str) -> str:
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogateescape")
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()
