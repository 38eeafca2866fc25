"""Failures that no webhook told of, and an Airflow that goes away in the middle of a fix."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evals.faults.injections import INJECTIONS
from evals.faults.sandbox import free_port
from graph.domain import Door, Outcome, Status
from server.schemas import IncidentDetailOut
from tests.acceptance.proxy import Fate, Proxy, Request
from tests.acceptance.scene import Medic, Scene, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

AWAY_FOR = 8.0  # seconds
ENDS_WITHIN = 90.0  # seconds


@pytest.fixture
def lost(scene: Scene) -> Iterator[list[bytes]]:
    """Something in Airmedic's place that says yes to every webhook and forgets it."""
    taken: list[bytes] = []

    class Endpoint(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            taken.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", scene.airflow.airmedic_port), Endpoint)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield taken
    server.shutdown()
    server.server_close()


class Outage:
    """Airflow goes away at the first clear in earnest, which it never gets, and comes back later."""

    def __init__(self, proxy: Proxy) -> None:
        self.began = asyncio.Event()
        self._proxy = proxy

    def rule(self, request: Request) -> Fate:
        if not request.is_clear or self.began.is_set():
            return Fate.PASS
        self.began.set()
        self._proxy.refuse()
        return Fate.LOSE

    async def last(self) -> None:
        await self.began.wait()
        await asyncio.sleep(AWAY_FOR)
        await self._proxy.accept()


async def play(scene: Scene, medic: Medic, number: str) -> tuple[str, IncidentDetailOut]:
    """Play a fault that heals by itself; the run and its ended incident."""
    await scene.world.reset()
    await INJECTIONS[number].inject(scene.world)
    run_id = await scene.world.trigger(number.lower())
    ended = await medic.api.wait(run_id, lambda one: one.outcome is not None, within=ENDS_WITHIN)
    assert (ended.status, ended.outcome) == (Status.CLOSED, Outcome.HEALED)
    assert written(ended.ledger) == [("set_variable", "confirmed"), ("clear_task", "confirmed")]
    assert await scene.clears(run_id, "validate") == 1
    assert await scene.tries(run_id, "validate") == ["failed", "success"]
    assert scene.rows(run_id).agrees
    return run_id, ended


async def test_a_failure_whose_webhook_was_lost_is_found_by_the_poll_and_healed(
    scene: Scene, proxy: Proxy, lost: list[bytes], tmp_path: Path
) -> None:
    async with scene.medic(proxy, tmp_path, port=free_port()) as medic:
        run_id, ended = await play(scene, medic, "F08")

    assert any(run_id.encode() in one for one in lost)
    assert [one.door for one in ended.occurrences] == [Door.POLL]
    assert [one.request.is_clear for one in proxy.writes if not one.refused] == [False, True]


async def test_an_airflow_that_goes_away_at_the_write_is_waited_for_and_written_to_once(
    scene: Scene, medic: Medic
) -> None:
    outage = Outage(medic.proxy)
    medic.proxy.rule = outage.rule
    away = asyncio.create_task(outage.last())
    run_id, ended = await play(scene, medic, "F08")
    await away

    assert {one.door for one in ended.occurrences} == {Door.LISTENER}
    assert any(event.name == "step_failed" for event in ended.events)
    assert [one.status for one in medic.proxy.clears(run_id)] == [None, 200]
    assert [one.request.method for one in medic.proxy.writes] == ["PATCH", "POST", "POST"]
