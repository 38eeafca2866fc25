"""A job that hangs is told apart from one that is slow, and makes the service unready by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from graph.domain import Door
from server.backlog import TOO_LATE
from server.logs import open_logs
from server.observe.heartbeats import LEAST, PERIODS, Heartbeats
from server.observe.vitals import NO_SPACE, rooms
from tests.factories import make_failure
from tests.unit.serving import make_settings, open_api


class Timer:
    """A clock that only a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("every", "silent", "hung"),
    [
        pytest.param(1.0, LEAST - 1, False, id="a quick job may take its time"),
        pytest.param(1.0, LEAST + 1, True, id="but not for ever"),
        pytest.param(3600.0, LEAST + 1, False, id="a rare job is silent between its rounds"),
        pytest.param(3600.0, PERIODS * 3600.0 + 1, True, id="for a few of them"),
    ],
)
def test_silence(every: float, silent: float, hung: bool) -> None:
    timer = Timer()
    beats = Heartbeats(timer=timer)
    beats.expect("poll", every=every)

    timer.now = silent

    assert (beats.hung() == {"poll": silent}) is hung
    beats.beat("poll")
    assert beats.hung() == {}


async def test_a_hung_job_makes_the_service_unready_and_is_named(tmp_path: Path) -> None:
    async with open_api(tmp_path, background=True) as api:
        assert (await api.http.get("/readyz")).status_code == 200
        beats, timer = api.service.observing.beats, Timer()
        beats._timer = timer
        for name in list(beats.silence()):
            beats.expect(name, every=1.0)
        timer.now = 10 * LEAST
        for name in beats.silence():
            if name != "poll":
                beats.beat(name)

        answer = await api.http.get("/readyz")

        assert answer.status_code == 503
        (driver,) = [part for part in answer.json()["parts"] if part["name"] == "driver"]
        assert driver["detail"] == f"poll has hung for {10 * LEAST:.0f} s"


async def test_work_that_is_not_done_makes_the_service_unready(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        await api.service.store.accept([make_failure()], door=Door.WEBHOOK)
        api.clock.ahead += api.clock.ahead.resolution * int(TOO_LATE * 1_000_000 + 1_000_000)

        parts = {part["name"]: part for part in (await api.http.get("/readyz")).json()["parts"]}

        assert not parts["backlog"]["ok"]
        assert parts["backlog"]["detail"] == "work has been waiting for 15 minutes"


def test_the_room_of_each_file_is_looked_at(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, log_file=tmp_path / "later" / "pipeline.log")

    found = rooms(settings, free=lambda folder: NO_SPACE)

    assert [(room.name, room.folder, room.free) for room in found] == [
        ("log", str(tmp_path), NO_SPACE),
        ("database", str(tmp_path), NO_SPACE),
    ]


async def test_the_log_says_every_minute_how_the_system_is(tmp_path: Path) -> None:
    log = tmp_path / "pipeline.log"
    with open_logs(log, terminal=None):
        async with open_api(tmp_path) as api:
            await api.fail()
            await api.service.observing.vitals.line()

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    (line,) = [one for one in lines if one["event"] == "system"]
    assert line["logger"] == "system"
    assert line["memory_mb"] > 10
    assert line["queue"] == {"occurrences": 0, "due": 0, "deciding": 1}
    assert line["incidents"] == {"waiting_decision": 1}
    assert {"cpu_percent", "machine_cpu_percent", "disk_free_mb", "loop_lag_ms"} <= set(line)
    assert "diagnosed" in {one["event"] for one in lines}, "what the agent does stands in the same file"
    assert "hunter2secret" not in log.read_text()
