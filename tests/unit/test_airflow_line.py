"""How a request travels to Airflow: over kept connections, with TLS, and what is certain when one breaks."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import socketserver
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from graph.errors import AirflowDoubt, AirflowUnreachable, SettingsInvalid
from tests.unit.airflow_server import RESET, answer, open_scripted
from tools.airflow_auth import StaticToken
from tools.airflow_http import AirflowHttp
from tools.airflow_line import AT_ONCE, Answer, AnswerLost, Line, NeverLeft, Parcel, tls_of
from tools.airflow_rest import AirflowRest

DONE = b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\n{}"
Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Server:
    """Counts connections, and answers each request on any of them with the next of `answers`."""

    url: str = ""
    answers: list[bytes] = field(default_factory=list)
    connections: int = 0
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    pause: float = 0.0
    talking: list[asyncio.Task[None] | None] = field(default_factory=list)
    now: int = 0
    most: int = 0  #: requests at the same time

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        self.talking.append(asyncio.current_task())
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.heads.append(head)
                length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
                self.bodies.append(await reader.readexactly(int(length or 0)))
                self.now += 1
                self.most = max(self.most, self.now)
                await asyncio.sleep(self.pause)
                self.now -= 1
                said = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                writer.write(said)
                if b"content-length" not in said and b"chunked" not in said:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def open_server(*answers: bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    found = Server(answers=list(answers))
    server = await asyncio.start_server(found.talk, "127.0.0.1", 0, ssl=tls)
    scheme = "http" if tls is None else "https"
    found.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()
        await asyncio.sleep(0.01)  # who was let in just now
        for writer in found.writers:
            writer.close()
        await asyncio.gather(*(one for one in found.talking if one is not None), return_exceptions=True)


@asynccontextmanager
async def open_line(url: str, *, verify: bool | str = True, patience: float = 0.5) -> AsyncIterator[Line]:
    line = Line(tls=tls_of(url, verify), proxy=None, timeout=patience)
    try:
        yield line
    finally:
        await line.aclose()


def get(server: Server, *, write: bool = False, **headers: str) -> Parcel:
    return Parcel("GET", f"{server.url}/api/v2/pools/p?limit=1", headers, write=write)


WHOLE = [
    pytest.param(DONE, id="a length that was told"),
    pytest.param(
        b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n", id="in chunks"
    ),
    pytest.param(b"HTTP/1.1 200 X\r\n\r\n{}", id="until the other side hangs up"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + DONE, id="after a word in between"),
    pytest.param(
        b"HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n%s"
        % (len(gzip.compress(b"{}")), gzip.compress(b"{}")),
        id="packed, which nobody asked for",
    ),
]


@pytest.mark.parametrize("said", WHOLE)
async def test_a_whole_answer_is_read_however_its_end_is_told(said: bytes) -> None:
    async with open_server(said) as server, open_line(server.url) as line:
        assert await line.carry(get(server)) == Answer(200, b"{}")

    assert server.heads[0].startswith("GET /api/v2/pools/p?limit=1 HTTP/1.1\r\n")
    assert f"host: {server.url[7:]}\r\n" in server.heads[0].lower()


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"HTTP/1.1 200 X\r\n\r\n", id="nothing but a head is an empty body"),
        pytest.param(b"HTTP/1.1 204 X\r\n\r\n", id="no content"),
    ],
)
async def test_an_empty_answer(said: bytes) -> None:
    async with open_server(said) as server, open_line(server.url) as line:
        assert (await line.carry(get(server))).body == b""


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(b"SSH-2.0-OpenSSH\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 200 X\r\ncontent-length: 9\r\n\r\n{}", id="shorter than it was told"),
        pytest.param(b"HTTP/1.1 200 X\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 X\r\nx: " + b"y" * 100_000, id="a head without an end"),
        pytest.param(
            b"HTTP/1.1 200 X\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}", id="not packed at all"
        ),
    ],
)
async def test_what_is_no_whole_answer_is_lost(said: bytes) -> None:
    async with open_server(said) as server, open_line(server.url) as line:
        with pytest.raises(AnswerLost):
            await line.carry(get(server))


async def test_a_body_goes_out_as_json_with_its_length() -> None:
    async with open_server(DONE) as server, open_line(server.url) as line:
        await line.carry(Parcel("PATCH", f"{server.url}/x", {}, {"note": "ä"}, write=True))

    assert server.bodies == [b'{"note": "\\u00e4"}']


async def test_one_connection_carries_one_request_after_the_other() -> None:
    async with open_server(DONE) as server, open_line(server.url) as line:
        for _ in range(5):
            await line.carry(get(server))

    assert (server.connections, len(server.heads)) == (1, 5)


async def test_so_many_requests_are_under_way_and_the_others_wait() -> None:
    async with open_server(DONE) as server, open_line(server.url, patience=5) as line:
        server.pause = 0.02
        await asyncio.gather(*(line.carry(get(server)) for _ in range(3 * AT_ONCE)))

    assert server.most == server.connections == AT_ONCE


async def test_a_write_does_not_go_out_on_a_line_that_was_hung_up() -> None:
    async with open_server(DONE) as server, open_line(server.url) as line:
        await line.carry(get(server))
        server.writers[0].get_extra_info("socket").shutdown(socket.SHUT_RDWR)  # the loop has not heard of it

        assert (await line.carry(get(server, write=True))).status == 200

    assert server.connections == 2


async def test_whoever_stops_waiting_leaves_no_answer_for_the_next() -> None:
    old = b"HTTP/1.1 200 X\r\ncontent-length: 3\r\n\r\nold"
    async with open_server(old, DONE) as server, open_line(server.url) as line:
        server.pause = 0.1
        waiting = asyncio.create_task(line.carry(get(server)))
        await asyncio.sleep(0.05)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        server.pause = 0.0
        await asyncio.sleep(0.1)

        assert (await line.carry(get(server))).body == b"{}"


async def test_words_that_nobody_asked_for_end_the_line() -> None:
    async with open_server(DONE + DONE, DONE) as server, open_line(server.url) as line:
        await line.carry(get(server))
        await line.carry(get(server))

    assert server.connections == 2


async def test_a_drip_of_bytes_is_no_silence() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for position in range(len(DONE)):
            writer.write(DONE[position : position + 1])
            await asyncio.sleep(0.01)
        writer.close()

    async with serving(talk) as url, open_line(url, patience=0.2) as line:
        assert (await line.carry(Parcel("GET", f"{url}/x", {}))).body == b"{}"


async def test_an_answer_without_end_has_an_end() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 9999\r\n\r\n")
            while not writer.is_closing():
                writer.write(b"x")
                await asyncio.sleep(0.02)
        finally:
            writer.close()

    async with serving(talk) as url, open_line(url, patience=0.1) as line:
        with pytest.raises(AnswerLost, match=r"within 1\.2 s"):
            await line.carry(Parcel("GET", f"{url}/x", {}))


async def test_who_waited_in_vain_for_a_place_has_sent_nothing() -> None:
    async with open_server(DONE) as server, open_line(server.url, patience=5) as line:
        server.pause = 0.3
        others = [asyncio.create_task(line.carry(get(server, write=True))) for _ in range(AT_ONCE)]
        await asyncio.sleep(0.1)
        with pytest.raises(NeverLeft):
            await line.carry(replace(get(server, write=True), leave_by=time.monotonic() + 0.05))
        await asyncio.gather(*others)

    assert len(server.heads) == AT_ONCE


async def test_who_comes_too_late_is_not_sent() -> None:
    async with open_server(DONE) as server, open_line(server.url) as line:
        with pytest.raises(NeverLeft):
            await line.carry(replace(get(server, write=True), leave_by=time.monotonic()))

    assert server.heads == []


class Apart(socketserver.ThreadingTCPServer):
    """A server in threads of its own: it hears while the event loop stands still."""

    daemon_threads = True
    heard: ClassVar[list[float]] = []

    class RequestHandlerClass(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            if self.rfile.readline():
                Apart.heard.append(time.monotonic())
                self.wfile.write(DONE)


@pytest.fixture
def apart() -> Iterator[str]:
    Apart.heard.clear()
    with Apart(("127.0.0.1", 0), Apart.RequestHandlerClass) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def stand_still(seconds: float) -> None:
    """The whole process, its event loop too."""
    time.sleep(seconds)


@pytest.mark.parametrize("body", [None, {}], ids=["no body", "a body"])
async def test_a_process_that_was_stopped_before_the_write_left_does_not_send_it(
    apart: str, body: object
) -> None:
    """Stopped after each number of turns of the loop: it has left before, or it stays."""
    stayed = 0
    async with open_line(apart, patience=5) as line:
        for turns in range(30):
            Apart.heard.clear()
            leave_by = time.monotonic() + 0.1
            parcel = Parcel("POST", f"{apart}/x", {}, body, write=True, leave_by=leave_by)
            waiting = asyncio.create_task(line.carry(parcel))
            for _ in range(turns):
                await asyncio.sleep(0)
            stand_still(0.3)
            (found,) = await asyncio.gather(waiting, return_exceptions=True)
            assert isinstance(found, Answer | NeverLeft), found
            assert all(heard < leave_by + 0.1 for heard in Apart.heard), turns
            assert len(Apart.heard) == isinstance(found, Answer)
            stayed += isinstance(found, NeverLeft)

    assert stayed > 1


@pytest.mark.parametrize("method", ["DELETE", "PATCH", "POST", "PUT"])
async def test_a_write_whose_answer_is_lost_is_not_sent_again(method: str) -> None:
    async with open_scripted(RESET, RESET) as server, open_line(server.url) as line:
        with pytest.raises(AnswerLost):
            await line.carry(Parcel(method, f"{server.url}/x", {}, write=True))

    assert len(server.requests) == 1


async def test_a_header_that_is_none_is_not_sent_and_not_told() -> None:
    async with open_server(DONE) as server, open_line(server.url) as line:
        with pytest.raises(NeverLeft) as told:
            await line.carry(get(server, Authorization="Bearer secret\r\nx: y"))
        await line.carry(get(server))

    assert "secret" not in str(told.value)
    assert len(server.heads) == 1


async def test_a_line_that_broke_while_it_was_made_has_carried_nothing() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.close()

    async with serving(talk) as url, open_line(secure := url.replace("http", "https")) as line:
        with pytest.raises(NeverLeft):
            await line.carry(Parcel("POST", f"{secure}/x", {}, {}, write=True))


async def test_tls_with_a_certificate_authority_of_ones_own(certificate: Path) -> None:
    async with (
        open_server(DONE, tls=speaking(certificate)) as server,
        open_line(server.url, verify=str(certificate)) as line,
    ):
        for _ in range(3):
            assert (await line.carry(get(server, write=True))).status == 200

    assert len(server.heads) == 3


async def test_a_name_in_the_address_is_left_out() -> None:
    async with open_server(DONE) as server, open_line(server.url) as line:
        url = server.url.replace("//", "//ada:secret@")
        assert (await line.carry(Parcel("GET", f"{url}/x", {"Authorization": "Bearer t"}))).status == 200

    assert "ada" not in server.heads[0]
    assert "Authorization: Bearer t\r\n" in server.heads[0]


async def test_a_long_header_is_read() -> None:
    said = DONE.replace(b"\r\n\r\n", b"\r\nx: " + b"y" * 20_000 + b"\r\n\r\n")
    async with open_server(said) as server, open_line(server.url) as line:
        assert (await line.carry(get(server))).body == b"{}"


async def test_after_closing_nothing_is_sent() -> None:
    async with open_server(DONE) as server, open_line(server.url) as line:
        await line.carry(get(server))
        await line.aclose()
        with pytest.raises(NeverLeft):
            await line.carry(get(server, write=True))

    assert len(server.heads) == 1


async def test_a_proxy_that_cannot_be_used_is_not_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5h://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "inside.example")

    with pytest.raises(SettingsInvalid, match="SOCKS"):
        AirflowHttp("http://airflow.example:8080", StaticToken("t"))
    inside = AirflowHttp("http://inside.example:8080", StaticToken("t"))
    await inside.aclose()


async def test_tls_without_verifying(certificate: Path) -> None:
    async with (
        open_server(DONE, tls=speaking(certificate)) as server,
        open_line(server.url, verify=False) as line,
    ):
        assert (await line.carry(get(server))).status == 200


async def test_a_certificate_nobody_vouches_for_gets_no_request(certificate: Path) -> None:
    async with open_server(DONE, tls=speaking(certificate)) as server, open_line(server.url) as line:
        with pytest.raises(NeverLeft, match="SSLCertVerificationError"):
            await line.carry(get(server, write=True))

    assert server.heads == []


@pytest.mark.parametrize(
    ("said", "error"),
    [
        pytest.param(RESET, AirflowDoubt, id="an answer that is lost leaves a write in doubt"),
        pytest.param(answer(503, "busy"), AirflowDoubt, id="so does the word of a proxy"),
        pytest.param(None, AirflowUnreachable, id="a proxy that nobody runs has sent nothing on"),
    ],
)
async def test_a_proxy_of_the_environment_is_asked(
    said: bytes | None, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_scripted(said or b"") as proxy:
        url = proxy.url if said is not None else "http://127.0.0.1:9"
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", "")
        rest = AirflowRest(AirflowHttp("http://airflow.example:8080", StaticToken("t"), timeout=1, pause=0))
        try:
            with pytest.raises(error) as told:
                await rest.set_paused("d", paused=True)
        finally:
            await rest.aclose()

    assert type(told.value) is error
    assert [one.path for one in proxy.requests] == (
        ["http://airflow.example:8080/api/v2/dags/d?update_mask=is_paused"] if said is not None else []
    )


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[str]:
    talking: list[asyncio.Task[None] | None] = []

    async def noted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talking.append(asyncio.current_task())
        await talk(reader, writer)

    server = await asyncio.start_server(noted, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.sleep(0.01)  # who was let in just now
        await asyncio.gather(*(one for one in talking if one is not None), return_exceptions=True)


def speaking(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for this machine that vouches for itself, and its key beside it."""
    folder, key = tmp_path_factory.mktemp("tls"), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "airflow")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return path
