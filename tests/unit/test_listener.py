"""The Airflow plugin's delivery: signed, bounded, spooled when the server is away, never in Airflow's way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import importlib.util
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

PLUGIN = Path(__file__).resolve().parents[2] / "airflow" / "plugins" / "airmedic_listener.py"
SECRET = "a secret of the test"


@dataclass
class Delivery:
    headers: dict[str, str]
    body: bytes

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass
class Receiver:
    """A real HTTP server that keeps what it is sent."""

    status: int = 202
    delay: float = 0.0
    deliveries: list[Delivery] = field(default_factory=list)
    url: str = ""

    def serve(self) -> ThreadingHTTPServer:
        receiver = self

        class Endpoint(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                time.sleep(receiver.delay)
                receiver.deliveries.append(Delivery(dict(self.headers.items()), body))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Silence."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server


@pytest.fixture
def listener() -> Any:
    spec = importlib.util.spec_from_file_location("airmedic_listener_under_test", PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks its own module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    receiver = Receiver()
    server = receiver.serve()
    monkeypatch.setenv("AIRMEDIC_URL", receiver.url + "/")
    monkeypatch.setenv("AIRMEDIC_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("AIRMEDIC_AIRFLOW_ID", "test")
    monkeypatch.setenv("AIRMEDIC_SPOOL_DIR", str(tmp_path / "spool"))
    yield receiver
    server.shutdown()
    server.server_close()


def closed_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


class RuntimeTaskInstance(SimpleNamespace):
    """Named like Airflow 3's form in a worker."""


def make_task_instance(**fields: object) -> RuntimeTaskInstance:
    known = {
        "dag_id": "orders",
        "run_id": "manual__1",
        "task_id": "load",
        "map_index": -1,
        "try_number": 1,
        "max_tries": 1,
        "hostname": "worker-1",
        "state": "failed",
        "task": SimpleNamespace(task_type="PythonOperator"),
    }
    return RuntimeTaskInstance(**{**known, **fields})


def fail(listener: Any, error: object = None, **fields: object) -> None:
    listener.ListenerWithError().on_task_instance_failed(make_task_instance(**fields), error)


def spooled(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "spool").glob("*.json"))


def wait_until(holds: Callable[[], object]) -> bool:
    deadline = time.monotonic() + 3
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return bool(holds())


def test_a_failure_is_delivered_with_its_identity(listener: Any, receiver: Receiver, tmp_path: Path) -> None:
    fail(listener, ValueError("no such column"))

    event = receiver.deliveries[0].event
    assert {k: event[k] for k in ("event", "airflow", "dag_id", "run_id", "task_id", "map_index")} == {
        "event": "task_instance_failed",
        "airflow": "test",
        "dag_id": "orders",
        "run_id": "manual__1",
        "task_id": "load",
        "map_index": -1,
    }
    assert (event["try_number"], event["max_tries"], event["state"]) == (1, 1, "failed")
    assert (event["error"], event["operator"]) == ("ValueError: no such column", "PythonOperator")
    assert spooled(tmp_path) == []


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        pytest.param(SECRET, SECRET.encode(), id="a plain secret is its own bytes"),
        pytest.param("whsec_" + base64.b64encode(b"raw").decode(), b"raw", id="a whsec_ secret is base64"),
    ],
)
def test_a_delivery_is_signed_as_standard_webhooks_say(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, secret: str, key: bytes
) -> None:
    monkeypatch.setenv("AIRMEDIC_WEBHOOK_SECRET", secret)

    fail(listener)

    got = receiver.deliveries[0]
    signed = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert got.headers["webhook-signature"] == f"v1,{expected}"
    assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 5


def test_an_event_of_a_server_that_was_away_goes_out_signed_afresh(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listener, "BACKLOG_MIN_AGE", 0.0)
    monkeypatch.setenv("AIRMEDIC_URL", closed_url())
    fail(listener, task_id="early")
    (waiting,) = spooled(tmp_path)
    now = time.time()
    monkeypatch.setattr(listener.time, "time", lambda: now + 3600)

    monkeypatch.setenv("AIRMEDIC_URL", receiver.url)
    fail(listener, task_id="late")

    assert [d.event["task_id"] for d in receiver.deliveries] == ["late", "early"]
    early = receiver.deliveries[1].headers
    assert early["webhook-id"] in waiting.name
    assert int(early["webhook-timestamp"]) - now > 3500
    assert spooled(tmp_path) == []


def test_a_quiet_success_sends_what_waits_and_nothing_else(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "BACKLOG_MIN_AGE", 0.0)
    monkeypatch.setenv("AIRMEDIC_URL", closed_url())
    fail(listener)
    monkeypatch.setenv("AIRMEDIC_URL", receiver.url)

    listener.ListenerWithError().on_task_instance_success(make_task_instance(state="success"))

    assert [d.event["event"] for d in receiver.deliveries] == ["task_instance_failed"]


def test_a_success_after_a_failed_try_is_told(listener: Any, receiver: Receiver) -> None:
    listener.ListenerWithError().on_task_instance_success(make_task_instance(try_number=2, state="success"))

    assert [d.event["event"] for d in receiver.deliveries] == ["task_instance_recovered"]


