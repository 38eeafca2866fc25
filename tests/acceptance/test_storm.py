"""Several DAGs lose one service: one incident, one question, all green when it is back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evals.benchmarks.storm import play
from evals.faults.sandbox import free_port
from graph.domain import Outcome, Status
from tests.acceptance.proxy import Proxy
from tests.acceptance.scene import Scene

DAGS, SAFE_DAGS = 6, 4
STORM_DAGS = """
from datetime import datetime

import requests
from airflow.sdk import dag, task

for number in range({dags}):
    tags = ["airmedic:rerun-safe"] if number < {safe} else []

    @dag(
        dag_id=f"storm_{{number}}", schedule=None, start_date=datetime(2026, 1, 1), tags=tags,
        is_paused_upon_creation=False,
    )
    def storm():
        @task
        def load():
            requests.get("http://127.0.0.1:{port}/employees", timeout=3).raise_for_status()

        @task
        def publish():
            return 1

        load() >> publish()

    storm()
"""


@contextmanager
def service(port: int) -> Iterator[None]:
    """What the tasks need, back on its port."""

    class Endpoint(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Endpoint)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.integration
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.timeout(300)
async def test_dags_that_lost_one_service_are_one_incident_and_all_green_when_it_is_back(
    scene: Scene, proxy: Proxy, tmp_path: Path
) -> None:
    port, world = free_port(), scene.world
    names = [f"storm_{number}" for number in range(DAGS)]
    file = scene.airflow.dags / "storm_dags.py"
    file.write_text(STORM_DAGS.format(dags=DAGS, safe=SAFE_DAGS, port=port))
    given = {"correlate_loopback": True, "wave_first": 2, "probes": f"127.0.0.1:{port}"}
    try:
        for name in names:
            await scene.airflow.sandbox.wait_dag(name)
        async with scene.medic(proxy, tmp_path, port=scene.airflow.airmedic_port, **given) as medic:
            runs = {name: await world.trigger("storm", dag_id=name) for name in names}
            for name, run_id in runs.items():
                await world.airflow.wait_task(name, run_id, "load", ("failed",), within=120)
            await medic.api.only(
                lambda one: one.group is not None and one.group.task_instances == DAGS, within=60
            )
            with service(port):
                asked = await medic.api.only(lambda one: one.status is Status.WAITING_DECISION, within=150)
                untouched = asked.question
                await medic.api.decide(asked.id, type="approve", version=asked.version)
                ended = await medic.api.only(lambda one: one.outcome is not None, within=150)
                for name, run_id in runs.items():  # what comes after them too
                    await world.airflow.wait_task(name, run_id, "publish", ("success",), within=60)
    finally:
        file.unlink()

    assert ended.outcome in {Outcome.HEALED, Outcome.RECOVERED_UNVERIFIED}
    assert f"{DAGS} of {DAGS} task instances succeeded" in ended.reason
    assert untouched is not None
    assert [event.name for event in ended.events].count("asked") == 1
    # One that Airflow refused, its SQLite being locked, is read back and sent again.
    clears = [one for run_id in runs.values() for one in proxy.clears(run_id) if one.status == 200]
    assert len(clears) == DAGS


@pytest.mark.timeout(240)
async def test_five_thousand_failures_are_one_incident_and_come_back_in_waves(tmp_path: Path) -> None:
    count = 5000
    waves = {"AIRMEDIC_WAVE_FIRST": "100", "AIRMEDIC_WAVE_LARGEST": "3000", "AIRMEDIC_CONSOLE": "false"}
    waves |= {"AIRMEDIC_WAVE_PER_MINUTE": "100000"}

    seen = await play(tmp_path, count, 6.0, waves, patience=150)

    assert (seen.accepted, seen.refused, seen.lost, seen.incidents) == (count, 0, 0, 1)
    assert seen.truth["model_calls"] <= 1
    assert seen.truth["well"] == count
    assert seen.truth["cleared_again"] <= 1  # the first, which is tried while the database is away
    assert seen.incident["outcome"] == "healed"
    assert seen.incident["group"]["task_instances"] == count
    assert len(seen.incident["occurrences"]) < seen.incident["occurrence_count"] == count
    assert len(seen.waves) >= 3
    assert sum(seen.waves) == count - 1
