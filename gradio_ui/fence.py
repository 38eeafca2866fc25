"""What a browser may ask of the console: only what its page needs, only from its own pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.access.limits import hostname_of, netloc_of

BODY_LIMIT = 256 * 1024  # bytes

# Gradio serves uploads, a file reader, a proxy and more; a console without files needs none of it.
PATHS = (
    "/assets/",
    "/static/",
    "/svelte/",
    "/gradio_api/heartbeat/",
    "/gradio_api/queue/",
    "/gradio_api/run/",
    "/gradio_api/reset",
    "/gradio_api/startup-events",
    "/gradio_api/app_id",
    "/gradio_api/cancel",
)
OURS = frozenset({"/session", "/news", "/view", "/deed", "/chat", "/chat/hints"})
EXACT = OURS | {"", "/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt"}

POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'self'",
        "object-src 'none'",
        "frame-ancestors 'none'",
    )
)


class Fence:
    """Around the console. `hosts` gives the only names answered to, or None when a token is asked anyway."""

    def __init__(self, app: ASGIApp, *, hosts: Callable[[], Awaitable[Collection[str] | None]]) -> None:
        self._app = app
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        refusal = await self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["content-security-policy"] = POLICY
            await send(message)

        await self._app(scope, receive, answer)

    async def _refusal(self, scope: Scope) -> PlainTextResponse | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        hosts = await self._hosts()
        if hosts is not None and hostname_of(host) not in hosts:
            return PlainTextResponse("this server does not answer to that Host", 421)
        if origin is not None and (netloc_of(origin) or None) != host:
            return PlainTextResponse("requests from pages of another origin are not accepted", 403)
        if not _is_needed(scope["path"].removeprefix(scope.get("root_path", ""))):
            return PlainTextResponse("there is nothing here", 404)
        if scope["method"] not in {"GET", "HEAD"} and not _is_small(headers):
            return PlainTextResponse(f"the body must be JSON of at most {BODY_LIMIT} bytes", 413)
        return None


def _is_needed(path: str) -> bool:
    return ".." not in path and (path in EXACT or path.startswith(PATHS))


def _is_small(headers: Headers) -> bool:
    """JSON only: a stranger's page cannot send that without the browser asking us first."""
    declared = headers.get("content-length", "")
    is_json = headers.get("content-type", "").split(";")[0].strip().lower() == "application/json"
    return is_json and declared.isascii() and declared.isdigit() and int(declared[:12]) <= BODY_LIMIT
