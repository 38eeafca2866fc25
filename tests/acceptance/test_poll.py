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
from tests.acceptance.proxy import Fate, Proxy, Request
from tests.acceptance.scene import Scene, written

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


async def test_a_failure_whose_webhook_was_lost_is_found_by_the_poll_and_healed_through_an_outage(
    scene: Scene, proxy: Proxy, lost: list[bytes], tmp_path: Path
) -> None:
    world, fault, outage = scene.world, INJECTIONS["F08"], Outage(proxy)
    proxy.rule = outage.rule
    async with scene.medic(proxy, tmp_path, port=free_port()) as medic:
        await world.reset()
        await fault.inject(world)
        run_id = await world.trigger("lost")
        away = asyncio.create_task(outage.last())
        ended = await medic.api.wait(run_id, lambda one: one.outcome is not None, within=ENDS_WITHIN)
        await away

    assert any(run_id.encode() in one for one in lost)
    assert [one.door for one in ended.occurrences] == [Door.POLL]
    assert any(event.name == "step_failed" for event in ended.events)
    assert (ended.status, ended.outcome) == (Status.CLOSED, Outcome.HEALED)
    assert written(ended.ledger) == [("set_variable", "confirmed"), ("clear_task", "confirmed")]
    arrived = [one for one in proxy.writes if one.status is not None]
    assert [one.request.is_clear for one in arrived] == [False, True]
    assert await scene.clears(run_id, "validate") == 1
    assert await scene.tries(run_id, "validate") == ["failed", "success"]
    assert scene.rows(run_id).agrees
