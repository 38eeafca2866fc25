"""`airmedic incidents, show, approve, …` against a real server on a free port."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from cli.serve import serve
from server.logs import open_logs
from tests.unit.serving import make_airflow, make_service, make_settings
from tools.airflow_memory import MemoryAirflow
from tools.terminal import inert

TOKEN = "a-token-of-the-api"


@dataclass
class Server:
    """A server in a thread, and the command line pointed at it."""

    url: str
    airflow: MemoryAirflow
    loop: asyncio.AbstractEventLoop

    def airmedic(self, *args: str, answer: str | None = None, token: str = TOKEN) -> Result:
        environment = {"AIRMEDIC_URL": self.url, "AIRMEDIC_TOKEN": token}
        return CliRunner().invoke(app, list(args), env=environment, input=answer)

    def incident(self, number: int) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.airmedic("show", str(number), "--json").stdout)
        return found

    def wait_until(self, number: int, status: str) -> dict[str, Any]:
        for _ in range(200):
            if (found := self.incident(number))["status"] == status:
                return found
        raise AssertionError(f"incident {number} is {found['status']}, not {status}")

    def fail(self) -> int:
        """A task fails; back when a person is asked."""

        async def happen() -> None:
            self.airflow.start("orders", "run_1")
            await self.airflow.settle()

        asyncio.run_coroutine_threadsafe(happen(), self.loop).result(10)
        event = {"event": "task_instance_failed", "dag_id": "orders", "run_id": "run_1", "task_id": "load"}
        assert httpx.post(self.url + "/webhook", json=event).status_code == 202
        for _ in range(200):
            if "asks you" in self.airmedic("incidents").stdout:
                return 1
        raise AssertionError("nobody was asked")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    settings = make_settings(tmp_path, port=0, api_token=TOKEN)
    said: queue.Queue[str] = queue.Queue()
    started: queue.Queue[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = queue.Queue()
    airflow = make_airflow()

    async def run() -> None:
        stop = asyncio.Event()
        started.put((asyncio.get_running_loop(), stop))
        await serve(
            settings,
            say=said.put,
            stop=stop,
            service_factory=lambda given: make_service(given, airflow, background=True),
        )

    def logged() -> None:
        with open_logs(tmp_path / "pipeline.log", terminal=None):
            asyncio.run(run())

    thread = threading.Thread(target=logged)
    thread.start()
    loop, stop = started.get(timeout=10)
    try:
        yield Server(said.get(timeout=20).split()[2], airflow, loop)
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(20)


def test_an_incident_is_listed_shown_and_approved(server: Server) -> None:
    number = server.fail()

    shown = server.airmedic("show", str(number)).stdout
    assert "orders.load in run run_1, try 1" in shown
    assert "why: worker_lost (95%" in shown
    assert "log line 3: connection refused" in shown
    assert "policy: ask by rule" in shown
    assert "clear_task(downstream=True)" in shown
    assert "timeline:" in shown

    approved = server.airmedic("approve", str(number), answer="y\n")
    assert approved.exit_code == 0, approved.output
    assert "Approve (incident 1, version 2)?" in approved.stdout
    assert "approve is recorded" in approved.stdout
    found = server.wait_until(number, "waiting_outcome")
    assert [entry["step"] for entry in found["ledger"]] == ["confirmed"]
    assert "writes to Airflow:" in server.airmedic("show", str(number)).stdout


def test_who_says_no_when_asked_back_decides_nothing(server: Server) -> None:
    number = server.fail()

    done = server.airmedic("approve", str(number), answer="n\n")

    assert done.exit_code == 1
    assert "nothing was decided" in done.stdout
    assert server.incident(number)["asks"] is True


def test_edit_takes_one_object_for_one_action(server: Server) -> None:
    number = server.fail()

    refused = server.airmedic("edit", str(number), '{"downstream": "perhaps"}', "--yes")
    assert refused.exit_code == 1
    assert "args" in refused.stderr
    assert server.airmedic("edit", str(number), '{"downstream": false}', "--yes").exit_code == 0
    server.wait_until(number, "waiting_outcome")

    (write,) = [write for write in server.airflow.writes if write.verb == "clear"]
    assert write.args["downstream"] is False


@pytest.mark.parametrize("arguments", ["{", "3", "[1]"])
def test_edit_takes_objects_only(server: Server, arguments: str) -> None:
    assert server.airmedic("edit", "1", arguments).exit_code == 2


def test_reject_then_close(server: Server) -> None:
    number = server.fail()
    early = server.airmedic("close", str(number))
    assert early.exit_code == 1
    assert "only an escalated one is closed" in early.stderr

    assert server.airmedic("reject", str(number), "we are in a freeze").exit_code == 0
    assert "we are in a freeze" in server.wait_until(number, "escalated")["reason"]
    assert server.airmedic("close", str(number), "done by hand").stdout == "incident 1 is closed\n"

    again = server.airmedic("approve", str(number), "--yes")
    assert again.exit_code == 1
    assert "asks nothing now; it is closed" in again.stderr


def test_respond_asks_again(server: Server) -> None:
    number = server.fail()

    assert server.airmedic("respond", str(number), "the network is back").exit_code == 0

    for _ in range(200):
        if (found := server.incident(number))["version"] > 2 and found["asks"]:
            break
    assert found["asks"] is True


def test_an_unknown_incident_and_a_wrong_token_are_sentences(server: Server) -> None:
    unknown = server.airmedic("show", "99")
    assert (unknown.exit_code, unknown.stderr) == (1, "airmedic: no incident 99\n")

    stranger = server.airmedic("incidents", token="wrong")
    assert stranger.exit_code == 1
    assert "set AIRMEDIC_TOKEN" in stranger.stderr


def test_policy_explains_its_word(server: Server) -> None:
    number = server.fail()

    told = server.airmedic("policy", "explain", str(number))

    assert told.exit_code == 0, told.output
    assert "incident 1: " in told.stdout
    assert "ask, decided by" in told.stdout
    assert "at least operator may approve" in told.stdout
    unknown = server.airmedic("policy", "explain", "99")
    assert (unknown.exit_code, unknown.stderr) == (1, "airmedic: no incident 99\n")


def test_what_policy_was_not_asked_about_is_said(server: Server) -> None:
    number = server.fail()
    server.airmedic("reject", str(number))
    server.wait_until(number, "escalated")

    told = server.airmedic("policy", "explain", str(number))

    assert told.exit_code == 0, told.output
    assert "incident 1" in told.stdout


def test_the_kill_switch_and_back(server: Server) -> None:
    number = server.fail()

    assert server.airmedic("pause").stdout.startswith("paused: nothing is written to Airflow")
    server.airmedic("approve", str(number), "--yes")
    assert "Airmedic is paused" in server.wait_until(number, "escalated")["reason"]
    assert server.airflow.writes == []

    resumed = server.airmedic("resume")
    assert (resumed.exit_code, resumed.stdout) == (0, "resumed; healing is on\n")
    assert "is open again" in server.airmedic("reopen", str(number), "go on").stdout
    for _ in range(200):
        if (found := server.incident(number))["asks"]:
            break
    assert found["asks"] is True


def test_no_incidents_is_said(server: Server) -> None:
    assert server.airmedic("incidents").stdout == "no incidents\n"


def test_text_from_logs_cannot_drive_the_terminal() -> None:
    assert inert("a\x1b[2Jb\rc\x07\u202ed\te") == "a�[2Jb�c��d\te"


@pytest.mark.parametrize("command", [("incidents",), ("policy", "explain", "1")])
def test_address_and_token_may_stand_in_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    for name in ("AIRMEDIC_URL", "AIRMEDIC_TOKEN"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    (tmp_path / ".env").write_text("AIRMEDIC_URL=airmedic.example.com\nAIRMEDIC_TOKEN=told\n")
    monkeypatch.chdir(tmp_path)

    found = CliRunner().invoke(app, command)

    assert "AIRMEDIC_URL is 'airmedic.example.com'" in found.stderr
    assert os.environ["AIRMEDIC_TOKEN"] == "told"


def test_knowledge_files_may_be_named_in_the_env_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRMEDIC_KNOWLEDGE", "")
    monkeypatch.delenv("AIRMEDIC_KNOWLEDGE")
    entry = "{id: rule, cause: lock_contention, strength: exact, patterns: ['FLUX-[0-9]+']}"
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "acme.yaml").write_text(f"family: acme\nentries:\n  - {entry}\n")
    (tmp_path / ".env").write_text("AIRMEDIC_KNOWLEDGE=ours\n")
    monkeypatch.chdir(tmp_path)

    found = CliRunner().invoke(app, ["diagnose", "-", "--json"], input="ValueError: FLUX-17\n")

    assert '"root_cause": "lock_contention"' in found.stdout


def test_the_environment_wins_over_the_env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("AIRMEDIC_URL=from-the-file\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("AIRMEDIC_URL", "from-the-environment")

    assert "AIRMEDIC_URL is 'from-the-environment'" in CliRunner().invoke(app, ["incidents"]).stderr
