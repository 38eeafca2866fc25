"""Attacks over a real socket: nothing changes, memory stays bounded, no answer gives anything away."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import uvicorn
from sqlalchemy import text

from graph.domain import Role
from graph.errors import SettingsInvalid, StoreUnavailable
from server.access.entry import cors_origins
from server.access.limits import BODY_LIMIT, SMALL, Bodies
from server.db.database import open_database
from server.embedded import EmbeddedServer
from server.events import signature
from tests.unit.serving import Api, make_settings, open_api

NEW, OLD, RETIRED = "the-new-secret-of-ours", "the-old-secret-of-ours", "a-secret-of-last-year"
EVENT = {"event": "task_instance_failed", "dag_id": "orders", "run_id": "run_1", "task_id": "load"}
BODY = json.dumps(EVENT).encode()


@asynccontextmanager
async def on_a_socket(api: Api) -> AsyncIterator[tuple[httpx.AsyncClient, int]]:
    """Serve the application as `airmedic serve` does; a client and the port."""
    config = uvicorn.Config(api.app, port=0, lifespan="off", log_config=None, access_log=False)
    server = EmbeddedServer(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
        await asyncio.sleep(0.01)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            yield http, port
    finally:
        server.should_exit = True
        await serving


def signed(body: bytes, *, secret: str = NEW, webhook_id: str = "msg_1", ago: float = 0) -> dict[str, str]:
    timestamp = str(int(time.time() - ago))
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(secret, webhook_id, timestamp, body),
        "content-type": "application/json",
    }


async def rows(folder: Path) -> dict[str, int]:
    """How many rows each table has that an event could change."""
    async with open_database(f"sqlite:///{folder / 'airmedic.db'}") as engine, engine.connect() as connection:
        tables = ("occurrence", "incident", "delivery", "decision", "event")
        return {
            table: (await connection.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in tables
        }


Attack = tuple[bytes, dict[str, str], int]


def attacks() -> dict[str, Attack]:
    """Each with the status that answers it."""
    deep = b'{"event":"task_instance_failed","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    bomb = gzip.compress(b"\0" * 50_000_000)
    quotes = b"[" * 33 + b'"' + b'\\"' * 100_000
    later = json.dumps({**EVENT, "run_id": "run_2"}).encode()
    return {
        "replay of another's signature": (later, signed(BODY), 401),
        "too old": (later, signed(later, ago=301), 401),
        "from the future": (later, signed(later, ago=-360), 401),
        "wrong key": (later, signed(later, secret="guessed"), 401),
        "retired key": (later, signed(later, secret=RETIRED), 401),
        "empty key": (later, signed(later, secret=""), 401),
        "oversize": (b"x" * (BODY_LIMIT + 1), signed(b""), 413),
        "compressed bomb": (bomb, signed(bomb) | {"content-encoding": "gzip"}, 415),
        "compressed otherwise": (bomb, signed(bomb) | {"content-encoding": "zstd, gzip"}, 415),
        "deep JSON": (deep, signed(deep), 422),
        "quotes without end": (quotes, signed(quotes), 422),
    }


@pytest.mark.parametrize("name", list(attacks()))
async def test_an_attack_on_the_webhook_changes_nothing(tmp_path: Path, name: str) -> None:
    body, headers, status = attacks()[name]
    async with open_api(tmp_path, webhook_secret=f"{NEW},{OLD}") as api, on_a_socket(api) as (http, _):
        assert (await http.post("/webhook", content=BODY, headers=signed(BODY))).json()["accepted"] is True
        before = await rows(tmp_path)
        started = time.perf_counter()

        answer = await http.post("/webhook", content=body, headers=headers)

        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        assert time.perf_counter() - started < 5
        assert await rows(tmp_path) == before


async def test_a_true_duplicate_is_answered_alike_and_stores_nothing(tmp_path: Path) -> None:
    async with open_api(tmp_path, webhook_secret=NEW) as api, on_a_socket(api) as (http, _):
        headers = signed(BODY)
        first = await http.post("/webhook", content=BODY, headers=headers)
        before = await rows(tmp_path)

        again = [await http.post("/webhook", content=BODY, headers=headers) for _ in range(5)]

        assert {first.status_code, *(one.status_code for one in again)} == {202}
        assert {one.json()["event"] for one in again} == {"task_instance_failed"}
        assert await rows(tmp_path) == before


async def slowly(port: int, body: bytes, *, pieces: int, pause: float) -> bytes:
    """Send a body in pieces; what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "POST /webhook HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode())
    size, answer = max(1, len(body) // pieces), asyncio.create_task(reader.read())
    try:
        for start in range(0, len(body), size):
            writer.write(body[start : start + size])
            await asyncio.wait([answer], timeout=pause)
            if answer.done():
                break
        return await answer
    except ConnectionError:
        return b""
    finally:
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)


