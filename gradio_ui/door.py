"""What the page asks beside Gradio: signing in, news, looks, deeds, the chat. JSON only, from our page only.

The sign-in is a cookie that holds the token itself: no script can read it, it goes to the console alone,
and it outlives a restart of the server. Every request hands it on, and the server decides.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib.resources import files
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from gradio_ui import chat_page
from gradio_ui.client import ServerSilent, SignInNeeded
from gradio_ui.desk import Desk
from gradio_ui.markup import notice
from gradio_ui.news import News
from gradio_ui.views import Deed, Look, Views, perform
from graph.errors import AirmedicError

COOKIE = "airmedic_console"
KEPT = 12 * 3600  # seconds a sign-in lasts without a new one
PATHS = ("/session", "/news", "/view", "/deed", "/chat")
Handler = Callable[[Request], Awaitable[Response]]


class TokenIn(BaseModel):
    """A token as a person typed it."""

    model_config = ConfigDict(extra="forbid")

    token: str = Field(max_length=8192)


class ChatIn(BaseModel):
    """One message."""

    model_config = ConfigDict(extra="forbid")

    thread: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    message: str = Field(max_length=4000)
    timezone: str = Field("UTC", max_length=64)


def _build_of(*names: str) -> str:
    """Tells one version of the page's own files from another: an open page loads itself anew."""
    told = "".join((files("gradio_ui") / "assets" / name).read_text() for name in names)
    return hashlib.sha256(told.encode()).hexdigest()[:12]


def token_of(request: Request) -> str:
    """The token of whoever looks; empty when nobody signed in."""
    return request.cookies.get(COOKIE, "")


class FrontDoor:
    """The console's own routes."""

    def __init__(self, desk: Desk, news: News, *, path: str) -> None:
        self._desk = desk
        self._news = news
        self._views = Views(desk)
        self._path = path
        self._sign_in = (files("gradio_ui") / "assets" / "sign_in.html").read_text()
        self._build = _build_of("console.css", "shown.css", "morph.js", "console.js", "chat.js")
        routes = (
            ("/session", self._open_session, ["POST"]),
            ("/session", self._end_session, ["DELETE"]),
            ("/news", self._wait, ["GET"]),
            ("/view", self._view, ["GET"]),
            ("/deed", self._deed, ["POST"]),
            ("/chat", self._say, ["POST"]),
            ("/chat", self._history, ["GET"]),
            ("/chat/hints", self._hints, ["GET"]),
        )
        self.app = Starlette(routes=[Route(at, told(do), methods=methods) for at, do, methods in routes])

    async def sign_in_page(self, request: Request) -> Response | None:
        """The page to sign in on, for whoever has to; None for all others."""
        try:
            await self._desk.client.me(token_of(request))
        except SignInNeeded:
            return HTMLResponse(self._sign_in, headers={"cache-control": "no-store"})
        except AirmedicError:
            return None  # the page itself says that the server is away
        return None

    async def _open_session(self, request: Request) -> Response:
        token = TokenIn.model_validate_json(await request.body()).token.strip()
        try:
            me = await self._desk.client.me(token)
        except SignInNeeded:
            return JSONResponse({"said": "That is no token of this server, or it is over."}, 401)
        answer = JSONResponse({"name": me.name, "role": me.role.value})
        secure = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, token, max_age=KEPT, path=self._path, secure=secure, httponly=True, samesite="strict"
        )
        return answer

    async def _end_session(self, request: Request) -> Response:
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, path=self._path, httponly=True, samesite="strict")
        return answer

    async def _wait(self, request: Request) -> Response:
        """Answers when something changed. Who may not look is not told even that."""
        token = token_of(request)
        await self._desk.client.me(token)
        seen = request.query_params.get("seen", "")[:64]
        return JSONResponse({"revision": await self._news.wait(token, seen), "build": self._build})

    async def _view(self, request: Request) -> Response:
        look = Look.model_validate(dict(request.query_params))
        body = await self._views.draw(token_of(request), look)
        return Response(body, media_type="application/json")

    async def _deed(self, request: Request) -> Response:
        deed = Deed.model_validate_json(await request.body())
        return JSONResponse(await perform(self._desk, token_of(request), deed))

    # --- the chat ---------------------------------------------------------------------------------------

    async def _history(self, request: Request) -> Response:
        token, thread = token_of(request), request.query_params.get("thread", "")
        client = self._desk.client
        threads = await client.threads(token)
        kept = await client.thread(token, thread) if thread.replace("-", "").isalnum() else None
        turns = kept.get("turns") if isinstance(kept, dict) else None
        model = isinstance(threads, dict) and threads.get("model") is True
        parts = {
            "am-talk": chat_page.history(turns, model=model),
            "am-threads": chat_page.thread_list(threads, thread),
        }
        return JSONResponse({"parts": parts})

    async def _hints(self, request: Request) -> Response:
        found = await self._desk.client.hints(token_of(request), request.query_params.get("q", "")[:200])
        return JSONResponse({"parts": {"am-hints": chat_page.hint_list(found)}})

    async def _say(self, request: Request) -> Response:
        said = ChatIn.model_validate_json(await request.body())
        pieces = self._answering(token_of(request), said)
        return StreamingResponse(pieces, media_type="application/x-ndjson")

    async def _answering(self, token: str, said: ChatIn) -> AsyncIterator[bytes]:
        """The answer as far as it has come, drawn anew with each event, one JSON object a line."""
        turn = chat_page.Turn()
        yield _line(me=chat_page.said(said.message), html=chat_page.answer(turn))
        try:
            async with self._desk.client.chat(token, said.model_dump(mode="json")) as events:
                async for name, data in events:
                    turn.take(name, data)
                    yield _line(html=chat_page.answer(turn))
        except AirmedicError as exc:
            turn.error = str(exc)
        turn.ended = True
        yield _line(html=chat_page.answer(turn), ended=True)


def _line(**given: object) -> bytes:
    return json.dumps(given, ensure_ascii=False).encode() + b"\n"


def told(handler: Handler) -> Handler:
    """The handler, with errors as answers that the page can show."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except SignInNeeded:
            return _problem(401, "Sign in again: your token is no longer known here.")
        except ValidationError:
            return _problem(422, "The page sent something that is not understood; load it again.")
        except ServerSilent as exc:
            return _problem(503, str(exc))
        except AirmedicError as exc:
            return _problem(409, str(exc))

    return answer


def _problem(status: int, words: str) -> Response:
    body: dict[str, Any] = {"said": words, "html": notice(words, tone="bad", title="That did not work.")}
    return JSONResponse(body, status)
