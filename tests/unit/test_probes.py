"""A retry waits for what it needs, where an administrator said that it may be asked; nobody else is."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from graph.domain import Facts, Outcome, Status
from graph.errors import SettingsInvalid
from tests.factories import Clock, make_diagnosis
from tests.unit.healing_world import make_airflow, open_ward
from tools.probes import Probe, Probes, parse_probes


@asynccontextmanager
async def listening(answer: bytes = b"", port: int = 0) -> AsyncIterator[int]:
    """A server on this machine that says one thing and hangs up."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


@pytest.fixture
def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("db.example.com:5432", "tcp://db.example.com:5432"),
        ("tcp://[::1]:6379", "tcp://[::1]:6379"),
        ("https://api.example.com/health", "https://api.example.com:443/health"),
        ("http://api.example.com:8080", "http://api.example.com:8080/"),
    ],
)
def test_what_a_probe_may_be(text: str, url: str) -> None:
    assert [one.url for one in parse_probes(f" {text} ,")] == [url]


@pytest.mark.parametrize(
    "text", ["db.example.com", "ftp://x:1", "http://u:p@x/", "x:99999", ":5432", "file:///etc/passwd"]
)
def test_anything_else_is_refused_with_its_name(text: str) -> None:
    with pytest.raises(SettingsInvalid, match="AIRMEDIC_PROBES"):
        parse_probes(text)


async def test_an_open_port_is_up_and_a_closed_one_is_down(free_port: int) -> None:
    async with listening() as port:
        up = await Probes(parse_probes(f"127.0.0.1:{port}")).look(["127.0.0.1"])
    down = await Probes(parse_probes(f"127.0.0.1:{free_port}")).look(["127.0.0.1"])
    assert up is not None
    assert up.up
    assert down is not None
    assert not down.up
    assert down.detail


@pytest.mark.parametrize(
    ("status", "up"), [(b"200 OK", True), (b"404 Not Found", True), (b"503 Busy", False)]
)
async def test_an_http_probe_is_up_below_500(status: bytes, up: bool) -> None:
    async with listening(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n") as port:
        reading = await Probes(parse_probes(f"http://127.0.0.1:{port}/health")).look(["127.0.0.1"])
    assert reading is not None
    assert reading.up is up


async def test_a_probe_that_hangs_is_down() -> None:
    hold = asyncio.Event()

    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hold.wait()
        writer.close()

    async with await asyncio.start_server(never, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reading = await Probes(parse_probes(f"http://127.0.0.1:{port}"), timeout=0.05).look(["127.0.0.1"])
        hold.set()
    assert reading is not None
    assert not reading.up


async def test_a_host_that_nobody_configured_is_never_asked() -> None:
    asked: list[str] = []

    class Watched(Probes):
        async def _ask(self, probe: Probe) -> None:  # type: ignore[override]
            asked.append(probe.host)

    assert (
        await Watched(parse_probes("db.example.com:5432")).look(["169.254.169.254", "evil.example"]) is None
    )
    assert asked == []


async def test_the_retry_waits_until_its_database_is_back(
    tmp_path: Path, clock: Clock, free_port: int
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    refused = make_diagnosis(facts=Facts(host="127.0.0.1"))
    async with open_ward(tmp_path, airflow, clock, refused, probes=f"127.0.0.1:{free_port}") as ward:
        await ward.report()
        await ward.pass_time(60)
        await ward.pass_time(60)
        assert (ward.writes(), (await ward.only()).status) == (0, Status.WAITING_TIMER)
        reasons = [str(event.data) for event in (await ward.detail()).events if event.name == "waiting"]
        assert f"tcp://127.0.0.1:{free_port} is not back" in reasons[-1]

        async with listening(port=free_port):
            await ward.pass_time(60)
            await ward.pass_time(30)
        assert (ward.writes(), (await ward.only()).outcome) == (1, Outcome.HEALED)


async def test_what_does_not_come_back_goes_to_people(tmp_path: Path, clock: Clock, free_port: int) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    refused = make_diagnosis(facts=Facts(host="127.0.0.1"))
    async with open_ward(tmp_path, airflow, clock, refused, probes=f"127.0.0.1:{free_port}") as ward:
        await ward.report()
        await ward.pass_time(60)
        await ward.pass_time(7 * 3600)
        record = await ward.only()
    assert (ward.writes(), record.outcome) == (0, Outcome.ESCALATED)
    assert "has not come back" in record.reason