async def test_a_slow_body_is_cut_off_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.app.Bodies", partial(Bodies, body_time=0.3))
    async with open_api(tmp_path) as api, on_a_socket(api) as (http, port):
        before = await rows(tmp_path)
        started = time.perf_counter()

        answer = await slowly(port, BODY * 10, pieces=100, pause=0.05)

        if answer:  # a reset that overtakes the answer takes it away
            assert answer.startswith(b"HTTP/1.1 408 ")
            assert b"connection: close" in answer
        assert time.perf_counter() - started < 15
        assert await rows(tmp_path) == before
        assert (await http.post("/webhook", json=EVENT)).status_code == 202


async def test_many_slow_senders_hold_little_memory_and_keep_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held of unfinished bodies is bounded together; small events still come in meanwhile."""
    held, large = 1024 * 1024, b"x" * (BODY_LIMIT - 1)
    monkeypatch.setattr("server.app.Bodies", partial(Bodies, body_time=1.5, held_limit=held))
    async with open_api(tmp_path) as api, on_a_socket(api) as (http, port):
        assert (await http.post("/webhook", json=EVENT)).status_code == 202
        gc.collect()
        tracemalloc.start()
        try:
            senders = [asyncio.create_task(slowly(port, large, pieces=4, pause=0.8)) for _ in range(60)]
            await asyncio.sleep(1)
            _, peak = tracemalloc.get_traced_memory()
            meanwhile = await http.post("/webhook", json={**EVENT, "run_id": "run_2"})
            answers = await asyncio.gather(*senders)
        finally:
            tracemalloc.stop()
    assert meanwhile.status_code == 202
    assert any(answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer for answer in answers)
    # Our own client holds its half of each connection in this process too.
    assert peak < held + 60 * (SMALL + 3 * 65_536)


# --- rates ------------------------------------------------------------------------------------------------


async def test_too_many_requests_are_told_when_to_come_back(tmp_path: Path) -> None:
    async with open_api(tmp_path, rate_address="5/minute") as api:
        answers = [await api.http.get("/api/status") for _ in range(7)]
        alive = [(await api.http.get("/healthz")).status_code for _ in range(20)]
        webhook = [(await api.http.post("/webhook", json=EVENT)).status_code for _ in range(20)]

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    last = answers[-1]
    assert last.headers["content-type"] == "application/problem+json"
    assert last.json()["type"] == "urn:airmedic:problem:rate-limited"
    assert 1 <= int(last.headers["retry-after"]) <= 12
    assert set(alive) == {200}
    assert set(webhook) == {202}


async def test_strangers_who_guess_do_not_use_up_what_the_known_have(tmp_path: Path) -> None:
    async with open_api(tmp_path, rate_address="5/minute", rate_token="10/minute") as api:
        token, _ = await api.service.tokens.create("ada", Role.VIEWER, life=timedelta(hours=1))
        shown = {"authorization": f"Bearer {token}"}
        assert (await api.http.get("/api/status", headers=shown)).status_code == 200
        guesses = [
            await api.http.get("/api/status", headers={"authorization": f"Bearer airm_{number}"})
            for number in range(10)
        ]
        known = [await api.http.get("/api/status", headers=shown) for _ in range(12)]

    assert [one.status_code for one in guesses] == [401] * 4 + [429] * 6
    assert [one.status_code for one in known] == [200] * 10 + [429] * 2


async def test_the_webhook_has_a_rate_of_its_own(tmp_path: Path) -> None:
    async with open_api(tmp_path, rate_webhook="3/minute") as api:
        answers = [(await api.http.post("/webhook", json=EVENT)).status_code for _ in range(5)]
        assert (await api.http.get("/api/status")).status_code == 200

    assert answers == [202] * 3 + [429] * 2


# --- other people's pages ---------------------------------------------------------------------------------

FRIEND = "https://ops.example.com"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        pytest.param(FRIEND, True, id="the one that is configured"),
        pytest.param("https://ops.example.com.evil.example", False, id="a name that begins alike"),
        pytest.param("http://ops.example.com", False, id="in the clear"),
        pytest.param("https://OPS.example.com", False, id="spelled otherwise"),
        pytest.param("null", False, id="no origin"),
    ],
)
async def test_pages_of_configured_origins_may_call(tmp_path: Path, origin: str, allowed: bool) -> None:
    async with open_api(tmp_path, cors_origins=f"{FRIEND}, https://b.example:8443") as api:
        asking = {
            "origin": origin,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,idempotency-key",
        }
        preflight = await api.http.options("/api/control", headers=asking)
        answer = await api.http.post("/api/control", json={"paused": True}, headers={"origin": origin})
        refused = await api.http.get("/api/incidents/1", headers={"origin": origin})

    assert preflight.status_code == (200 if allowed else 403)
    assert answer.status_code == (200 if allowed else 403)
    for one in (preflight, answer, refused):
        assert one.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert "access-control-allow-credentials" not in one.headers


@pytest.mark.parametrize(
    "origins", ["*", "ops.example.com", "https://a.example/", "https://*.example", "null"]
)
def test_an_origin_that_is_none_is_named(tmp_path: Path, origins: str) -> None:
    with pytest.raises(SettingsInvalid, match="AIRMEDIC_CORS_ORIGINS"):
        cors_origins(make_settings(tmp_path, cors_origins=origins))


# --- what answers give away -------------------------------------------------------------------------------

SECRET = "hunter2secret"


class Broken:
    """A part of the service that fails at every touch, with a secret in its words."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        async def fail(*_args: object, **_given: object) -> None:
            raise self._error

        return fail


