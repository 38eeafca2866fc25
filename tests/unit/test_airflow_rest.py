"""How the REST gateway takes every answer an Airflow, a proxy or a broken network can give."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from evals.faults.sandbox import free_port
from graph.domain import TaskRef
from graph.errors import (
    AirflowDoubt,
    AirflowError,
    AirflowRefused,
    AirflowUnreachable,
    Conflict,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
)
from tests.unit.airflow_server import HANG, RESET, ScriptedAirflow, answer, open_scripted
from tools.airflow_auth import StaticToken
from tools.airflow_http import READ_TRIES, AirflowHttp
from tools.airflow_rest import AirflowRest, open_airflow

TASK = TaskRef(dag_id="d", run_id="r", task_id="t")
POOL = answer(
    200, {"name": "p", "slots": 3, "occupied_slots": 1, "queued_slots": 0, "include_deferred": False}
)
DONE = answer(200, {})
HTML = "<html><body>Sign in</body></html>"
CUT_BODY = answer(200, {"name": "p"})[:-5]
CUT_JSON = answer(200, '{"name": "p", "slo')

BROKEN = [
    pytest.param(answer(500, {"detail": "boom"}), id="500"),
    pytest.param(answer(502, HTML, kind="text/html"), id="502 of a proxy"),
    pytest.param(answer(200, HTML, kind="text/html"), id="HTML instead of JSON"),
    pytest.param(CUT_JSON, id="JSON that ends in the middle"),
    pytest.param(CUT_BODY, id="a body shorter than announced"),
    pytest.param(RESET, id="hung up after the request"),
    pytest.param(HANG, id="no answer in time"),
]
REFUSED = [
    pytest.param(400, InvalidRequest, id="400"),
    pytest.param(403, NotPermitted, id="403"),
    pytest.param(404, NotFound, id="404"),
    pytest.param(409, Conflict, id="409"),
    pytest.param(422, InvalidRequest, id="422"),
    pytest.param(418, AirflowRefused, id="any other 4xx"),
]


@asynccontextmanager
async def gateway(url: str, *, token: str = "static") -> AsyncIterator[AirflowRest]:
    found = AirflowRest(AirflowHttp(url, StaticToken(token), timeout=0.3, pause=0.0))
    try:
        yield found
    finally:
        await found.aclose()


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_read_is_tried_again_and_then_unreachable(broken: bytes) -> None:
    async with open_scripted(broken) as airflow, gateway(airflow.url) as rest:
        with pytest.raises(AirflowUnreachable) as caught:
            await rest.pool("p")

    assert type(caught.value) is AirflowUnreachable
    assert len(airflow.requests) == READ_TRIES


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_read_goes_on_when_airflow_is_back(broken: bytes) -> None:
    async with open_scripted(broken, POOL) as airflow, gateway(airflow.url) as rest:
        assert (await rest.pool("p")).slots == 3


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_write_whose_answer_is_lost_is_sent_once_and_in_doubt(broken: bytes) -> None:
    async with open_scripted(broken) as airflow, gateway(airflow.url) as rest:
        with pytest.raises(AirflowDoubt) as caught:
            await rest.clear("d", "r", [TASK], dry_run=False)

    assert not caught.value.retryable
    assert len(airflow.requests) == 1


async def test_a_dry_run_changes_nothing_so_it_is_a_read() -> None:
    cleared = answer(200, {"task_instances": []})
    async with open_scripted(RESET, cleared) as airflow, gateway(airflow.url) as rest:
        assert await rest.clear("d", "r", [TASK], dry_run=True) == ()

    assert len(airflow.requests) == 2


@pytest.mark.parametrize(("status", "error"), REFUSED)
async def test_a_refusal_has_its_error_and_its_reason(status: int, error: type[AirflowError]) -> None:
    said = answer(status, {"detail": "because password=hunter2"})
    async with open_scripted(said) as airflow, gateway(airflow.url) as rest:
        with pytest.raises(error, match="because") as read:
            await rest.pool("p")
        with pytest.raises(error, match="because") as write:
            await rest.set_paused("d", paused=True)

    assert type(read.value) is type(write.value) is error
    assert "hunter2" not in f"{read.value}{write.value}"
    assert len(airflow.requests) == 2


async def test_a_write_that_was_told_to_slow_down_did_nothing() -> None:
    async with open_scripted(answer(429, {"detail": "later"})) as airflow, gateway(airflow.url) as rest:
        with pytest.raises(AirflowUnreachable) as caught:
            await rest.set_paused("d", paused=True)

    assert type(caught.value) is AirflowUnreachable
    assert len(airflow.requests) == 1


async def test_nobody_listens() -> None:
    async with gateway(f"http://127.0.0.1:{free_port()}") as rest:
        with pytest.raises(AirflowUnreachable) as read:
            await rest.pool("p")
        with pytest.raises(AirflowUnreachable) as write:
            await rest.set_paused("d", paused=True)

    assert type(read.value) is type(write.value) is AirflowUnreachable


async def test_a_redirect_is_not_followed() -> None:
    async with open_scripted(DONE) as elsewhere:
        moved = answer(302, HTML, kind="text/html", location=f"{elsewhere.url}/api/v2/pools/p")
        async with open_scripted(moved) as airflow, gateway(airflow.url) as rest:
            with pytest.raises(AirflowUnreachable, match="redirect"):
                await rest.pool("p")

    assert elsewhere.requests == []


@pytest.mark.parametrize(
    "refusal",
    [
        pytest.param(answer(401, {"detail": "Token Expired"}), id="an expired token"),
        pytest.param(answer(403, {"detail": "Invalid JWT token"}), id="a token Airflow cannot read"),
    ],
)
async def test_a_refused_token_is_renewed_once(refusal: bytes) -> None:
    async with open_scripted(refusal, DONE) as airflow, logged_in(airflow) as rest:
        await rest.set_paused("d", paused=True)

    assert [one.token for one in airflow.requests] == ["token-1", "token-2"]


async def test_a_token_refused_twice_is_not_authenticated() -> None:
    async with open_scripted(answer(401, {"detail": "no"})) as airflow, logged_in(airflow) as rest:
        with pytest.raises(NotAuthenticated):
            await rest.pool("p")

    assert [one.token for one in airflow.requests] == ["token-1", "token-2"]


async def test_a_given_token_cannot_be_renewed() -> None:
    async with open_scripted(answer(401, {"detail": "no"})) as airflow, gateway(airflow.url) as rest:
        with pytest.raises(NotAuthenticated):
            await rest.pool("p")

    assert ([one.token for one in airflow.requests], airflow.logins) == (["static"], 0)


async def test_many_calls_share_one_renewal() -> None:
    refusals = [answer(401, {"detail": "no"})] * 5
    async with open_scripted(*refusals, POOL) as airflow, logged_in(airflow) as rest:
        await asyncio.gather(*(rest.pool("p") for _ in range(5)))

    assert airflow.logins == 2


@pytest.mark.parametrize("token", [pytest.param(None, id="by password"), pytest.param("t", id="by token")])
async def test_airflow_2_is_named(token: str | None) -> None:
    async with open_scripted(answer(404, HTML, kind="text/html")) as airflow:
        airflow.login = [answer(405, {})]
        airflow.script.insert(0, answer(200, {"metadatabase": {}})) if token is None else None
        async with open_airflow(airflow.url, token=token, username="u", password="p") as rest:
            with pytest.raises(AirflowRefused, match="Airflow 2"):
                await rest.health()


async def test_names_are_quoted_into_the_path() -> None:
    async with open_scripted(POOL) as airflow, gateway(airflow.url) as rest:
        await rest.pool("../dags/a b?x=+1")

    assert airflow.requests[0].path == "/api/v2/pools/..%2Fdags%2Fa%20b%3Fx%3D%2B1"


async def test_pages_are_followed_up_to_the_limit() -> None:
    first = answer(200, {"task_instances": [instance("a"), instance("b")], "next_cursor": "c1"})
    last = answer(200, {"task_instances": [instance("c")], "next_cursor": None})
    async with open_scripted(first, last) as airflow, gateway(airflow.url) as rest:
        found = await rest.updates_since(datetime(2026, 1, 1, tzinfo=UTC))

    assert [one.task.task_id for one in found] == ["a", "b", "c"]
    assert "cursor=c1" in airflow.requests[1].path


async def test_a_log_in_pages_ends_when_a_page_is_empty() -> None:
    sources = [
        {"event": "::group::Log message source details"},
        {"event": "/logs/1"},
        {"event": "::endgroup::"},
    ]
    line = {"timestamp": "2026-01-01T00:00:00Z", "event": "hello", "level": "info"}
    pages = (
        answer(200, {"content": [*sources, line], "continuation_token": "t1"}),
        answer(200, {"content": [*sources, {**line, "event": "world"}], "continuation_token": "t2"}),
        answer(200, {"content": sources, "continuation_token": "t3"}),
    )
    async with open_scripted(*pages) as airflow, gateway(airflow.url) as rest:
        log = await rest.log(TASK, 1)

    assert log.text.splitlines()[3:] == [
        "[2026-01-01T00:00:00Z] INFO - hello",
        "[2026-01-01T00:00:00Z] INFO - world",
    ]
    assert not log.complete
    assert len(airflow.requests) == 3


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(["one", "two password=hunter2"], id="a list of lines"),
        pytest.param("one\ntwo password=hunter2", id="one text"),
    ],
)
async def test_a_plain_log_is_text_without_structure(content: object) -> None:
    page = answer(200, {"content": content, "continuation_token": None})
    async with open_scripted(page) as airflow, gateway(airflow.url) as rest:
        log = await rest.log(TASK, 1)

    assert log.text.splitlines()[0] == "one"
    assert "hunter2" not in log.text
    assert (log.content, log.complete) == ((), True)


async def test_clears_are_counted_by_the_task_they_name() -> None:
    asked = [
        '{"task_ids": ["t"], "dry_run": false}',
        '{"task_ids": [["t", -1], ["u", -1]], "dry_run": false}',
        '{"task_ids": [["t", 3]], "dry_run": false}',
        '{"task_ids": ["t"], "dry_run": true}',
        '{"dry_run": false}',
        "not json",
    ]
    page = answer(
        200, {"event_logs": [{"event": "post_clear_task_instances", "extra": one} for one in asked]}
    )
    async with open_scripted(page) as airflow, gateway(airflow.url) as rest:
        assert await rest.clear_count(TASK) == 3


async def test_a_lost_heartbeat_is_asked_of_one_try() -> None:
    noted = answer(200, {"event_logs": [{"event": "heartbeat timeout", "extra": "none within 300 seconds"}]})
    nothing = answer(200, {"event_logs": []})
    async with open_scripted(noted, nothing) as airflow, gateway(airflow.url) as rest:
        found = [await rest.lost_heartbeat(TASK, 2), await rest.lost_heartbeat(TASK, 3)]

    assert found == ["none within 300 seconds", ""]
    asked = parse_qs(urlsplit(airflow.requests[0].path).query)
    assert (asked["event"], asked["try_number"], asked["map_index"]) == (["heartbeat timeout"], ["2"], ["-1"])
    assert asked["task_id"] == [TASK.task_id]


def instance(task_id: str) -> dict[str, object]:
    return {
        "dag_id": "d",
        "dag_run_id": "r",
        "task_id": task_id,
        "map_index": -1,
        "state": None,
        "try_number": 0,
        "max_tries": 0,
        "pool": "default_pool",
        "start_date": None,
        "end_date": None,
        "duration": None,
    }


@asynccontextmanager
async def logged_in(airflow: ScriptedAirflow) -> AsyncIterator[AirflowRest]:
    async with open_airflow(airflow.url, username="u", password="p", timeout=1.0) as rest:
        yield rest


@pytest.mark.parametrize(
    ("left", "error", "words"),
    [
        pytest.param("u", NotFound, "has no task 't' any more", id="the task was removed"),
        pytest.param("t", AirflowUnreachable, "HTTP 500", id="Airflow is ill"),
    ],
)
async def test_a_clear_of_what_is_not_in_the_dag_any_more(
    left: str, error: type[Exception], words: str
) -> None:
    tasks = answer(200, {"tasks": [{"task_id": left}], "total_entries": 1})
    refusals = [answer(500, {"detail": "boom"})] * READ_TRIES
    async with open_scripted(*refusals, tasks) as airflow, gateway(airflow.url) as rest:
        with pytest.raises(error, match=words):
            await rest.clear(TASK.dag_id, TASK.run_id, [TASK], dry_run=True)
