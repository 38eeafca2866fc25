"""The console's looks and answers, against the real API: bound to what was shown, and told in words."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from gradio_ui.client import ConsoleClient, ServerSilent, SignInNeeded
from gradio_ui.desk import Desk, Shown
from gradio_ui.views import Look, PageName, Views
from tests.unit.serving import Api, open_api

LOADED = {"0.downstream": False}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as opened:
        yield opened


@pytest.fixture
def desk(api: Api) -> Desk:
    return Desk(ConsoleClient(api.http))


async def looked_at(api: Api, desk: Desk) -> Shown:
    """An incident that asks, as the page shows it."""
    return (await desk.detail("", Shown(number=await api.fail()))).shown


async def kinds(api: Api, number: int | None) -> list[str]:
    found = await api.incident(number or 0)
    return [event["data"]["kind"] for event in found["events"] if event["name"] == "answered"]


async def test_a_question_on_the_page_names_incident_version_and_plan(api: Api, desk: Desk) -> None:
    number = await api.fail()

    detail = await desk.detail("", Shown(number=number))

    assert detail.asks
    assert detail.shown.version == (await api.incident(number))["version"]
    assert "Nothing is touched before you approve" in detail.asked


@pytest.mark.parametrize(
    ("kind", "message", "said"),
    [
        pytest.param("approve", "", "Approved", id="approve"),
        pytest.param("reject", "not now", "Rejected", id="reject with a reason"),
        pytest.param("respond", "the source is back", "diagnosed again", id="answer"),
    ],
)
async def test_an_answer_is_recorded_and_confirmed_in_words(
    api: Api, desk: Desk, kind: str, message: str, said: str
) -> None:
    shown = await looked_at(api, desk)

    done = await desk.answer("", shown, kind, message=message)

    assert done.done
    assert said in done.words
    assert await kinds(api, shown.number) == [kind]


async def test_edited_arguments_are_sent_as_an_edit(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)

    assert "with your changes" in (await desk.edit("", shown, LOADED, message="")).words
    await api.drive()

    (write,) = [write for write in api.airflow.writes if write.verb == "clear"]
    assert write.args["downstream"] is False


async def test_an_edit_that_cannot_be_is_refused_in_words(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)

    said = await desk.edit("", shown.model_copy(update={"version": 99}), LOADED, message="")

    assert "Too late" in said.words
    assert not said.done
    assert await kinds(api, shown.number) == []


async def test_an_answer_without_words_is_not_sent(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)

    assert "Write what you know" in (await desk.answer("", shown, "respond", message="  ")).words
    assert await kinds(api, shown.number) == []


async def test_the_second_of_two_operators_is_told(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)
    await desk.answer("", shown, "reject")

    assert "Too late" in (await desk.answer("", shown, "approve")).words
    assert await kinds(api, shown.number) == ["reject"]


async def test_a_new_question_does_not_take_the_place_of_the_one_being_read(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)
    await desk.answer("", shown, "respond", message="the network is back")
    await api.drive()

    later = await desk.detail("", shown)
    again = await desk.detail("", later.shown)
    reloaded = await desk.detail("", Shown(number=shown.number))

    assert not later.asks
    assert "The question changed" in later.asked
    assert later.shown.held
    assert not again.asks
    assert reloaded.asks
    assert "Too late" in (await desk.edit("", shown, LOADED, message="")).words


async def test_what_was_answered_elsewhere_is_told(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)
    await desk.answer("", shown, "reject")
    await api.drive()

    later = await desk.detail("", shown)

    assert not later.asks
    assert "answered, withdrawn or ran out" in later.asked
    assert later.escalated
    assert "is closed" in (await desk.close("", later.shown, "mended by hand")).words
    assert (await api.incident(shown.number or 0))["status"] == "closed"


async def test_a_page_without_a_question_answers_nothing(desk: Desk) -> None:
    assert "no question" in (await desk.answer("", Shown(), "approve")).words


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param("", id="empty"),
        pytest.param("nonsense", id="not JSON"),
        pytest.param('{"number": "x"}', id="not a number"),
    ],
)
def test_what_the_page_cannot_have_sent_shows_nothing(spelled: str) -> None:
    assert Shown.read(spelled) == Shown()


async def test_an_escalated_incident_is_given_back(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)
    await desk.answer("", shown, "reject")
    await api.drive()

    assert "afresh" in (await desk.reopen("", shown, "try again")).words


@pytest.mark.parametrize(
    ("given", "said"),
    [
        pytest.param({"rating": 4, "cause_right": True}, "memory hears it", id="a rating"),
        pytest.param({"rating": 9}, "rating:", id="out of bounds"),
        pytest.param({"rating": 3, "cause": "tls_error"}, "cause_right", id="a cause without a no"),
    ],
)
async def test_feedback_is_taken_or_refused_in_words(
    api: Api, desk: Desk, given: dict[str, Any], said: str
) -> None:
    shown = await looked_at(api, desk)

    assert said in (await desk.feedback("", {**given, "incident": shown.number})).words


async def test_a_switch_is_set(api: Api, desk: Desk) -> None:
    assert (await desk.control("", {"paused": True, "other": 1})).done
    assert (await desk.client.status("")).paused
    assert not (await desk.control("", {"paused": "yes"})).done


async def test_a_page_is_drawn_with_what_it_shows(api: Api, desk: Desk) -> None:
    number = await api.fail()
    look = Look(page="incidents", filter="For you", shown=Shown(number=number).model_dump_json())

    drawn = json.loads(await Views(desk).draw("", look))

    assert f'data-incident="{number}"' in drawn["parts"]["am-incidents"]
    assert "Nothing is touched before you approve" in drawn["parts"]["am-asked"]
    assert (drawn["asks"], drawn["role"]) == (True, "admin")
    assert "hunter2secret" not in await desk.log("", number)


@pytest.mark.parametrize("page", ["chat", "incidents", "status", "timeline", "log", "metrics"])
async def test_every_page_is_drawn_where_nothing_is(api: Api, desk: Desk, page: PageName) -> None:
    assert "am-mode" in json.loads(await Views(desk).draw("", Look(page=page)))["parts"]


@pytest.mark.parametrize(
    ("words", "incident", "text"),
    [
        pytest.param("#12 lock", 12, "lock", id="a number and a word"),
        pytest.param("lock", None, "lock", id="a word"),
        pytest.param("#0", None, None, id="no incident has this number"),
    ],
)
def test_a_number_in_the_search_means_that_incident(
    words: str, incident: int | None, text: str | None
) -> None:
    query = dict(Look(words=words).log_query())

    assert (query.get("incident"), query.get("text")) == (incident, text)


async def test_without_the_token_nothing_is_read(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token="a-token-of-the-tests") as api:
        client = ConsoleClient(api.http)
        with pytest.raises(SignInNeeded):
            await client.status("")
        with pytest.raises(SignInNeeded):
            await client.incidents("another", [])
        assert (await client.status("a-token-of-the-tests")).healing == "on"


async def test_a_server_that_is_away_is_told_in_words() -> None:
    async with httpx.AsyncClient(base_url="http://127.0.0.1:1") as http:
        with pytest.raises(ServerSilent, match="does not answer"):
            await ConsoleClient(http).status("")


async def test_what_is_no_airmedic_is_told_in_words() -> None:
    transport = httpx.MockTransport(lambda _request: httpx.Response(200, text="hello"))
    async with httpx.AsyncClient(base_url="http://stranger", transport=transport) as http:
        with pytest.raises(ServerSilent, match="not an Airmedic"):
            await ConsoleClient(http).status("")
