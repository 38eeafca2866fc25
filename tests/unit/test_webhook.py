"""The webhook under attack: a precise 4xx or an idempotent 202, never an incident out of nothing."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graph.errors import StoreUnavailable
from server.events import signature
from tests.unit.serving import Api, open_api

NEW, OLD = "the-new-secret-of-ours", "the-old-secret-of-ours"
EVENT = {"event": "task_instance_failed", "dag_id": "orders", "run_id": "run_1", "task_id": "load"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, webhook_secret=f"{NEW}, {OLD}") as opened:
        yield opened


def signed(body: bytes, *, secret: str = NEW, webhook_id: str = "msg_1", ago: float = 0) -> dict[str, str]:
    timestamp = str(int(time.time() - ago))
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(secret, webhook_id, timestamp, body),
        "content-type": "application/json",
    }


async def send(api: Api, event: Any, **given: Any) -> httpx.Response:
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return await api.http.post("/webhook", content=body, headers=signed(body, **given))


async def nothing_came_in(api: Api) -> bool:
    return not await api.service.store.new_occurrences() and not await api.service.store.incidents()


async def test_a_signed_event_is_stored_before_the_answer(api: Api) -> None:
    answer = await send(api, EVENT)

    assert answer.status_code == 202
    assert answer.json() == {"accepted": True, "event": "task_instance_failed"}
    (occurrence,) = await api.service.store.new_occurrences()
    assert occurrence.task.dag_id == "orders"


async def test_what_the_plugin_stamped_came_through_the_listener(api: Api) -> None:
    await send(api, {**EVENT, "sent_at": "2026-03-01T03:00:00+00:00"})

    (occurrence,) = await api.service.store.new_occurrences()
    assert occurrence.door == "listener"
    assert (await api.http.get("/api/status")).json()["seen"]["listener"] is not None


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"webhook_id": "msg_1"}, id="the same delivery again"),
        pytest.param({"webhook_id": "msg_2"}, id="the same failure in another delivery"),
        pytest.param({"webhook_id": "msg_3", "secret": OLD}, id="by another worker with the old secret"),
    ],
)
async def test_a_repeat_gets_the_same_answer_and_stores_nothing(api: Api, given: dict[str, str]) -> None:
    await send(api, EVENT)

    again = await send(api, EVENT, **given)

    assert again.status_code == 202
    assert again.json() == {"accepted": False, "event": "task_instance_failed"}
    assert len(await api.service.store.new_occurrences()) == 1


async def test_a_replayed_delivery_cannot_carry_another_event(api: Api) -> None:
    await send(api, EVENT, webhook_id="msg_1")

    again = await send(api, {**EVENT, "run_id": "run_2"}, webhook_id="msg_1")

    assert again.json()["accepted"] is False
    assert len(await api.service.store.new_occurrences()) == 1


async def test_an_event_about_an_unknown_run_opens_nothing(api: Api) -> None:
    answer = await send(api, {**EVENT, "run_id": "no_such_run"})
    assert answer.status_code == 202

    await api.drive()

    assert await nothing_came_in(api)


async def test_an_event_about_a_task_that_did_not_fail_opens_nothing(api: Api) -> None:
    api.airflow.start("orders", "run_1")
    await api.airflow.settle()
    await api.airflow.clear("orders", "run_1", (await _tasks(api)), dry_run=False)
    await api.airflow.settle()

    await send(api, {**EVENT, "try_number": 2})
    await api.drive()

    assert not await api.service.store.incidents()


async def _tasks(api: Api) -> list[Any]:
    return [one.task for one in await api.airflow.run_tasks("orders", "run_1")]


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"webhook-signature": ""}, id="unsigned"),
        pytest.param({"webhook-id": ""}, id="no id"),
        pytest.param({"webhook-timestamp": ""}, id="no time"),
        pytest.param({"webhook-signature": "v1,AAAA"}, id="a wrong signature"),
        pytest.param({"webhook-signature": "v1," + "A" * 5000}, id="a long signature"),
        pytest.param({"webhook-signature": "v1,\xff".encode("latin-1")}, id="a signature of odd bytes"),
        pytest.param({"webhook-id": "msg_2"}, id="another id than was signed"),
        pytest.param({"webhook-id": "x" * 5000}, id="a long id"),
        pytest.param({"webhook-timestamp": str(int(time.time()) + 1)}, id="another time than was signed"),
        pytest.param({"webhook-timestamp": "now"}, id="no number"),
        pytest.param({"webhook-timestamp": "9" * 400}, id="a huge time"),
        pytest.param({"webhook-timestamp": "-1"}, id="a negative time"),
        pytest.param({"webhook-timestamp": "٣"}, id="a digit of another script"),
    ],
)
async def test_what_is_not_signed_is_not_heard(api: Api, changed: dict[str, Any]) -> None:
    body = json.dumps(EVENT).encode()
    headers: dict[str, Any] = {**signed(body), **changed}

    raw = [(k.encode(), v if isinstance(v, bytes) else v.encode()) for k, v in headers.items()]
    answer = await api.http.post("/webhook", content=body, headers=raw)

    assert answer.status_code == 401
    assert answer.json()["type"] == "urn:airmedic:problem:not-authentic"
    assert NEW not in answer.text
    assert OLD not in answer.text
    assert await nothing_came_in(api)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param({"secret": "a-key-of-somebody-else"}, id="another key"),
        pytest.param({"secret": f"{NEW}, {OLD}"}, id="the setting itself is no key"),
        pytest.param({"ago": 301}, id="too old"),
        pytest.param({"ago": -302}, id="from the future"),
    ],
)
async def test_a_wrong_key_or_time_is_not_heard(api: Api, given: dict[str, Any]) -> None:
    assert (await send(api, EVENT, **given)).status_code == 401
    assert await nothing_came_in(api)


async def test_a_changed_body_is_not_heard(api: Api) -> None:
    headers = signed(json.dumps(EVENT).encode())

    answer = await api.http.post(
        "/webhook", content=json.dumps({**EVENT, "dag_id": "payroll"}), headers=headers
    )

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("event", "field"),
    [
        pytest.param(b"", "body", id="empty"),
        pytest.param(b"{", "body", id="cut off"),
        pytest.param(b"[]", "body", id="a list"),
        pytest.param(b"null", "body", id="null"),
        pytest.param(b'"task_instance_failed"', "body", id="a word"),
        pytest.param(b"\xff\xfe\x00", "body", id="not UTF-8"),
        pytest.param(b'{"event": "\xff"}', "body", id="not UTF-8 inside"),
        pytest.param(b'{"event": "\\ud800"}', "body", id="half a character"),
        pytest.param({}, "event", id="no event"),
        pytest.param({**EVENT, "event": "task_instance_exploded"}, "event", id="an unknown event"),
        pytest.param({**EVENT, "dag_id": ""}, "dag_id", id="an empty name"),
        pytest.param({"event": "task_instance_failed"}, "dag_id", id="no task"),
        pytest.param({**EVENT, "dag_id": ["orders"]}, "dag_id", id="a list for a name"),
        pytest.param({**EVENT, "dag_id": "x" * 251}, "dag_id", id="a long name"),
        pytest.param({**EVENT, "dag_id": "a\0b"}, "dag_id", id="NUL in a name"),
        pytest.param({**EVENT, "run_id": "a\0b"}, "run_id", id="NUL in a run"),
        pytest.param({**EVENT, "try_number": 10**30}, "try_number", id="a huge number"),
        pytest.param(b'{"event":"task_instance_failed","try_number":1e999}', "try_number", id="infinity"),
        pytest.param(b'{"event":"task_instance_failed","try_number":NaN}', "try_number", id="not a number"),
        pytest.param({**EVENT, "try_number": -1}, "try_number", id="a negative try"),
        pytest.param({**EVENT, "map_index": 10**9}, "map_index", id="a huge index"),
        pytest.param({**EVENT, "error": "x" * 10_001}, "error", id="a long error"),
        pytest.param({**EVENT, "airflow": "another"}, "AIRMEDIC_AIRFLOW_ID", id="another Airflow"),
        pytest.param(b'{"a":' * 5000 + b"1" + b"}" * 5000, "body", id="deep"),
        pytest.param(
            b'{"event":"task_instance_failed","try_number":' + b"9" * 5000 + b"}", "", id="5000 digits"
        ),
    ],
)
async def test_a_malformed_event_is_refused_by_field(api: Api, event: Any, field: str) -> None:
    answer = await send(api, event)

    assert answer.status_code == 422, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in answer.json()["detail"]
    assert await nothing_came_in(api)


async def test_nul_in_the_error_text_does_no_harm(api: Api) -> None:
    answer = await send(api, {**EVENT, "error": "a\0b password=hunter2secret"})

    assert answer.status_code == 202
    (occurrence,) = await api.service.store.new_occurrences()
    assert "\0" not in occurrence.error
    assert "hunter2secret" not in occurrence.error


async def test_fields_that_nobody_knows_yet_do_no_harm(api: Api) -> None:
    assert (await send(api, {**EVENT, "plugin_version": 7})).status_code == 202


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_beyond_the_cap_is_refused_while_it_streams(api: Api, declared: bool) -> None:
    sent = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 50_000_000:
            sent += 65_536
            yield b"x" * 65_536

    headers = {"content-type": "application/json"} | ({"content-length": "50000000"} if declared else {})
    answer = await api.http.post("/webhook", content=body(), headers=headers)

    assert answer.status_code == 413
    # At most the cap and one chunk more were taken in.
    assert sent <= (0 if declared else 6 * 65_536)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"content-type": "text/plain"}, 415, id="text"),
        pytest.param({"content-type": "application/x-www-form-urlencoded"}, 415, id="a form"),
        pytest.param({"content-encoding": "gzip"}, 415, id="compressed"),
        pytest.param({"content-encoding": "br"}, 415, id="compressed otherwise"),
        pytest.param({"content-type": "application/json; charset=utf-8"}, 202, id="JSON with a charset"),
        pytest.param({"content-encoding": "identity"}, 202, id="not compressed, and said so"),
    ],
)
async def test_only_plain_json_is_read(api: Api, headers: dict[str, str], status: int) -> None:
    body = json.dumps(EVENT).encode()

    answer = await api.http.post("/webhook", content=body, headers={**signed(body), **headers})

    assert answer.status_code == status


async def test_a_compressed_bomb_is_not_opened(api: Api) -> None:
    body = gzip.compress(b"x" * 10_000_000)

    answer = await api.http.post(
        "/webhook", content=body, headers={**signed(body), "content-encoding": "gzip"}
    )

    assert answer.status_code == 415


async def test_other_methods_are_refused(api: Api) -> None:
    assert (await api.http.get("/webhook")).status_code == 405


async def test_a_database_that_is_away_is_told_to_the_sender(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: object, **_given: object) -> int:
        raise StoreUnavailable("storing an event: the database did not answer")

    monkeypatch.setattr(api.service.store, "accept", away)

    answer = await send(api, EVENT)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


@pytest.mark.parametrize("note", ["add_event", "remember"])
async def test_an_event_that_is_committed_is_answered_so_whatever_becomes_of_the_notes_about_it(
    api: Api, monkeypatch: pytest.MonkeyPatch, note: str
) -> None:
    async def away(*_args: Any, **_given: Any) -> None:
        raise StoreUnavailable("writing: the database did not answer")

    monkeypatch.setattr(api.service.store, note, away)
    answer = await send(api, {**EVENT, "dropped": 3})

    assert (answer.status_code, answer.json()["accepted"]) == (202, True)
    assert len(await api.service.store.new_occurrences()) == 1
    assert api.service.intake.bell.is_set()


@pytest.mark.parametrize("headers", [{}, {"webhook-id": "msg_1"}, {"webhook-id": "x" * 500}])
async def test_without_a_secret_this_machine_may_deliver_unsigned(
    tmp_path: Path, headers: dict[str, str]
) -> None:
    async with open_api(tmp_path) as api:
        answer = await api.http.post("/webhook", json=EVENT, headers=headers)

        assert answer.json() == {"accepted": True, "event": "task_instance_failed"}


async def test_an_import_error_is_heard_and_opens_nothing(api: Api) -> None:
    event = {"event": "dag_import_error", "filename": "dags/broken.py", "stacktrace": "SyntaxError"}

    answer = await send(api, event)

    assert answer.json() == {"accepted": False, "event": "dag_import_error"}
    assert await nothing_came_in(api)


# --- the short way and the long way -----------------------------------------------------------------------


# Headers that only browsers heed, and no browser sends an event without an origin.
FENCES = {
    "cache-control",
    "content-security-policy",
    "cross-origin-resource-policy",
    "referrer-policy",
    "x-frame-options",
}


def _without_id(answer: httpx.Response) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name not in ("x-request-id",)}


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        pytest.param(EVENT, {}, id="an event"),
        pytest.param(EVENT, {"x-request-id": "mine-1"}, id="with an id of the caller's"),
        pytest.param(EVENT, {"x-request-id": "no id; at all"}, id="with what is no id"),
        pytest.param(EVENT, {"webhook-signature": "v1,AAAA"}, id="a wrong signature"),
        pytest.param(EVENT, {"content-type": "text/plain"}, id="no JSON"),
        pytest.param(EVENT, {"content-encoding": "gzip"}, id="compressed"),
        pytest.param(EVENT, {"host": "elsewhere.example"}, id="another host"),
        pytest.param({"event": "unheard of"}, {}, id="an unknown event"),
        pytest.param({**EVENT, "dag_id": "or\0ders"}, {}, id="a NUL character"),
        pytest.param({**EVENT, "dag_id": "d" * 300}, {}, id="too long a name"),
        pytest.param({**EVENT, "airflow": "another"}, {}, id="of another Airflow"),
        pytest.param({**EVENT, "x": json.loads("[" * 40 + "]" * 40)}, {}, id="deep"),
        pytest.param(b"{", {}, id="half a body"),
        pytest.param(b"", {}, id="no body"),
        pytest.param(b"x" * 300_000, {}, id="too large"),
    ],
)
async def test_a_plain_event_is_answered_as_one_from_a_page_of_this_host(
    api: Api, body: Any, changed: dict[str, str]
) -> None:
    """A page's request goes through the whole application, others past it, which only the fences tell."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    answers = []
    for number, origin in enumerate(({}, {"origin": "http://127.0.0.1:8642"})):
        if "host" in changed:
            origin = {name: "http://elsewhere.example" for name in origin}
        headers = signed(raw, webhook_id=f"msg_{number}") | origin | changed
        if body is EVENT and number:
            raw = json.dumps({**EVENT, "run_id": "run_2"}).encode()
            headers = signed(raw, webhook_id=f"msg_{number}") | origin | changed
        answers.append(await api.http.post("/webhook", content=raw, headers=headers))

    short, long = answers
    assert short.status_code == long.status_code
    fences = FENCES if short.status_code == 202 else set()
    assert _without_id(short) == {
        name: value for name, value in _without_id(long).items() if name not in fences
    }
    assert [len(one.headers["x-request-id"]) for one in answers] in ([32, 32], [6, 6])
    said = [{**one.json(), "request_id": ""} for one in answers]
    assert said[0] == said[1]


