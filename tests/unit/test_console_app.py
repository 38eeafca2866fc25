"""The console beside the API: it answers at once, serves only what its page needs, and only to its page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gradio_ui.app import mount
from gradio_ui.blocks import make_application
from gradio_ui.client import ConsoleClient

HOSTS = frozenset({"127.0.0.1"})


@pytest.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    """A browser on a console that has only begun to start."""
    app = FastAPI()
    mount(app, api_url="http://127.0.0.1:1", hosts=HOSTS)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8642") as http,
    ):
        yield http


async def test_the_page_answers_before_gradio_is_there(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/console/")

    assert answer.status_code == 200
    assert "The console is starting" in answer.text
    assert answer.headers["refresh"] == "1"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param("gradio_api/upload", id="uploads"),
        pytest.param("gradio_api/file=/etc/passwd", id="files"),
        pytest.param("gradio_api/proxy=http://example.org", id="the proxy"),
        pytest.param("gradio_api/vibe-edit/", id="the editor"),
        pytest.param("gradio_api/info", id="the description of the handlers"),
        pytest.param("monitoring", id="the dashboard"),
        pytest.param("assets/../gradio_api/upload", id="a way around"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_the_page_does_not_need_is_not_there(
    browser: httpx.AsyncClient, method: str, path: str
) -> None:
    assert (await browser.request(method, f"/console/{path}")).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"origin": "http://127.0.0.1:8642"}, 503, id="our own page, still starting"),
        pytest.param({"origin": "http://evil.example"}, 403, id="a stranger's page"),
        pytest.param({"origin": "null"}, 403, id="a page without origin"),
        pytest.param({"origin": "http://["}, 403, id="an origin that is none"),
        pytest.param({"host": "["}, 421, id="a name that is none"),
        pytest.param({"host": "rebound.example"}, 421, id="another name for this address"),
        pytest.param({"content-type": "text/plain"}, 413, id="a form in disguise"),
        pytest.param({"content-length": "999999999"}, 413, id="too large"),
    ],
)
async def test_only_its_own_page_may_send(
    browser: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    given: dict[str, Any] = {"content-type": "application/json", **headers}
    answer = await browser.post("/console/gradio_api/run/predict", content=b"{}", headers=given)

    assert answer.status_code == status


async def test_a_console_that_nobody_looks_at_wakes_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = asyncio.sleep, list[float]()

    async def noted(delay: float, result: Any = None) -> Any:
        asked.append(delay)
        return await real(delay, result)

    async with httpx.AsyncClient() as http:
        from_gradio = make_application(ConsoleClient(http), path="/console")
        monkeypatch.setattr(asyncio, "sleep", noted)
        async with from_gradio.router.lifespan_context(from_gradio):
            from_gradio.get_blocks().run_startup_events()
            await real(0.1)

    assert asked
    assert min(asked) >= 0.5
