"""The pages: switches, lists, plots, both modes of the chat; hostile text stays text, restarts pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Site, Visits, open_site
from tests.browser.world import ATTACK, LOCKED, UNSAFE
from tests.openai_server import Completion, ScriptedOpenAI

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(150)]

# Whatever ran, loaded or became an element because a text said so.
DONE = """() => [document.title, document.querySelectorAll(
  "img[src='x'], .html-container script, .html-container a").length]"""


async def say(page: Page, words: str) -> str:
    """Say something and wait for the whole answer."""
    before = await page.locator("#am-talk .am-answer").count()
    await page.fill("#am-say textarea", words)
    await page.keyboard.press("Enter")
    await expect(page.locator("#am-talk .am-answer")).to_have_count(before + 1)
    await expect(page.locator("#am-talk .am-going")).to_have_count(0, timeout=30_000)
    return await page.locator("#am-talk .am-answer").last.inner_text()


async def test_the_kill_switch_asks_first_and_everybody_sees_it(site: Site, visit: Visits) -> None:
    page = await visit(site, "root", at="?view=status")
    other = await visit(site, "vera")

    await page.click("[data-switch=paused]")
    await page.locator("dialog button", has_text="Stop everything").click()
    await expect(other.locator("#am-mode")).to_contain_text("Stopped")
    await page.locator("[data-switch=paused]", has_text="Resume").click()
    await page.locator("dialog button", has_text="Resume").click()

    await expect(other.locator("#am-mode")).to_contain_text("Healing is on")


async def test_every_page_shows_what_happened(site: Site, visit: Visits) -> None:
    await site.fail(LOCKED, "pages")
    number = (await site.incident("pages"))["id"]
    page = await visit(site, at="?view=timeline")
    await expect(page.locator("#am-plot-story canvas")).to_be_visible()
    await page.click("[data-page=metrics]")
    await expect(page.locator("#am-figures")).to_contain_text("How they ended")
    await expect(page.locator("#am-plot-causes canvas")).to_be_visible()
    await page.click("[data-page=log]")
    await page.fill("#am-words :is(input, textarea)", f"#{number} diagnosed")
    await expect(page.locator("#am-log li")).to_have_count(1)
    await page.locator("#am-log .am-link").click()

    await expect(page.locator("#am-head h2")).to_contain_text(LOCKED)


async def test_searches_and_filters_narrow_the_list(site: Site, visit: Visits) -> None:
    await site.fail(LOCKED, "searched")
    await site.incident("searched")
    page = await visit(site, at="?filter=All")

    await page.fill("#am-search :is(input, textarea)", "ledger")
    await expect(page.locator("#am-incidents .am-row").first).to_contain_text(LOCKED)
    await page.fill("#am-search :is(input, textarea)", "nothing is called so")

    await expect(page.locator("#am-incidents")).to_contain_text("Nothing fits")


async def test_text_from_outside_stays_text_on_every_page(site: Site, visit: Visits) -> None:
    await site.fail(ATTACK, ATTACK)
    number = (await site.incident(ATTACK))["id"]
    page = await visit(site, at=f"?filter=All&incident={number}")
    await expect(page.locator("#am-head h2")).to_contain_text("onerror")
    await page.click("#am-show-log")
    await expect(page.locator("#am-raw")).to_contain_text("<script>")
    for name in ("status", "timeline", "log", "metrics", "chat"):
        await page.click(f"[data-page={name}]")
        await page.wait_for_timeout(400)
    told = await say(page, f"why did {ATTACK} fail?")
    await say(page, f"/show {number}")

    assert ATTACK in await page.locator("#am-talk .am-said-by-me").first.inner_text()
    assert told
    assert await page.evaluate(DONE) == ["Airmedic", 0]


async def test_the_chat_without_a_model_knows_commands_and_puts_questions(site: Site, visit: Visits) -> None:
    await site.fail(UNSAFE, "asked in chat")
    number = (await site.incident("asked in chat", "waiting_decision"))["id"]
    page = await visit(site, at="?view=chat")

    assert "command mode" in (await page.locator("#am-talk").inner_text()).lower()
    await page.locator("#am-say textarea").press_sequentially("/sta")
    await page.locator("#am-hints [data-hint]").first.wait_for()
    await say(page, f"/show {number}")
    await page.locator(f"#am-talk button:has-text('Approve #{number}')").last.click()

    await expect(page.locator("#am-talk")).to_contain_text("Approved; Airmedic carries the plan out now.")
    answers = (await site.call("GET", f"/api/incidents/{number}"))["answers"]
    assert [one["kind"] for one in answers] == ["approve"]
    await page.reload()
    await expect(page.locator("#am-talk .am-said-by-me").first).to_contain_text(f"/show {number}")


async def test_the_chat_with_a_model_shows_its_steps_folded(visit: Visits, tmp_path: Path) -> None:
    replies = (
        Completion(tool_calls=(("status", {}),)),
        Completion(f"All is well. {ATTACK}"),
    )
    with ScriptedOpenAI(*replies) as endpoint:
        given: dict[str, Any] = {"llm_model": "scripted", "AIRMEDIC_LLM_BASE_URL": endpoint.base_url}
        async with open_site(tmp_path, AIRMEDIC_LLM_API_KEY="none", **given) as site:
            page = await visit(site, at="?view=chat")
            told = await say(page, "how is it going?")

            assert "All is well." in told
            step = page.locator("#am-talk details").first
            assert await step.get_attribute("open") is None
            assert await page.evaluate(DONE) == ["Airmedic", 0]


async def test_questions_run_out_and_the_page_goes_on_after_a_restart(visit: Visits, tmp_path: Path) -> None:
    async with open_site(tmp_path, approval_timeout="PT1H") as site:
        await site.fail(UNSAFE, "late")
        number = (await site.incident("late", "waiting_decision"))["id"]
        page = await visit(site, at=f"?incident={number}")
        await expect(page.locator("#am-asked .am-left")).to_contain_text("min left")

        await site.call("POST", "/stage/forward", params={"seconds": 3700})
        await expect(page.locator("#am-asked")).to_contain_text("ran out", timeout=30_000)
        await expect(page.locator("#am-approve")).to_be_hidden()

        await site.stop()
        await expect(page.locator("#am-trouble")).to_contain_text("does not answer", timeout=30_000)
        await site.start()
        await expect(page.locator("#am-trouble")).to_be_empty(timeout=30_000)
        await site.fail(UNSAFE, "after")

        await page.locator(f'#am-incidents [data-incident="{number + 1}"]').wait_for(timeout=30_000)
        assert (
            json.loads(await page.evaluate("JSON.stringify(document.documentElement.dataset)"))["role"]
            == "operator"
        )
