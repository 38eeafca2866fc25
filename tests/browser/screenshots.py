"""`make screenshots`: every page, light and dark, on a desktop and on a phone, into a folder to look at."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from tests.browser.conftest import Site, Visits, chromium, open_site
from tests.browser.world import LIMITED, LOCKED, RENAMED, UNSAFE

SIZES = {"desktop": {"width": 1280, "height": 860}, "phone": {"width": 390, "height": 844}}
SETTLE = 1500  # milliseconds
PAGES = ("incidents", "chat", "status", "timeline", "log", "metrics")


async def write_screenshots(folder: Path, *, history: int) -> None:
    """All of them."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        async with open_site(Path(home), history=history) as site, async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            number = await _break(site)
            for scheme in ("light", "dark"):
                for size in SIZES:
                    await _shoot(browser, site, folder, number, scheme, size)
            await browser.close()


async def _break(site: Site) -> int:
    """What is open at this moment; the incident to look at comes back."""
    for dag, run in ((LOCKED, "scheduled__a"), (UNSAFE, "scheduled__b"), (LIMITED, "scheduled__c")):
        await site.fail(dag, run)
    await site.fail(RENAMED, "scheduled__today")
    number: int = (await site.incident("scheduled__today", "waiting_decision"))["id"]
    return number


async def _shoot(browser: Browser, site: Site, folder: Path, number: int, scheme: str, size: str) -> None:
    visits = Visits(browser)
    given: dict[str, Any] = {"viewport": SIZES[size], "color_scheme": scheme}
    first = await visits.page(site, **given)
    await first.goto(site.console)
    await _keep(first, folder, f"{scheme}-{size}-sign-in")
    for name in PAGES:
        page = await visits(site, at=f"?view={name}", **given)
        if name == "chat":
            await page.fill("#am-say textarea", f"/show {number}")
            await page.keyboard.press("Enter")
            await page.locator("#am-talk .am-chat-ask").wait_for()
        await _keep(page, folder, f"{scheme}-{size}-{name}", whole=name != "chat")
    page = await visits(site, at=f"?incident={number}", **given)
    await _keep(page, folder, f"{scheme}-{size}-incident", whole=True)
    await page.click("#am-edit")
    await _keep(page, folder, f"{scheme}-{size}-edit", whole=True)
    await visits.close()


async def _keep(page: Page, folder: Path, name: str, *, whole: bool = False) -> None:
    await page.wait_for_timeout(SETTLE)
    await page.screenshot(path=folder / f"{name}.png", full_page=whole)
    sys.stdout.write(f"{folder / name}.png\n")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--to", type=Path, default=Path(".airmedic/screenshots"))
    parser.add_argument("--history", type=int, default=60, help="incidents of the past month")
    given = parser.parse_args()
    asyncio.run(write_screenshots(given.to, history=given.history))


if __name__ == "__main__":
    main()
