"""The console's looks and answers, against the real API: bound to what was shown, and told in words."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from gradio_ui.client import ConsoleClient, MovedOn, ServerSilent, SignInNeeded
from gradio_ui.desk import Desk, Shown
from tests.unit.serving import Api, open_api

LOADED = '{"downstream": false}'


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

    assert said in await desk.answer("", shown, kind, message=message)
    assert await kinds(api, shown.number) == [kind]


async def test_edited_arguments_are_sent_as_an_edit(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)

    assert "with your changes" in await desk.edit("", shown, [LOADED, "", ""], message="")
    await api.drive()

    (write,) = [write for write in api.airflow.writes if write.verb == "clear"]
    assert write.args["downstream"] is False


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        pytest.param("{", "not JSON", id="not JSON"),
        pytest.param('{"downstream": "maybe"}', "Not accepted", id="out of bounds"),
        pytest.param('{"dag_id": "another"}', "Not accepted", id="another target"),
    ],
)
async def test_an_edit_that_cannot_be_is_refused_in_words(
    api: Api, desk: Desk, typed: str, said: str
) -> None:
    shown = await looked_at(api, desk)

    assert said in await desk.edit("", shown, [typed], message="")
    assert await kinds(api, shown.number) == []


async def test_an_answer_without_words_is_not_sent(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)

    assert "Write what you know" in await desk.answer("", shown, "respond", message="  ")
    assert await kinds(api, shown.number) == []


async def test_the_second_of_two_operators_is_told(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)
    await desk.answer("", shown, "reject")

    assert "Too late" in await desk.answer("", shown, "approve")
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
    with pytest.raises(MovedOn):
        await desk.forms("", shown)


async def test_what_was_answered_elsewhere_is_told(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)
    await desk.answer("", shown, "reject")
    await api.drive()

    later = await desk.detail("", shown)

    assert not later.asks
    assert "answered or withdrawn" in later.asked
    assert later.can_close
    assert "is closed" in await desk.close("", later.shown, "mended by hand")
    assert (await api.incident(shown.number or 0))["status"] == "closed"


async def test_a_page_without_a_question_answers_nothing(desk: Desk) -> None:
    assert "no question" in await desk.answer("", Shown(), "approve")


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


async def test_the_list_and_the_log_are_read(api: Api, desk: Desk) -> None:
    shown = await looked_at(api, desk)
    number = shown.number or 0

    rows = await desk.incidents("", chosen="For you", selected=number, limit=50)
    events, after = await desk.client.events("", after=0, keep=2)

    assert f'data-incident="{number}" aria-current="true"' in rows
    assert len(events) == 2
    assert await desk.client.events("", after=after, keep=2) == ([], after)
    assert "hunter2secret" not in await desk.log("", number)


async def test_without_the_token_nothing_is_read(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token="a-token-of-the-tests") as api:
        client = ConsoleClient(api.http)
        with pytest.raises(SignInNeeded):
            await client.status("")
        with pytest.raises(SignInNeeded):
            await client.incidents("another")
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
