"""The console on a server: `mount` answers at once, and brings the widgets up behind the server's start.

Gradio takes seconds to import, so nothing here imports it before the server answers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

import httpx
import structlog
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from gradio_ui.client import TIMEOUT, ConsoleClient
from gradio_ui.desk import Desk
from gradio_ui.door import PATHS, FrontDoor
from gradio_ui.fence import Fence
from gradio_ui.news import News
from server.access.doorkeeper import doorkeeper_of
from server.access.entry import is_loopback, local_hosts
from server.service import Service

PATH = "/console"
AFTER_START = 0.5  # seconds: the API's own start goes first

log = structlog.get_logger("console")


def mount(
    app: FastAPI, *, api_url: str | None = None, path: str = PATH, hosts: Collection[str] | None = None
) -> None:
    """Serve the console of the API at `api_url` under `path`. Call it before the app starts.

    Without `api_url` it is the app's own API, at the port its settings name. `hosts` are the names the
    console answers to; without them, those the app's own service answers to.
    """
    console = LazyConsole(app, api_url=api_url, path=path, hosts=hosts)
    app.mount(path, Fence(console, hosts=console.hosts))
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(running: FastAPI) -> AsyncIterator[Any]:
        async with inner(running) as state, console.opened():
            yield state

    app.router.lifespan_context = lifespan


class LazyConsole:
    """A loading page until the widgets are there; the sign-in page for those who have to."""

    def __init__(
        self, app: FastAPI, *, api_url: str | None, path: str, hosts: Collection[str] | None
    ) -> None:
        self._app = app
        self._api_url = api_url
        self._path = path
        self._given_hosts = hosts
        self._page = _loading()
        self._inner: ASGIApp | None = None
        self._door: FrontDoor | None = None

    async def hosts(self) -> Collection[str] | None:
        """The only Host names answered to; None when callers must show a token anyway."""
        service: Service | None = getattr(self._app.state, "service", None)
        if service is None:
            return self._given_hosts
        asks = await doorkeeper_of(self._app).asks(service)
        return None if asks else local_hosts(service.settings)

    def _address(self) -> str:
        if self._api_url is not None:
            return self._api_url.rstrip("/")
        settings = self._app.state.service.settings
        host = settings.host if is_loopback(settings.host) else "127.0.0.1"
        return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = scope["path"].removeprefix(scope.get("root_path", ""))
        if self._inner is None or self._door is None:
            status = 200 if place in {"", "/"} else 503
            page = HTMLResponse(self._page, status, headers={"cache-control": "no-store", "refresh": "1"})
            await page(scope, receive, send)
            return
        if place.startswith(PATHS):
            await self._door.app(scope, receive, send)
            return
        if place in {"", "/"} and (asked := await self._door.sign_in_page(Request(scope))) is not None:
            await asked(scope, receive, send)
            return
        await self._inner(scope, receive, send)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Bring the console up beside whatever runs in the block; end it with the block."""
        async with AsyncExitStack() as stack:
            http = httpx.AsyncClient(base_url=self._address(), timeout=TIMEOUT)
            await stack.enter_async_context(http)
            task = asyncio.create_task(self._bring_up(stack, ConsoleClient(http)), name="console")
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
                self._inner = self._door = None

    async def _bring_up(self, stack: AsyncExitStack, client: ConsoleClient) -> None:
        await asyncio.sleep(AFTER_START)
        os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
        desk, news = Desk(client), News(client)
        try:
            from_gradio = await asyncio.to_thread(_build, client, self._path)
            await stack.enter_async_context(from_gradio.router.lifespan_context(from_gradio))
            blocks: Any = from_gradio.get_blocks()
            blocks.run_startup_events()
            await blocks.run_extra_startup_events()
        except (ImportError, OSError, ValueError, RuntimeError) as exc:
            log.exception("console_not_available")
            self._page = self._page.replace(
                "<!--state-->", f"The console could not start: {type(exc).__name__}."
            )
            return
        await stack.enter_async_context(news.watching())
        self._door = FrontDoor(desk, news, path=self._path)
        self._inner = from_gradio
        log.info("console_ready", path=self._path)


def _build(client: ConsoleClient, path: str) -> Any:
    """Import Gradio and make its application; takes seconds, so it runs in a thread."""
    from gradio_ui.blocks import make_application

    return make_application(client, path=path)


def _loading() -> str:
    return (files("gradio_ui") / "assets" / "loading.html").read_text()
