"""The kill switch and shadow mode, while the service runs."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from graph.domain import Outcome, Status
from server.app import create_app
from tests.factories import Clock
from tests.unit.healing_world import make_airflow, open_ward


@pytest.mark.parametrize(
    ("switch", "word"),
    [
        pytest.param({"paused": True}, "kill switch", id="paused"),
        pytest.param({"shadow": True}, "shadow", id="shadow"),
    ],
)
async def test_a_switch_thrown_before_the_fix_stops_it(
    tmp_path: Path, clock: Clock, switch: dict[str, bool], word: str
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        assert (await ward.only()).status is Status.WAITING_TIMER
        app = create_app(ward.service.settings)
        app.state.service = ward.service
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post("/api/control", json=switch)
            assert answer.status_code == 200, answer.text
            shown = (await client.get("/api/control")).json()
            assert shown == {"paused": False, "shadow": False, "by": "local operator", **switch}
        await ward.pass_time(60)

        record = await ward.only()
        assert airflow.writes == []
        assert record.outcome is Outcome.ESCALATED
        assert word in record.reason
