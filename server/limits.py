"""What every request passes first: an id, size and depth caps while streaming, and the browser's fences.

Plain ASGI, so that nothing of a body is held beyond the cap and answers can stream.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Collection
from urllib.parse import urlsplit
from uuid import uuid4

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.problems import problem_response

log = structlog.get_logger("api")

BODY_LIMIT = 256 * 1024  # bytes
BODY_TIME = 20.0  # seconds a client may take to send its body
DEPTH_LIMIT = 32  # nested JSON arrays and objects

GUARDED = ("/api/", "/webhook")
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
BRACKETS = re.compile(rb"[\[\]{}]")

HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
DATA_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}


class Refusal(Exception):
    """A request that does not reach the application."""

    def __init__(self, status: int, name: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail


def is_too_deep(body: bytes, *, limit: int = DEPTH_LIMIT) -> bool:
    """Whether JSON nests deeper than `limit`; looked at without parsing."""
    if body.count(b"{") + body.count(b"[") <= limit:
        return False
    depth = 0
    for bracket in BRACKETS.finditer(STRINGS.sub(b"", body)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > limit:
            return True
    return False


def _is_guarded(path: str) -> bool:
    return path.startswith(GUARDED[0]) or path == GUARDED[1]


class Envelope:
    """Outermost: gives each request an id, each answer its headers, and turns a defect into a plain 500."""

    def __init__(self, app: ASGIApp, *, timer: Callable[[], float] = time.perf_counter) -> None:
        self._app = app
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started = self._timer()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _add_headers(MutableHeaders(scope=message), scope["path"], request_id)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, answer)
            except Exception:  # the outermost loop of a request
                log.exception("request_defect", method=scope["method"], path=scope["path"])
                if status:
                    raise
                await _refuse(
                    Refusal(500, "internal", "the server could not do this; its log says why"),
                    scope,
                    receive,
                    answer,
                )
            self._note(scope, status, started)

    def _note(self, scope: Scope, status: int, started: float) -> None:
        changes = scope["method"] in WITH_BODY and _is_guarded(scope["path"])
        record = log.info if changes or status >= 400 else log.debug
        took = round((self._timer() - started) * 1000, 1)
        # Never the query string: people paste secrets there.
        record("request", method=scope["method"], path=scope["path"], status=status, milliseconds=took)


def _add_headers(headers: MutableHeaders, path: str, request_id: str) -> None:
    headers["x-request-id"] = request_id
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if _is_guarded(path):
        for name, value in DATA_HEADERS.items():
            headers.setdefault(name, value)


class Gate:
    """Refuses what is too large, too deep, too slow, compressed, not JSON, or sent by a stranger's page."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str] | None) -> None:
        """`hosts`: the only names this server answers to; None when callers must show a token anyway."""
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_guarded(scope["path"]):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_sender(headers)
            if scope["method"] in WITH_BODY:
                body = await _read_body(headers, receive)
                _check_body(headers, body)
                receive = _replay(body, receive)
        except Refusal as refusal:
            await _refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_sender(self, headers: Headers) -> None:
        """Without a token, a page in a browser on this machine could speak for its user."""
        host = headers.get("host", "")
        if self._hosts is not None and (urlsplit(f"//{host}").hostname or "") not in self._hosts:
            raise Refusal(421, "wrong-host", "this server does not answer to the Host that was asked for")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refusal(403, "cross-origin", "requests from pages of another origin are not accepted")


def _check_body(headers: Headers, body: bytes) -> None:
    if not body:
        return
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "not-json", "the body must be JSON, with content-type: application/json")
    if is_too_deep(body):
        raise Refusal(422, "too-deep", f"body: nested deeper than {DEPTH_LIMIT}")


async def _read_body(headers: Headers, receive: Receive) -> bytes:
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "compressed", "compressed bodies are not accepted")
    too_large = Refusal(413, "too-large", f"the body is larger than {BODY_LIMIT} bytes")
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 12 or int(declared) > BODY_LIMIT):
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIME):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refusal(400, "cut-off", "the body ended early")
                body += message.get("body", b"")
                if len(body) > BODY_LIMIT:
                    raise too_large
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError as exc:
        raise Refusal(408, "too-slow", f"the body took longer than {BODY_TIME:.0f} s") from exc


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand the body on once, then whatever comes next (a disconnect)."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replayed


async def _refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    answer = problem_response(
        status=refusal.status,
        name=refusal.name,
        detail=refusal.detail,
        path=scope["path"],
        request_id=scope["state"]["request_id"],
        # What is left of the body is not read: the connection cannot be used again.
        headers={"connection": "close"} if refusal.status in {408, 413} else None,
    )
    await answer(scope, receive, send)