@pytest.mark.parametrize("error", [StoreUnavailable("the disk is full"), ZeroDivisionError("hunter2")])
async def test_what_cannot_be_stored_is_not_taken(
    api: Api, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def fail(*_args: object, **_given: object) -> int:
        raise error

    monkeypatch.setattr(api.service.store, "accept", fail)
    answers = [
        await api.http.post("/webhook", content=json.dumps(EVENT), headers=signed(json.dumps(EVENT).encode()))
        for _ in range(2)
    ]

    status = 503 if isinstance(error, StoreUnavailable) else 500
    assert {one.status_code for one in answers} == {status}
    assert {one.headers["content-type"] for one in answers} == {"application/problem+json"}
    assert "hunter2" not in answers[0].text
    assert ("retry-after" in answers[0].headers) is (status == 503)


async def test_other_methods_are_told_so(api: Api) -> None:
    answer = await api.http.get("/webhook")

    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_storm_of_one_error_is_redacted_like_a_single_one(api: Api) -> None:
    for number in range(3):
        event = {**EVENT, "run_id": f"run_{number}", "error": "cannot connect: password=hunter2secret"}
        await send(api, event, webhook_id=f"msg_{number}")

    stored = await api.service.store.new_occurrences()
    assert len(stored) == 3
    assert {one.error for one in stored} == {"cannot connect: password=[password]"}
