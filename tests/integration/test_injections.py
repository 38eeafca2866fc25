"""Faults show their symptom on a real Airflow without Airmedic, and the plugin tells of them at once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_asyncio

from evals.faults.catalogue import DataCheck
from evals.faults.injections import INJECTIONS
from evals.faults.oracle import judge
from evals.faults.world import FEED, PIPELINE, TASKS, Layout, World, open_world
from server.demo.source import SourceServer, SourceState
from tests.conftest import AirflowUnderTest

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session")]

TOLD_WITHIN = 1.0  # seconds from the hook to the receiver
NOTICED_WITHIN = 8.0  # seconds from the last kill to the event
RUN_WITHIN = 60.0  # seconds


class Told:
    """What the plugin sent, each with the time it arrived and whether its signature is right."""

    def __init__(self, secret: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._secret = secret

    def take(self, headers: dict[str, str], body: bytes) -> None:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        right = base64.b64encode(hmac.new(self._secret.encode(), signed, hashlib.sha256).digest()).decode()
        event = json.loads(body)
        event["authentic"] = headers["webhook-signature"] == f"v1,{right}"
        event["age"] = (datetime.now(UTC) - datetime.fromisoformat(event["sent_at"])).total_seconds()
        self.events.append(event)

    def of(self, run_id: str, task_id: str) -> list[dict[str, Any]]:
        return [e for e in self.events if (e.get("run_id"), e.get("task_id")) == (run_id, task_id)]

    async def wait_for(self, run_id: str, task_id: str, **fields: object) -> dict[str, Any]:
        async with asyncio.timeout(NOTICED_WITHIN):
            while True:
                for event in self.of(run_id, task_id):
                    if fields.items() <= event.items():
                        return event
                await asyncio.sleep(0.1)


@pytest.fixture
def told(airflow_sandbox: AirflowUnderTest) -> Iterator[Told]:
    told = Told(airflow_sandbox.webhook_secret)

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.take(dict(self.headers.items()), self.rfile.read(int(self.headers["content-length"])))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", airflow_sandbox.airmedic_port), Endpoint)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield told
    server.shutdown()
    server.server_close()


@pytest_asyncio.fixture(loop_scope="session")
async def world(airflow_sandbox: AirflowUnderTest) -> AsyncIterator[World]:
    sandbox = airflow_sandbox.sandbox
    layout = Layout(airflow_sandbox.dags.parent)
    assert (layout.dags, layout.files) == (airflow_sandbox.dags, airflow_sandbox.demo_dir)
    for dag_id in (PIPELINE, FEED):
        await sandbox.wait_dag(dag_id)
    async with (
        SourceServer(SourceState()) as source,
        open_world(layout, source, sandbox) as world,
    ):
        await world.prepare()
        yield world
        await world.reset()


async def play(world: World, number: str) -> str:
    await INJECTIONS[number].inject(world)
    run_id = await world.trigger(number.lower())
    await INJECTIONS[number].play(world, run_id)
    return run_id


async def test_a_healthy_run_loads_every_row_once_and_tells_nothing(world: World, told: Told) -> None:
    run_id = await play(world, "F43")

    verdict = judge(world.layout, run_id, DataCheck.ALL_ROWS)
    reports = [await world.airflow.xcom(PIPELINE, run_id, task, "airmedic_report") for task in TASKS]
    assert verdict.agrees, verdict
    assert [report["rows_out"] for report in reports] == [verdict.expected] * 4
    assert [event for event in told.events if event.get("run_id") == run_id] == []


async def test_a_load_killed_on_every_try_fails_leaves_no_row_and_is_told(world: World, told: Told) -> None:
    run_id = await play(world, "F22")

    event = await told.wait_for(run_id, "load", state="failed")
    tries = await world.airflow.tries(PIPELINE, run_id, "load")
    log = await world.airflow.log(PIPELINE, run_id, "load", 2)
    assert [one["state"] for one in tries] == ["failed", "failed"]
    assert event["try_number"] == 2
    assert any(line.get("signal_name") == "SIGKILL" for line in log)
    assert judge(world.layout, run_id, DataCheck.UNCHANGED).agrees


async def test_a_renamed_column_is_reported_by_name_and_told_in_under_a_second(
    world: World, told: Told
) -> None:
    run_id = await play(world, "F07")

    event = await told.wait_for(run_id, "validate", state="failed")
    report = await world.airflow.xcom(PIPELINE, run_id, "validate", "airmedic_report")
    assert {(p["kind"], p["column"]) for p in report["problems"]} == {
        ("missing", "email"),
        ("unexpected", "email_address"),
    }
    assert event["authentic"]
    assert event["age"] < TOLD_WITHIN
    assert "ContractViolation" in event["error"]


async def test_airflows_own_retry_repairs_it_and_the_recovery_is_told(world: World, told: Told) -> None:
    run_id = await play(world, "F39")

    await world.airflow.wait_run(PIPELINE, run_id, within=RUN_WITHIN)
    await told.wait_for(run_id, "fetch", event="task_instance_recovered", try_number=2)
    assert [event["state"] for event in told.of(run_id, "fetch")] == ["up_for_retry", "success"]
    assert judge(world.layout, run_id, DataCheck.ALL_ROWS).agrees