ERRORS = [
    pytest.param(ZeroDivisionError(f"password={SECRET}"), 500, id="a defect"),
    pytest.param(StoreUnavailable(f"no answer (password={SECRET})"), 503, id="a database that is away"),
    pytest.param(
        RuntimeError(f"postgresql://airmedic:{SECRET}@db/airmedic"), 500, id="a URL with a password"
    ),
]


@pytest.mark.parametrize(("error", "status"), ERRORS)
async def test_no_answer_holds_a_secret_or_a_trace(tmp_path: Path, error: Exception, status: int) -> None:
    secrets: dict[str, Any] = {"webhook_secret": NEW, "api_token": "a-token-of-the-settings"}
    headers = {"authorization": "Bearer a-token-of-the-settings", **signed(BODY)}
    seen = set()
    # Captured: the logger of an unconfigured process draws every local variable of a defect.
    with structlog.testing.capture_logs():
        async with open_api(tmp_path, **secrets) as api:
            asked = [
                (method, path) for path, methods in api.app.openapi()["paths"].items() for method in methods
            ]
            object.__setattr__(api.service, "store", Broken(error))
            object.__setattr__(api.service, "intake", Broken(error))
            for method, path in asked:
                body, url = BODY if method == "post" else None, path.replace("{incident_id}", "1")
                answer = await api.http.request(method.upper(), url, content=body, headers=headers)
                seen.add(answer.status_code)
                for word in (SECRET, "Traceback", 'File "', ".py", *secrets.values()):
                    assert word not in answer.text + str(answer.headers), (method, path)
    assert status in seen
