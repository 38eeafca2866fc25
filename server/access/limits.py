"""What every request passes first: an id, size and depth caps while streaming, and the browser's fences.

Plain ASGI, so that nothing of a body is held beyond the cap and answers can stream.
"""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from urllib.parse import urlsplit

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.errors import StoreUnavailable
from server.access.doorkeeper import doorkeeper_of
from server.access.time_limit import TimeLimit
from server.problems import problem_response

log = structlog.get_logger("api")

BODY_LIMIT = 256 * 1024  # bytes
BODY_TIME = 20.0  # seconds a client may take to send its body
# Of all bodies that are being read at once. Beyond it only small ones go on: storms of events still come in.
HELD_LIMIT = 8 * 1024 * 1024  # bytes
SMALL = 16 * 1024  # bytes
DEPTH_LIMIT = 32  # nested JSON arrays and objects

GUARDED = ("/api/", "/webhook")
UNREAD = frozenset({408, 413, 429, 503})  # answers given before the whole body was read
WITH_BODY = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# Possessive, and an open text is taken to its end: whatever was sent is walked through once.
TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
OPENING = (b"[", b"{")

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

    def __init__(self, status: int, name: str, detail: str, *, wait: float = 0.0) -> None:
        """`wait`: seconds after which the same request may fare better."""
        super().__init__(detail)
        self.status = status
        self.name = name
        self.detail = detail
        self.wait = wait


def is_too_deep(body: bytes, *, limit: int = DEPTH_LIMIT) -> bool:
    """Whether JSON nests deeper than `limit`; looked at without parsing."""
    if body.count(b"{") + body.count(b"[") <= limit:
        return False
    depth = 0
    for found in TOKENS.finditer(body):
        token = found.group()
        if token in OPENING:
            depth += 1
        elif token[:1] != b'"':
            depth -= 1
        elif found.end() == len(body):
            depth += token.count(b"[") + token.count(b"{")  # an open text hides nothing
        if depth > limit:
            return True
    return False


def _is_guarded(path: str) -> bool:
    return path.startswith(GUARDED[0]) or path == GUARDED[1]


class Envelope:
    """Outermost: gives each request an id, each answer its headers, and turns a defect into a plain 500."""

    def __init__(
        self, app: ASGIApp, *, browsers: bool = True, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        """`browsers`: whether one may be asking. Else what was taken goes without the fences for them."""
        self._app = app
        self._browsers = browsers
        self._timer = timer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = self._timer()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._browsers or status != 202:
                    _add_headers(message, scope["path"], request_id)
                else:
                    message["headers"] = [
                        *message["headers"],
                        (b"x-request-id", request_id.encode()),
                        AS_SAID,
                    ]
            await send(message)

        bound = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, answer)
        except Exception:  # the outermost loop of a request
            log.exception("request_defect", method=scope["method"], path=scope["path"])
            if status:
                raise
            await refuse(
                Refusal(500, "internal", "the server could not do this; its log says why"),
                scope,
                receive,
                answer,
            )
        finally:
            structlog.contextvars.reset_contextvars(**bound)
        # An event that was taken shows in the agent log; in a storm a line for each would cost more than it.
        if status != 202 or scope["path"] != GUARDED[1]:
            self._note(scope, status, started, request_id)

    def _note(self, scope: Scope, status: int, started: float, request_id: str) -> None:
        changes = scope["method"] in WITH_BODY and _is_guarded(scope["path"])
        record = log.info if changes or status >= 400 else log.debug
        took = round((self._timer() - started) * 1000, 1)
        # Never the query string: people paste secrets there.
        record(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            milliseconds=took,
            request_id=request_id,
        )


