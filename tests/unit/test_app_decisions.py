"""Decisions over HTTP: what is accepted, what conflicts, what is refused, and that the first one wins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving import Api, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as opened:
        yield opened


def clears(api: Api) -> int:
    return sum(write.verb == "clear" for write in api.airflow.writes)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"type": "approve"}, id="our own form"),
        pytest.param({"decisions": [{"type": "approve"}]}, id="LangChain's form"),
        pytest.param([{"type": "accept", "args": None}], id="Agent Inbox's form"),
    ],
)
async def test_an_approval_of_any_form_is_carried_out_once(api: Api, body: Any) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]

    answer = await api.decide(number, body, **{"if-match": f'"{version}"'})
    assert answer.status_code == 202, answer.text
    await api.drive()

    found = await api.incident(number)
    assert clears(api) == 1
    assert [(entry["action"]["name"], entry["step"]) for entry in found["ledger"]] == [
        ("clear_task", "confirmed")
    ]
    said = [event["data"] for event in found["events"] if event["name"] == "answered"]
    assert said == [{"kind": "approve", "by": "local operator", "message": ""}]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param({"type": "reject", "message": "not now"}, id="our own form"),
        pytest.param({"decisions": [{"type": "reject", "message": "not now"}]}, id="LangChain's form"),
        pytest.param([{"type": "ignore", "args": None}], id="Agent Inbox's form"),
    ],
)
async def test_a_rejection_of_any_form_touches_nothing(api: Api, body: Any) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]

    answer = await api.decide(number, body, **{"if-match": f'"{version}"'})
    assert answer.status_code == 202, answer.text
    await api.drive()

    assert clears(api) == 0
    assert (await api.incident(number))["status"] == "escalated"


async def test_words_lead_to_a_new_diagnosis_and_a_new_question(api: Api) -> None:
    number = await api.fail()
    before = await api.incident(number)

    body = {"type": "respond", "message": "the network team mended it", "version": before["version"]}
    assert (await api.decide(number, body)).status_code == 202
    await api.drive()

    after = await api.incident(number)
    assert after["asks"] is True
    assert after["version"] > before["version"]
    assert [event["name"] for event in after["events"]].count("diagnosed") == 2
    assert clears(api) == 0


async def test_edited_arguments_are_what_is_carried_out(api: Api) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]

    body = {"type": "edit", "args": [{"downstream": False}], "version": version}
    answer = await api.decide(number, body)
    assert answer.status_code == 202, answer.text
    await api.drive()

    (write,) = [write for write in api.airflow.writes if write.verb == "clear"]
    assert write.args["downstream"] is False


async def test_two_answers_at_once_the_first_wins(api: Api) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]

    answers = await asyncio.gather(
        *(api.decide(number, {"type": kind, "version": version}) for kind in ("approve", "reject") * 4)
    )

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7


async def test_an_answered_question_is_a_conflict(api: Api) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]
    await api.decide(number, {"type": "approve", "version": version})

    again = await api.decide(number, {"type": "approve", "version": version})

    assert again.status_code == 409
    assert again.json()["type"] == "urn:airmedic:problem:decision-conflict"
    await api.drive()
    assert clears(api) == 1


async def test_an_expired_question_is_a_conflict(api: Api) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]
    api.clock.ahead = timedelta(hours=13)

    answer = await api.decide(number, {"type": "approve", "version": version})

    assert answer.status_code == 409
    assert "expired" in answer.json()["detail"]


async def test_a_version_that_moved_on_is_a_conflict(api: Api) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]

    answer = await api.decide(number, {"type": "approve", "version": version - 1})

    assert answer.status_code == 409
    assert f"it is at version {version}" in answer.json()["detail"]


async def test_an_unknown_incident_is_not_found(api: Api) -> None:
    assert (await api.decide(99, {"type": "approve", "version": 1})).status_code == 404


@pytest.mark.parametrize(
    ("body", "field"),
    [
        pytest.param({"type": "approve"}, "version", id="no version"),
        pytest.param({"type": "approve", "version": 0}, "version", id="version 0"),
        pytest.param({"type": "approve", "version": "2"}, "version", id="version as text"),
        pytest.param({"type": "approve", "version": 10**40}, "version", id="a huge version"),
        pytest.param({"type": "allow", "version": 2}, "type", id="no such type"),
        pytest.param({"type": "expired", "version": 2}, "type", id="only the clock expires"),
        pytest.param({"type": "approve", "version": 2, "target": {"dag_id": "x"}}, "target", id="a target"),
        pytest.param({"type": "approve", "version": 2, "by": "root"}, "by", id="nobody names himself"),
        pytest.param({"type": "approve", "version": 2, "args": [{}]}, "args", id="approve with arguments"),
        pytest.param({"type": "approve", "version": 2, "plan_id": "other"}, "plan_id", id="another plan"),
        pytest.param({"type": "respond", "version": 2}, "message", id="respond without words"),
        pytest.param({"type": "respond", "version": 2, "message": " "}, "message", id="respond with blanks"),
        pytest.param({"type": "respond", "version": 2, "message": "a\0b"}, "message", id="NUL in the words"),
        pytest.param({"type": "reject", "version": 2, "message": "x" * 5000}, "message", id="too many words"),
        pytest.param({"type": "edit", "version": 2}, "args", id="edit without arguments"),
        pytest.param({"type": "edit", "version": 2, "args": [{}, {}]}, "args", id="too many arguments"),
        pytest.param(
            {"type": "edit", "version": 2, "args": [{"dag_id": "x"}]}, "args", id="an edited target"
        ),
        pytest.param(
            {"type": "edit", "version": 2, "args": [{"downstream": "perhaps"}]}, "args", id="a wrong value"
        ),
        pytest.param({"decisions": [], "version": 2}, "decisions", id="no decisions"),
        pytest.param(
            {"decisions": [{"type": "approve"}] * 2, "version": 2}, "decisions", id="too many decisions"
        ),
        pytest.param({"decisions": [{"type": "edit"}], "version": 2}, "edited_action", id="edit of nothing"),
        pytest.param([{"type": "edit", "args": "x"}], "args", id="an inbox edit of nothing"),
        pytest.param([], "inbox", id="an empty inbox"),
        pytest.param("approve", "body", id="a word"),
        pytest.param({}, "type", id="nothing"),
    ],
)
async def test_a_bad_answer_names_what_is_wrong_and_decides_nothing(api: Api, body: Any, field: str) -> None:
    number = await api.fail()
    headers = {"if-match": '"2"'} if isinstance(body, list) else {}
    assert (await api.incident(number))["version"] == 2

    answer = await api.decide(number, body, **headers)

    assert answer.status_code == 422, answer.text
    assert field in answer.json()["detail"]
    assert (await api.incident(number))["asks"] is True


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        pytest.param(b"{", 422, id="cut off"),
        pytest.param(b"", 422, id="empty"),
        pytest.param(b'{"type": "\xff"}', 400, id="not UTF-8"),
        pytest.param(b'{"type": "reject", "version": 2, "message": "\\ud800"}', 422, id="half a character"),
        pytest.param(
            b'{"type": "edit", "version": 2, "args": [{"downstream": NaN}]}', 422, id="not a number"
        ),
        pytest.param(b'{"type": "edit", "version": 2, "args": [{"downstream": 1e999}]}', 422, id="infinity"),
        pytest.param(b'{"type": "approve", "version": 1' + b"0" * 5000 + b"}", 400, id="5001 digits"),
        pytest.param(b'{"args":' + b"[" * 5000 + b"]" * 5000 + b"}", 422, id="deep"),
        pytest.param(b'{"type": "' + b"x" * 300_000 + b'"}', 413, id="too large"),
    ],
)
async def test_bytes_that_are_no_answer_are_refused(api: Api, raw: bytes, status: int) -> None:
    number = await api.fail()

    answer = await api.http.post(
        f"/api/incidents/{number}/decision", content=raw, headers={"content-type": "application/json"}
    )

    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert (await api.incident(number))["asks"] is True


async def test_if_match_and_body_must_agree(api: Api) -> None:
    number = await api.fail()

    answer = await api.decide(number, {"type": "approve", "version": 2}, **{"if-match": '"3"'})

    assert answer.status_code == 422


@pytest.mark.parametrize("header", ["2", "*", '"two"', '"0"'])
async def test_if_match_must_be_a_version(api: Api, header: str) -> None:
    number = await api.fail()

    assert (await api.decide(number, {"type": "approve"}, **{"if-match": header})).status_code == 422


async def test_secrets_in_words_are_not_kept(api: Api) -> None:
    number = await api.fail()

    await api.decide(number, {"type": "reject", "version": 2, "message": "password=hunter2secret"})

    found = await api.http.get(f"/api/incidents/{number}")
    assert "hunter2secret" not in found.text


async def test_the_decider_is_who_showed_the_token(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token="a-token-of-the-api") as api:
        api.http.headers["authorization"] = "Bearer a-token-of-the-api"
        number = await api.fail()

        await api.decide(number, {"type": "approve", "version": 2})

        found = await api.incident(number)
    assert [e["data"]["by"] for e in found["events"] if e["name"] == "answered"] == ["operator (API token)"]
