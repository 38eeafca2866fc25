"""A browser, and Airmedics for it to look at: each in a process of its own, on the in-memory Airflow."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from evals.faults.sandbox import PROJECT, free_port
from gradio_ui.door import COOKIE

START = 90.0  # seconds: Gradio alone takes ten on a busy machine
LOOK = 0.2  # seconds
SHOWN = 15_000  # milliseconds a page has to show something

os.environ.setdefault("PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD", "1")


@dataclass
class Site:
    """A running Airmedic and its console."""

    url: str
    home: Path
    port: int
    settings: dict[str, Any]
    tokens: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def console(self) -> str:
        return f"{self.url}/console/"

    async def start(self, *, history: int = 0) -> None:
        """Return when the console answers."""
        plan = {"port": self.port, "home": str(self.home), "settings": self.settings, "history": history}
        plan["hostile"] = not history  # a past is for looking at
        with (self.home / "stage.log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tests.browser.stage", json.dumps(plan),
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=PROJECT.parent,
                start_new_session=True,
            )  # fmt: skip
        await self.ready()
        self.tokens = json.loads((self.home / "tokens.json").read_text())

    async def ready(self) -> None:
        """Wait until the console is there."""
        async with httpx.AsyncClient() as http, asyncio.timeout(START):
            while not await self._answers(http):
                over = self.process is not None and self.process.returncode is not None
                assert not over, (self.home / "stage.log").read_text()[-2000:]
                await asyncio.sleep(LOOK)

    async def _answers(self, http: httpx.AsyncClient) -> bool:
        try:
            return (await http.get(f"{self.console}session")).status_code == 405
        except httpx.TransportError:
            return False

    async def stop(self) -> None:
        """End it, and whatever it started."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def call(self, method: str, path: str, *, who: str = "root", **given: Any) -> Any:
        """The API, or a route of the stage, as one of the team."""
        headers = {"authorization": f"Bearer {self.tokens[who]}"}
        async with httpx.AsyncClient(base_url=self.url, headers=headers, timeout=20) as http:
            answer = await http.request(method, path, **given)
        assert answer.is_success, answer.text
        return answer.json()

    async def fail(self, dag: str, run: str) -> None:
        """Let a run of this pipeline fail."""
        await self.call("POST", "/stage/fail", params={"dag": dag, "run": run})

    async def incident(self, run: str, status: str | None = None) -> dict[str, Any]:
        """The incident of a run, once there is one that stands so."""
        end = time.monotonic() + 40
        while time.monotonic() < end:
            listed = (await self.call("GET", "/api/incidents", params={"limit": 100}))["items"]
            for one in listed:
                if one["task"]["run_id"] == run and status in (None, one["status"]):
                    found: dict[str, Any] = one
                    return found
            await asyncio.sleep(LOOK)
        raise AssertionError(f"no incident of run {run!r} is {status}")


@asynccontextmanager
async def open_site(home: Path, *, history: int = 0, **settings: Any) -> AsyncIterator[Site]:
    """An Airmedic with these settings, ended with the block."""
    port = free_port()
    site = Site(f"http://127.0.0.1:{port}", home, port, settings)
    try:
        await site.start(history=history)
        yield site
    finally:
        await site.stop()


def chromium() -> str | None:
    """The system's Chromium; `make browser` installs it."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def chrome() -> AsyncIterator[Browser]:
    path = chromium()
    if path is None:
        missing = "no Chromium here: `make browser` installs it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    async with async_playwright() as playwright:
        # Root, as in CI's containers, has no sandbox.
        browser = await playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        await browser.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """One Airmedic for most tests; each breaks runs of its own."""
    async with open_site(tmp_path_factory.mktemp("site")) as site:
        yield site


class Visits:
    """Opens the console as one of the team; remembers what went wrong on the pages."""

    def __init__(self, chrome: Browser) -> None:
        self._chrome = chrome
        self._contexts: list[BrowserContext] = []
        self.wrong: list[str] = []

    async def page(self, site: Site, **given: Any) -> Page:
        """A page of somebody who has not signed in."""
        options = {"viewport": {"width": 1280, "height": 900}, "timezone_id": "Europe/Berlin", **given}
        context = await self._chrome.new_context(**options)
        context.set_default_timeout(SHOWN)
        self._contexts.append(context)
        page = await context.new_page()
        page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: self.wrong.append(f"dialog: {dialog.message}"))
        page.on("request", self._outside(site.url))
        return page

    def _outside(self, own: str) -> Callable[[Any], None]:
        def look(request: Any) -> None:
            if not request.url.startswith((own, "data:", "blob:")):
                self.wrong.append(f"asked elsewhere: {request.url[:120]}")

        return look

    async def __call__(self, site: Site, who: str = "ada", *, at: str = "", **given: Any) -> Page:
        """The page of one of the team, there and signed in."""
        page = await self.page(site, **given)
        await page.context.add_cookies(
            [{"name": COOKIE, "value": site.tokens[who], "url": site.console, "sameSite": "Strict"}]
        )
        await page.goto(site.console + at)
        await page.locator(".am-nav [aria-current]").wait_for()
        await page.locator(f"text={who}").first.wait_for()
        return page

    async def close(self) -> None:
        for context in self._contexts:
            await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def visit(chrome: Browser) -> AsyncIterator[Visits]:
    """Visits, closed after the test; nothing may have gone wrong on any page."""
    visits = Visits(chrome)
    yield visits
    await visits.close()
    assert visits.wrong == []
