"""`GET /metrics`: what happened is counted once, over restarts, replicas and pruning."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from server.observe.tally import SETTLED, Tally
from tests.unit.serving import Api, open_api

TOKEN = "x" * 40
SIGNED_IN = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as api:
        yield api


async def scrape(api: Api) -> dict[tuple[str, ...], float]:
    """Every sample by its name and the values of its labels, in the order of their names."""
    answer = await api.http.get("/metrics", headers=SIGNED_IN)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def heal(api: Api) -> int:
    """A failure that a person lets Airmedic heal."""
    number = await api.fail()
    incident = await api.incident(number)
    answer = await api.decide(number, {"type": "approve", "version": incident["version"]})
    assert answer.status_code in {200, 202}, answer.text
    for _ in range(8):
        await api.drive()
        await api.airflow.settle()
        api.clock.ahead += timedelta(hours=12)
        await api.drive()
    return number


async def test_an_incident_is_counted_from_the_failure_to_its_end(api: Api) -> None:
    await heal(api)

    seen = await scrape(api)

    assert seen["airmedic_occurrences_total", "webhook", "failure"] == 1
    assert (
        sum(value for key, value in seen.items() if key[:2] == ("airmedic_incidents_total", "worker_lost"))
        >= 1
    )
    assert seen["airmedic_actions_total", "clear_task", "approved", "confirmed"] == 1
    assert seen["airmedic_decisions_total", "on", "ask"] == 1
    assert seen["airmedic_approval_wait_seconds_count",] == 1
    assert seen["airmedic_time_to_detect_seconds_count",] == 1
    assert seen["airmedic_time_to_recover_seconds_count",] == 1
    assert seen["airmedic_reconcile_missed_total",] == 0
    assert seen["airmedic_part_up", "database"] == 1
    assert seen["airmedic_audit_head_entries",] > 3
    assert "dag_incidents" not in str(seen)


async def test_a_question_is_pending_until_it_is_answered(api: Api) -> None:
    await api.fail()

    assert (await scrape(api))["airmedic_approvals_pending",] == 1


async def test_nothing_names_a_dag_unless_it_is_asked_for(tmp_path: Path) -> None:
    async with open_api(tmp_path, metrics_dags=True) as api:
        await heal(api)

        seen = await scrape(api)

        assert [key[1] for key in seen if key[0] == "airmedic_dag_incidents_total"] == ["orders"] * 1


async def test_another_process_and_a_later_one_count_the_same(api: Api) -> None:
    await heal(api)
    engine, service = api.service.people.engine, api.service

    first = Tally(engine, store=service.store, clock=service.clock)
    await first.keep()
    second = Tally(engine, store=service.store, clock=service.clock)

    assert await second.read() == await first.read()
    assert (await first.read()).totals["occurrences"] == {'["webhook", "failure"]': 1}


@pytest.mark.parametrize("body", ["'{}'", "'[1]'", "'no JSON'", "CAST(x'02fffe' AS TEXT)", "x'02fffe'"])
async def test_an_entry_that_was_tampered_with_is_not_counted(api: Api, body: str) -> None:
    await heal(api)
    async with api.service.people.engine.begin() as connection:
        for statement in (
            "DROP TRIGGER audit_no_update",
            f"UPDATE audit SET body = {body} WHERE kind = 'write_confirmed'",
        ):
            await connection.execute(text(statement))

    seen = await scrape(api)

    assert seen["airmedic_decisions_total", "on", "ask"] == 1
    assert not any(key[0] == "airmedic_actions_total" for key in seen)


async def test_events_the_plugin_dropped_are_counted(api: Api) -> None:
    api.airflow.start("orders", "run_1")
    await api.airflow.settle()
    given = {"event": "task_instance_failed", "dag_id": "orders", "run_id": "run_1", "task_id": "load"}

    await api.http.post("/webhook", json={**given, "dropped": 7})
    await api.http.post("/webhook", json={**given, "dropped": 7})

    assert (await scrape(api))["airmedic_events_dropped_total",] == 7


async def test_a_database_that_is_away_leaves_what_the_process_knows(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token=TOKEN) as api:
        await api.service.people.engine.dispose()
        _take_away(tmp_path / "airmedic.db")

        seen = await scrape(api)

        assert seen["airmedic_part_up", "database"] == 0
        assert ("airmedic_approvals_pending",) not in seen


def _take_away(database: Path) -> None:
    database.rename(database.with_suffix(".away"))
    database.mkdir()


async def test_a_page_takes_a_viewer(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token=TOKEN) as api:
        assert (await api.http.get("/metrics")).status_code == 401
        assert (await api.http.get("/metrics", headers=SIGNED_IN)).status_code == 200


def test_numbers_given_before_a_commit_have_time_to_arrive() -> None:
    assert timedelta(seconds=5) < SETTLED < timedelta(minutes=1)