def _request_id(scope: Scope) -> str:
    """The caller's own, when it is one; else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id":
            given = value.decode("latin-1")
            return given if REQUEST_ID.fullmatch(given) else _new_id()
    return _new_id()


def _new_id() -> str:
    return os.urandom(16).hex()


def _raw(headers: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name.encode(), value.encode()) for name, value in headers.items())


AS_SAID = (b"x-content-type-options", b"nosniff")
OF_ALL, OF_DATA = _raw(HEADERS), _raw(HEADERS | DATA_HEADERS)
OURS = frozenset({b"x-request-id", *(name for name, _ in OF_DATA)})


def _add_headers(message: Message, path: str, request_id: str) -> None:
    given = message.get("headers", ())
    names = {name for name, _ in given}
    ours = OF_DATA if _is_guarded(path) else OF_ALL
    if not names.isdisjoint(OURS):
        given = [one for one in given if one[0] != b"x-request-id"]
        ours = tuple(one for one in ours if one[0] not in names)
    message["headers"] = [*given, (b"x-request-id", request_id.encode()), *ours]


class Senders:
    """Who may send: no stranger's page in somebody's browser, and nobody too often."""

    def __init__(self, *, hosts: Collection[str], origins: Collection[str]) -> None:
        """`hosts`: the names answered to while nobody must show a token. `origins`: whose pages may call."""
        self._hosts = hosts
        self._origins = origins

    async def check(self, headers: Mapping[str, str], scope: Scope) -> None:
        """Raises `Refusal`. Without a token, a page in a browser here could speak for its user."""
        host = headers.get("host", "")
        origin = headers.get("origin")
        if origin is not None and origin not in self._origins and (netloc_of(origin) or None) != host:
            raise Refusal(403, "cross-origin", "requests from pages of another origin are not accepted")
        if not (hostname_of(host) in self._hosts or await _asks(scope)):
            raise Refusal(421, "wrong-host", "this server does not answer to the Host that was asked for")
        keeper, client = doorkeeper_of(scope["app"]), scope.get("client")
        wait = await keeper.spend(headers, client, webhook=scope["path"] == GUARDED[1])
        if wait:
            detail = f"too many requests; ask again in {math.ceil(wait)} s"
            raise Refusal(429, "rate-limited", detail, wait=wait)


class Fence:
    """Refuses what `Senders` does not let through."""

    def __init__(self, app: ASGIApp, *, senders: Senders) -> None:
        self._app = app
        self._senders = senders

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_guarded(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            await self._senders.check(Headers(scope=scope), scope)
        except Refusal as refusal:
            await refuse(refusal, scope, receive, send)
            return
        await self._app(scope, receive, send)


def netloc_of(origin: str) -> str:
    """Host and port of an origin as a browser or somebody else wrote it; empty when it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


@lru_cache(maxsize=64)
def hostname_of(host: str) -> str:
    """The name in a Host header, without its port; empty when it is none."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


async def _asks(scope: Scope) -> bool:
    """Whether callers must show a token anyway; no, as long as that cannot be told."""
    try:
        return await doorkeeper_of(scope["app"]).asks(scope["app"].state.service)
    except StoreUnavailable:
        return False


class Bodies:
    """Reads bodies; refuses what is too large, too deep, too slow, compressed or not JSON."""

    def __init__(self, *, body_time: float = BODY_TIME, held_limit: int = HELD_LIMIT) -> None:
        self._body_time = body_time
        self._in_time = TimeLimit(body_time)
        self._held_limit = held_limit
        self._held = 0

    async def read(self, headers: Mapping[str, str], receive: Receive) -> bytes:
        """The whole body, checked. Raises `Refusal`."""
        _check_length(headers)
        body = await self._read(receive)
        _check_body(headers, body)
        return body

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        try:
            with self._in_time:
                while not self._is_last(await receive(), body):
                    pass
            return bytes(body)
        except TimeoutError as exc:
            detail = f"the body took longer than {self._body_time:.0f} s"
            raise Refusal(408, "too-slow", detail) from exc
        finally:
            self._held -= len(body)

    def _is_last(self, message: Message, body: bytearray) -> bool:
        """Add the piece to the body; whether it is whole now. Raises `Refusal`."""
        if message["type"] == "http.disconnect":
            raise Refusal(400, "cut-off", "the body ended early")
        piece = message.get("body", b"")
        body += piece
        self._held += len(piece)
        if len(body) > BODY_LIMIT:
            raise too_large()
        if self._held > self._held_limit and len(body) > SMALL:
            raise Refusal(503, "busy", "too many large bodies are being sent at once", wait=1)
        return not message.get("more_body", False)


class Gate:
    """Hands on what `Bodies` has read and found well."""

    def __init__(self, app: ASGIApp, *, bodies: Bodies) -> None:
        self._app = app
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_guarded(scope["path"]) or scope["method"] not in WITH_BODY:
            await self._app(scope, receive, send)
            return
        try:
            body = await self._bodies.read(Headers(scope=scope), receive)
        except Refusal as refusal:
            await refuse(refusal, scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), send)


def _check_body(headers: Mapping[str, str], body: bytes) -> None:
    if not body:
        return
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, "not-json", "the body must be JSON, with content-type: application/json")
    if is_too_deep(body):
        raise Refusal(422, "too-deep", f"body: nested deeper than {DEPTH_LIMIT}")


def too_large() -> Refusal:
    """The body has more bytes than any of ours needs."""
    return Refusal(413, "too-large", f"the body is larger than {BODY_LIMIT} bytes")


def _check_length(headers: Mapping[str, str]) -> None:
    """What the headers alone give away, before anything is read."""
    if headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise Refusal(415, "compressed", "compressed bodies are not accepted")
    declared = headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and (len(declared) > 12 or int(declared) > BODY_LIMIT):
        raise too_large()


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


async def refuse(refusal: Refusal, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the problem that the refusal is."""
    headers = {"retry-after": str(math.ceil(refusal.wait))} if refusal.wait else {}
    if refusal.status in UNREAD:
        # What is left of the body is not read: the connection cannot be used again.
        headers["connection"] = "close"
    answer = problem_response(
        status=refusal.status,
        name=refusal.name,
        detail=refusal.detail,
        path=scope["path"],
        request_id=scope["state"]["request_id"],
        headers=headers,
    )
    await answer(scope, receive, send)
