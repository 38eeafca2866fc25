"""F07 on the real Airflow, as the person on call lives it: seen, read, edited, approved, healed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.async_api import expect

from evals.faults.injections import INJECTIONS
from graph.domain import Status
from server.schemas import IncidentDetailOut
from tests.acceptance.conftest import proxy as proxy
from tests.acceptance.conftest import scene as scene
from tests.acceptance.conftest import world as world
from tests.acceptance.medic import open_medic_process
from tests.acceptance.proxy import Passed, Proxy
from tests.acceptance.scene import Scene, written
from tests.browser.conftest import Site, Visits
from tests.browser.conftest import chrome as chrome
from tests.browser.conftest import visit as visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.integration,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(240),
]

TOKEN = "a-token-of-the-journey"
ASKED_WITHIN = 60.0  # seconds
HEALED_WITHIN = 90_000  # milliseconds


def asks(incident: IncidentDetailOut) -> bool:
    """Whether it waits for a person."""
    return incident.status is Status.WAITING_DECISION


def written_to(proxy: Proxy, run_id: str) -> list[Passed]:
    """What was sent to change the run or the contract."""
    return [one for one in proxy.writes if run_id in _words(one) or "/variables" in one.request.path]


def _words(passed: Passed) -> str:
    return passed.request.path + passed.request.body.decode()


async def test_f07_is_seen_read_edited_approved_and_healed(
    scene: Scene, proxy: Proxy, visit: Visits, tmp_path: Path
) -> None:
    port = scene.airflow.airmedic_port
    settings = scene.environment(proxy, tmp_path) | {"AIRMEDIC_API_TOKEN": TOKEN}
    async with open_medic_process(settings, port=port, home=tmp_path) as medic:
        medic.api.http.headers["authorization"] = f"Bearer {TOKEN}"
        await medic.start()
        site = Site(f"http://127.0.0.1:{port}", tmp_path, port, {}, {"operator": TOKEN})
        await site.ready()
        page = await visit(site, "operator")
        await scene.world.reset()
        await INJECTIONS["F07"].inject(scene.world)
        run_id = await scene.world.trigger("journey")

        # Others may ask, too: Airmedic also watches over the schedules of this Airflow.
        asking = await medic.api.wait(run_id, asks, within=ASKED_WITHIN)
        row = page.locator(f'#am-incidents .am-row[data-incident="{asking.id}"]')
        await expect(row).to_contain_text("Needs your decision")
        await row.click()
        await expect(page.locator("#am-asked .am-diff-add").last).to_contain_text("email_address")
        untouched = written_to(proxy, run_id)
        await page.click("#am-edit")
        value = page.locator("#am-form textarea")
        contract = json.loads(await value.input_value())
        contract["batch_size"] = 40
        await value.fill(json.dumps(contract, indent=2))
        await page.fill("#am-message textarea", "smaller batches, too")
        await page.click("#am-send-edit")

        await expect(page.locator("#am-said")).to_contain_text("Approved with your changes")
        await expect(page.locator("#am-head .am-badge").first).to_have_text("Healed", timeout=HEALED_WITHIN)
        await expect(page.locator("#am-story")).to_contain_text("smaller batches, too")
        (ended,) = await medic.api.incidents(run_id)

    assert untouched == []
    assert written(ended.ledger) == [("set_variable", "confirmed"), ("clear_task", "confirmed")]
    assert (await scene.contract())["batch_size"] == 40
    assert await scene.tries(run_id, "validate") == ["failed", "success"]
    assert scene.rows(run_id).agrees
