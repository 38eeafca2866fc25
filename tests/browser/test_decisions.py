"""What a person decides in a real browser: edit, approve, reject; too late, out of time, not allowed."""

from __future__ import annotations

import asyncio
import json
import time

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Site, Visits
from tests.browser.world import RENAMED, UNSAFE

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(150)]

NEWS = 2.0  # seconds in which a new incident is to show up
SLOW = 4.0  # how much slower than to be reached a busy machine may be


async def open_asking(site: Site, visit: Visits, dag: str, run: str, who: str = "ada") -> tuple[Page, int]:
    """The page of an incident that asks."""
    await site.fail(dag, run)
    number = (await site.incident(run, "waiting_decision"))["id"]
    page = await visit(site, who, at=f"?incident={number}")
    await expect(page.locator("#am-head h2")).to_contain_text(dag)
    return page, number


async def test_signing_in_takes_a_token_and_the_first_page_is_there_soon(site: Site, visit: Visits) -> None:
    page = await visit.page(site)
    await page.goto(site.console)
    await page.fill("#token", "airm_not_a_token")
    await page.click("#enter")
    await expect(page.locator("#said")).to_contain_text("no token of this server")

    await page.fill("#token", site.tokens["ada"])
    began = time.monotonic()
    await page.click("#enter")
    await page.locator("#am-incidents :is(.am-row, .am-empty)").first.wait_for()

    assert time.monotonic() - began < 2.0 * SLOW
    assert await page.evaluate("document.cookie") == ""  # no script can read the token
    await page.click("#am-sign-out")
    await page.locator("#token").wait_for()


async def test_a_new_incident_shows_up_by_itself_and_what_stood_there_is_not_drawn_anew(
    site: Site, visit: Visits
) -> None:
    page, number = await open_asking(site, visit, UNSAFE, "first")
    row = page.locator(f'#am-incidents [data-incident="{number}"]')
    await row.evaluate("node => { node.mine = 1; node.focus(); }")

    began = time.monotonic()
    await site.fail(UNSAFE, "second")
    await page.locator(f'#am-incidents [data-incident="{number + 1}"]').wait_for()

    assert time.monotonic() - began < NEWS * SLOW
    assert await row.evaluate("node => node.mine === 1 && document.activeElement === node")


async def test_a_plan_is_read_edited_approved_and_healed(site: Site, visit: Visits) -> None:
    page, number = await open_asking(site, visit, RENAMED, "edited")
    await expect(page.locator("#am-asked .am-diff-add").last).to_contain_text("email_address")
    await expect(page.locator("#am-asked .am-reach")).to_contain_text("airmedic_contract_employees")

    await page.click("#am-edit")
    value = page.locator("#am-form textarea")
    contract = json.loads(await value.input_value())
    contract["columns"]["email"]["required"] = False
    await value.fill("{ not json")
    await page.click("#am-send-edit")
    await expect(page.locator("#am-said")).to_contain_text("this is not JSON")
    await value.fill(json.dumps(contract))
    await page.click("#am-send-edit")

    await expect(page.locator("#am-said")).to_contain_text("Approved with your changes")
    await expect(page.locator("#am-head .am-badge").first).to_have_text("Healed", timeout=60_000)
    found = await site.call("GET", f"/api/incidents/{number}")
    assert [one["kind"] for one in found["answers"]] == ["edit"]
    (write,) = [one for one in found["ledger"] if one["action"]["name"] == "set_variable"]
    assert json.loads(write["action"]["args"]["value"])["columns"]["email"]["required"] is False
    await expect(page.locator("#am-story")).to_contain_text("Writes to Airflow")


async def test_a_rejection_keeps_its_reason(site: Site, visit: Visits) -> None:
    page, number = await open_asking(site, visit, UNSAFE, "rejected")

    await page.fill("#am-message textarea", "the source is down for the night")
    await page.click("#am-reject")

    await expect(page.locator("#am-said")).to_contain_text("nothing was touched")
    await expect(page.locator("#am-story")).to_contain_text("the source is down for the night")
    assert (await site.incident("rejected"))["status"] == "escalated"
    assert (await site.call("GET", f"/api/incidents/{number}"))["ledger"] == []


async def test_the_second_of_two_operators_is_told(site: Site, visit: Visits) -> None:
    first, number = await open_asking(site, visit, UNSAFE, "race")
    second = await visit(site, "bo", at=f"?incident={number}")
    await expect(second.locator("#am-approve")).to_have_text(f"Approve #{number}")

    await asyncio.gather(first.click("#am-reject"), second.click("#am-approve"))
    said = [first.locator("#am-said .am-notice"), second.locator("#am-said .am-notice")]
    await asyncio.gather(*(one.wait_for() for one in said))
    words = [await one.inner_text() for one in said]

    assert sum("Too late" in one for one in words) == 1, words
    answers = (await site.call("GET", f"/api/incidents/{number}"))["answers"]
    assert len(answers) == 1


async def test_a_viewer_sees_everything_and_decides_nothing(site: Site, visit: Visits) -> None:
    page, _ = await open_asking(site, visit, UNSAFE, "looked at", who="vera")

    await expect(page.locator("#am-asked")).to_contain_text("Your decision")
    await expect(page.locator(".am-only-viewer")).to_be_visible()
    for button in ("#am-approve", "#am-reject", "#am-edit"):
        await expect(page.locator(button)).to_be_hidden()
    said = await page.evaluate(
        "airmedic.decide('approve', '').then(() => document.querySelector('#am-said').innerText)"
    )

    assert "operator" in said
    assert (await site.incident("looked at"))["status"] == "waiting_decision"
    await page.click("[data-page=status]")
    await expect(page.locator("#am-status")).to_contain_text("Pipelines")
    await expect(page.locator("[data-switch]")).to_have_count(0)


async def test_keys_do_what_buttons_do_and_ask_first(site: Site, visit: Visits) -> None:
    page, number = await open_asking(site, visit, UNSAFE, "keys")

    await page.keyboard.press("j")
    await page.keyboard.press("r")
    await page.locator("dialog textarea").fill("by key")
    await page.locator("dialog button", has_text="Reject").click()

    await expect(page.locator("#am-said")).to_contain_text("nothing was touched")
    answers = (await site.call("GET", f"/api/incidents/{number}"))["answers"]
    assert [(one["kind"], one["message"]) for one in answers] == [("reject", "by key")]
    for key, name in (("s", "status"), ("m", "metrics"), ("i", "incidents")):
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        await expect(page.locator(f"#am-page-{name}")).to_be_visible()
    await page.keyboard.press("/")
    await expect(page.locator("#am-search input, #am-search textarea")).to_be_focused()


async def test_feedback_stands_on_the_incident(site: Site, visit: Visits) -> None:
    page, _ = await open_asking(site, visit, UNSAFE, "rated")

    await page.locator("#am-feedback summary").click()
    await page.check("#am-feedback [name=rating][value='2']")
    await page.check("#am-feedback [value=no]")
    await page.select_option("#am-feedback select", "tls_error")
    await page.fill("#am-feedback [name=comment]", "look at the certificate")
    await page.click("#am-feedback .am-button")

    await expect(page.locator("#am-toast")).to_contain_text("memory hears it")
    await expect(page.locator("#am-story")).to_contain_text("it was tls error; look at the certificate")
