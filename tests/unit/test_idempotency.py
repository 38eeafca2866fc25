"""Idempotency keys: a write that is sent again is done once, and answered as the first time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import Message

from graph.domain import Role
from graph.errors import StoreUnavailable
from server.access.idempotency import _Recorder
from server.access.kept_answers import Kept, KeptAnswers
from tests.factories import Clock
from tests.unit.serving import Api, open_api

KEY = "7f1c-approve-2"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as opened:
        yield opened


async def approve(api: Api, number: int, *, key: str = KEY, **headers: str) -> httpx.Response:
    body = {"type": "approve", "version": 2}
    return await api.decide(number, body, **{"idempotency-key": key, **headers})


async def test_a_decision_sent_again_is_answered_as_the_first_time(api: Api) -> None:
    number = await api.fail()

    first = await approve(api, number)
    await api.drive()
    again = await approve(api, number)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.content == first.content
    assert again.headers["etag"] == first.headers["etag"]
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert sum(write.verb == "clear" for write in api.airflow.writes) == 1
    # Without the key, the second answer is a conflict.
    assert (await api.decide(number, {"type": "approve", "version": 2})).status_code == 409


async def test_many_at_once_are_one(api: Api) -> None:
    number = await api.fail()

    answers = await asyncio.gather(*(approve(api, number) for _ in range(8)))

    assert {answer.status_code for answer in answers} <= {202, 409}
    assert (
        sum(answer.status_code == 202 and "idempotency-replayed" not in answer.headers for answer in answers)
        == 1
    )
    busy = [answer for answer in answers if answer.status_code == 409]
    assert all(answer.headers["retry-after"] == "1" for answer in busy)
    assert all("is at work" in answer.json()["detail"] for answer in busy)


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        pytest.param("decision", {"type": "reject", "version": 2}, {}, id="another body"),
        pytest.param("close", {"type": "approve", "version": 2}, {}, id="another path"),
        pytest.param("decision?x=1", {"type": "approve", "version": 2}, {}, id="another query"),
        pytest.param(
            "decision", {"type": "approve", "version": 2}, {"if-match": '"2"'}, id="another version"
        ),
    ],
)
async def test_a_key_belongs_to_one_request(api: Api, path: str, body: Any, headers: dict[str, str]) -> None:
    number = await api.fail()
    await approve(api, number)

    given = {"idempotency-key": KEY, **headers}
    answer = await api.http.post(f"/api/incidents/{number}/{path}", json=body, headers=given)

    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:airmedic:problem:idempotency-key-reused"


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "ä".encode().decode("latin-1")])
async def test_a_key_that_is_none_is_refused(api: Api, key: str) -> None:
    headers = [(b"idempotency-key", key.encode("latin-1"))]

    answer = await api.http.post("/api/control", json={"paused": True}, headers=headers)

    assert answer.status_code == 422
    assert (await api.http.get("/api/control")).json()["paused"] is False


async def test_a_key_belongs_to_its_caller(api: Api) -> None:
    number = await api.fail()
    shown = {}
    for name in ("ada", "bob"):
        token, _ = await api.service.tokens.create(name, Role.OPERATOR, life=timedelta(hours=1))
        shown[name] = {"authorization": f"Bearer {token}"}
    assert (await approve(api, number, **shown["ada"])).status_code == 202

    other = await approve(api, number, **shown["bob"])
    nobody = await approve(api, number)

    assert other.status_code == 409
    assert "idempotency-replayed" not in other.headers
    assert nobody.status_code == 401


async def test_who_was_shut_out_gets_no_kept_answer(api: Api) -> None:
    token, _ = await api.service.tokens.create("ada", Role.ADMIN, life=timedelta(hours=1))
    headers = {"authorization": f"Bearer {token}", "idempotency-key": KEY}
    assert (await api.http.post("/api/control", json={"paused": True}, headers=headers)).status_code == 200
    await api.service.tokens.revoke("ada")
    api.app.state.doorkeeper._timer = lambda: 1e9

    assert (await api.http.post("/api/control", json={"paused": True}, headers=headers)).status_code == 401


async def test_a_refusal_is_kept_too_and_a_failure_is_not(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = await approve(api, 99)
    assert (await approve(api, 99)).headers["idempotency-replayed"] == "true"
    assert refused.status_code == 404

    async def away(*_args: object, **_given: object) -> None:
        raise StoreUnavailable("the database did not answer")

    headers = {"idempotency-key": "another"}
    with monkeypatch.context() as patch:
        patch.setattr(api.service.store, "remember", away)
        failed = await api.http.post("/api/control", json={"paused": True}, headers=headers)
    assert failed.status_code == 503
    done = await api.http.post("/api/control", json={"paused": True}, headers=headers)

    assert done.status_code == 200
    assert "idempotency-replayed" not in done.headers


async def test_reading_asks_for_no_key(api: Api) -> None:
    for _ in range(2):
        answer = await api.http.get("/api/control", headers={"idempotency-key": KEY})
        assert "idempotency-replayed" not in answer.headers


# --- the kept answers -------------------------------------------------------------------------------------


async def test_answers_are_kept_for_a_day(engine: AsyncEngine, clock: Clock) -> None:
    answers, kept = KeptAnswers(engine, clock=clock), Kept("r", 200, {"etag": '"2"'}, b"{}")
    assert await answers.begin("k", "r") is None
    await answers.keep("k", kept)
    clock.forward(23 * 3600)
    assert await answers.begin("k", "r") == kept

    clock.forward(3600)

    assert await answers.begin("k", "r") is None


async def test_who_went_away_holds_its_key_for_minutes(engine: AsyncEngine, clock: Clock) -> None:
    answers = KeptAnswers(engine, clock=clock)
    assert await answers.begin("k", "r") is None
    clock.forward(60)
    found = await answers.begin("k", "r")
    assert found is not None
    assert found.status is None

    clock.forward(61)
    assert await answers.begin("k", "r") is None
    assert await answers.begin("k", "r") is not None


@pytest.mark.parametrize(
    "kind", [pytest.param("text/event-stream", id="a stream"), pytest.param("text/plain", id="a large one")]
)
async def test_what_cannot_be_kept_gives_the_key_back(kind: str) -> None:
    settled: list[Kept | None] = []
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def settle(kept: Kept | None) -> None:
        settled.append(kept)

    recorder = _Recorder(send, "r", settle)
    headers = [(b"content-type", kind.encode())]
    await recorder({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(5):
        await recorder({"type": "http.response.body", "body": b"x" * 65_536, "more_body": True})
    await recorder({"type": "http.response.body", "body": b"", "more_body": False})

    assert settled == [None]
    assert len(sent) == 7