@pytest.mark.parametrize(
    ("status", "left", "dropped"),
    [
        pytest.param(202, 0, 0, id="accepted"),
        pytest.param(409, 0, 0, id="known already"),
        pytest.param(422, 0, 1, id="refused for good"),
        pytest.param(401, 1, 0, id="a wrong secret may be mended"),
        pytest.param(503, 1, 0, id="broken for now"),
    ],
)
def test_what_an_answer_means(
    listener: Any, receiver: Receiver, tmp_path: Path, status: int, left: int, dropped: int
) -> None:
    receiver.status = status

    fail(listener)

    assert len(spooled(tmp_path)) == left
    assert listener.Spool(tmp_path / "spool").take_dropped() == dropped


def test_a_full_spool_drops_the_oldest_and_the_next_event_says_how_many(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listener, "SPOOL_MAX_FILES", 2)
    monkeypatch.setenv("AIRMEDIC_URL", closed_url())
    for number in range(5):
        fail(listener, task_id=f"task_{number}")
    kept = [json.loads(path.read_text())["task_id"] for path in spooled(tmp_path)]

    monkeypatch.setenv("AIRMEDIC_URL", receiver.url)
    fail(listener, task_id="last")
    fail(listener, task_id="after")

    assert kept == ["task_3", "task_4"]
    assert [d.event["dropped"] for d in receiver.deliveries] == [4, 0]


def test_a_slow_server_holds_one_hook_briefly_and_the_next_not_at_all(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listener, "HOOK_WAIT", 0.2)
    receiver.delay = 0.6

    started = time.monotonic()
    fail(listener)
    first = time.monotonic() - started
    fail(listener)
    second = time.monotonic() - started - first

    assert first < 0.5
    assert second < 0.1
    assert len(spooled(tmp_path)) == 2
    time.sleep(0.6)


def test_the_scheduler_is_not_held_and_the_event_goes_out(
    listener: Any, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.delay = 0.3
    in_scheduler = SimpleNamespace(**vars(make_task_instance()))

    started = time.monotonic()
    listener.ListenerWithError().on_task_instance_failed(in_scheduler, "heartbeat timeout")
    held = time.monotonic() - started

    assert held < 0.1
    assert wait_until(lambda: receiver.deliveries and not spooled(tmp_path))
    assert receiver.deliveries[0].event["error"] == "heartbeat timeout"


class Base(DeclarativeBase):
    """For one table that is never made."""


class DagRun(Base):
    """As much of Airflow's as the hook uses."""

    __tablename__ = "dag_run"
    id: Mapped[int] = mapped_column(primary_key=True)

    def get_task_instances(self, *, state: list[str], session: object) -> list[Any]:
        assert (state, session) == (["failed"], None)
        return [make_task_instance(task_id=name, try_number=2) for name in ("killed", "stuck")]


def test_a_failed_run_tells_of_its_failed_tasks(listener: Any, receiver: Receiver) -> None:
    listener.ListenerWithError().on_dag_run_failed(DagRun(id=1))

    told = [(d.event["event"], d.event["task_id"], d.event["try_number"]) for d in receiver.deliveries]
    assert told == [("task_instance_failed", "killed", 2), ("task_instance_failed", "stuck", 2)]


def test_a_run_that_cannot_be_read_is_no_error(listener: Any, receiver: Receiver) -> None:
    listener.ListenerWithError().on_dag_run_failed(object())

    assert receiver.deliveries == []


def test_nothing_is_done_without_a_server_address(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AIRMEDIC_URL")

    fail(listener)

    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("address", ["", "://", "http://[broken", "ftp://example", "http://127.0.0.1:99999"])
def test_no_hook_raises_whatever_the_settings(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIRMEDIC_URL", address)
    monkeypatch.setenv("AIRMEDIC_SPOOL_DIR", str(tmp_path / "file" / "spool"))

    fail(listener)
    monkeypatch.setenv("AIRMEDIC_SPOOL_DIR", str(tmp_path / "spool"))
    fail(listener)
    listener.ListenerWithError().on_task_instance_failed(object(), None)
    listener.on_failure_callback({})


def test_an_unwritable_spool_does_not_stop_delivery(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIRMEDIC_SPOOL_DIR", str(tmp_path / "file" / "spool"))

    fail(listener)

    assert len(receiver.deliveries) == 1


def test_an_error_is_cut_and_a_damaged_spool_file_is_dropped(
    listener: Any, receiver: Receiver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(listener, "BACKLOG_MIN_AGE", 0.0)
    (tmp_path / "spool").mkdir()
    (tmp_path / "spool" / "00000000000000000001_x.json").write_text("{")

    fail(listener, RuntimeError("x" * 900))

    assert len(receiver.deliveries[0].event["error"]) == 500
    assert spooled(tmp_path) == []


def test_an_import_error_is_told(listener: Any, receiver: Receiver) -> None:
    listener.ListenerWithError().on_new_dag_import_error("/dags/orders.py", "SyntaxError: line 3")

    assert wait_until(lambda: receiver.deliveries)
    event = receiver.deliveries[0].event
    assert (event["event"], event["filename"]) == ("dag_import_error", "/dags/orders.py")
    assert event["stacktrace"] == "SyntaxError: line 3"


async def test_the_notifier_and_the_callback_report_without_the_plugin(
    listener: Any, receiver: Receiver
) -> None:
    context = {"ti": make_task_instance(), "exception": KeyError("id")}

    listener.on_failure_callback(context)
    listener.AirmedicNotifier().notify(context)
    await asyncio.wait_for(listener.AirmedicNotifier().async_notify(context), 5)

    assert [d.event["error"] for d in receiver.deliveries] == ["KeyError: 'id'"] * 3
