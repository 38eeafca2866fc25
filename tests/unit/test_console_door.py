"""The console's own routes: signing in, news, looks and deeds, each with the rights of the person's token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradio_ui.client import ConsoleClient, events_of
from gradio_ui.desk import Desk
from gradio_ui.door import COOKIE, FrontDoor
from gradio_ui.news import AWAY, News
from graph.domain import Role
from tests.unit.serving import Api, open_api


@dataclass
class Front:
    """A browser at the console's door."""

    api: Api
    news: News
    http: httpx.AsyncClient

    async def token(self, role: Role) -> str:
        return (await self.api.service.tokens.create(role.value, role, life=None))[0]

    async def sign_in(self, role: Role) -> None:
        answer = await self.http.post("/session", json={"token": await self.token(role)})
        assert answer.status_code == 200, answer.text

    async def deed(self, **body: Any) -> httpx.Response:
        return await self.http.post("/deed", json=body)


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with open_api(tmp_path) as api:
        client = ConsoleClient(api.http)
        news = News(client)
        door = FrontDoor(Desk(client), news, path="/")
        transport = httpx.ASGITransport(app=door.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
            yield Front(api, news, http)


async def test_the_token_is_kept_where_no_script_reads_it(front: Front) -> None:
    await front.token(Role.ADMIN)
    refused = await front.http.post("/session", json={"token": "airm_wrong"})
    answer = await front.http.post("/session", json={"token": await front.token(Role.VIEWER)})

    assert refused.status_code == 401
    assert "no token of this server" in refused.json()["said"]
    assert answer.json() == {"name": "viewer", "role": "viewer"}
    kept = answer.headers["set-cookie"].lower()
    assert all(word in kept for word in (COOKIE, "httponly", "samesite=strict"))
    await front.http.request("DELETE", "/session")
    assert COOKIE not in front.http.cookies


async def test_who_did_not_sign_in_learns_nothing(front: Front) -> None:
    await front.token(Role.ADMIN)

    answers = [await front.http.get(path) for path in ("/news", "/view?page=status", "/chat?thread=t")]
    answers.append(await front.deed(what="control", values={"paused": True}))

    assert [one.status_code for one in answers] == [401] * 4


async def test_a_viewer_looks_and_changes_nothing(front: Front) -> None:
    number = await front.api.fail()
    await front.sign_in(Role.VIEWER)
    shown = (await front.http.get("/view", params={"shown": json.dumps({"number": number})})).json()

    answer = (await front.deed(what="approve", shown=shown["shown"])).json()

    assert shown["role"] == "viewer"
    assert not answer["done"]
    assert "operator" in answer["html"]


async def test_an_operator_decides_what_was_shown(front: Front) -> None:
    number = await front.api.fail()
    await front.sign_in(Role.OPERATOR)
    shown = (await front.http.get("/view", params={"shown": json.dumps({"number": number})})).json()["shown"]

    first = (await front.deed(what="reject", shown=shown, message="not now")).json()
    second = (await front.deed(what="approve", shown=shown)).json()

    assert (first["done"], second["done"]) == (True, False)
    assert "Too late" in second["html"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"{", id="no JSON"),
        pytest.param(b'{"what": "delete"}', id="an unknown deed"),
        pytest.param(b'{"what": "approve", "admin": true}', id="more than is known"),
    ],
)
async def test_what_the_page_cannot_have_sent_is_refused(front: Front, body: bytes) -> None:
    assert (await front.http.post("/deed", content=body)).status_code == 422


async def test_news_comes_when_something_changed(front: Front) -> None:
    await front.sign_in(Role.VIEWER)
    waiting = asyncio.create_task(front.news.wait("", ""))
    async with front.news.watching():
        first = (await front.http.get("/news")).json()["revision"]
        waiting.cancel()
        following = asyncio.create_task(front.http.get("/news", params={"seen": first}))
        await asyncio.sleep(0.05)
        assert not following.done()
        await front.api.fail()

        assert (await following).json()["revision"] != first


async def test_a_server_that_is_away_is_news() -> None:
    async with httpx.AsyncClient(base_url="http://127.0.0.1:1") as http:
        news = News(ConsoleClient(http))
        await news.wait("token", "", patience=0)

        await news.look()

        assert news.revision == AWAY


async def test_streamed_events_are_read_as_they_are_written() -> None:
    async def lines() -> AsyncIterator[str]:
        for line in ("event: token", 'data: {"text": "a"}', "", ": ping", "", "data: 5", "", "data: {", ""):
            yield line

    assert [one async for one in events_of(lines())] == [("token", {"text": "a"})]
