"""The chat without a model: commands, simple questions, and requests that go through policy and approval."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from graph.domain import IncidentKind, Role, Status
from server.access.callers import LOCAL_OPERATOR, Caller
from server.chat.times import moment_of, window_of
from server.chat.words import Verb, incident_number, line_range, names_in, read
from tests.unit.chatting import asked, clears, fail, pause, say, settled, text_of
from tests.unit.serving import Api, open_api
from tools.airflow_memory import TaskSpec, Try


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, background=True, poll_interval=timedelta(hours=1)) as opened:
        yield opened


# --- the grammar ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "verb", "rest"),
    [
        ("what failed last night?", Verb.FAILED, "last night"),
        ("why did load_orders fail?", Verb.WHY, "did load_orders fail"),
        ("show me the log lines", Verb.LOG, ""),
        ("Show me log lines 10-20 of 12", Verb.LOG, "10-20 of 12"),
        ("is the source back?", Verb.PROBE, "source"),
        ("what would you do?", Verb.PLAN, ""),
        ("retry it", Verb.RETRY, "it"),
        ("could you please rerun load again?", Verb.RETRY, "load"),
        ("pause the dag until nine", Verb.PAUSE, "until nine"),
        ("pause orders for 2 hours", Verb.PAUSE, "orders for 2 hours"),
        ("unpause orders", Verb.UNPAUSE, "orders"),
        ("what changed since yesterday?", Verb.CHANGED, "since yesterday"),
        ("what waits for me?", Verb.INCIDENTS, "waits for me"),
        ("how are things?", Verb.STATUS, ""),
        ("yes", Verb.CONSENT, ""),
        ("approve everything", Verb.CONSENT, ""),
        ("I approve incident 12", Verb.CONSENT, ""),
        ("/approve 12", Verb.APPROVE, "12"),
        ("/WHY 12", Verb.WHY, "12"),
        ("#12", Verb.SHOW, "#12"),
    ],
)
def test_what_is_understood(message: str, verb: Verb, rest: str) -> None:
    found = read(message)

    assert found is not None
    assert (found.verb, found.rest) == (verb, rest)


@pytest.mark.parametrize(
    "message",
    [
        "do not retry load",
        "never pause orders",
        "tell bob to retry it",
        "/frobnicate 12",
        "run",
        "stop",
        "x" * 4000,
    ],
)
def test_what_is_no_deed(message: str) -> None:
    found = read(message)

    assert found is None or found.verb not in {Verb.RETRY, Verb.PAUSE, Verb.APPROVE}


def test_names_numbers_and_lines() -> None:
    assert names_in("why did orders.load fail last night") == ("orders.load", "orders", "load")
    assert incident_number("log lines 10-20 of #12") == 12
    assert incident_number("run_1 of 2026-03-01") is None
    assert line_range("10-20 of 12") == (10, 20)
    assert line_range("20-10") is None


NIGHT = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)
BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("words", "moment"),
    [
        ("until nine", "2026-03-01T08:00"),
        ("until 9pm", "2026-03-01T20:00"),
        ("until tomorrow 9:30", "2026-03-02T08:30"),
        ("for half an hour", "2026-03-01T03:30"),
        ("until 2", "2026-03-02T01:00"),
        ("until 2026-03-02 08:00", "2026-03-02T07:00"),
        ("until noon", "2026-03-01T11:00"),
        ("until 12pm", "2026-03-01T11:00"),
        ("until midnight", "2026-03-01T23:00"),
        ("until 12am", "2026-03-01T23:00"),
        ("until midnight tonight", "2026-03-01T23:00"),
        ("until tonight at 12", "2026-03-01T23:00"),
        ("until 9 tonight", "2026-03-01T20:00"),
        ("until 2 tonight", "2026-03-02T01:00"),
        ("until 11 in the evening", "2026-03-01T22:00"),
        ("until 21:30 in the evening", "2026-03-01T20:30"),
        ("until 9 in the morning", "2026-03-01T08:00"),
    ],
)
def test_moments_are_read_in_the_persons_zone(words: str, moment: str) -> None:
    assert moment_of(words, now=NIGHT, zone=BERLIN) == datetime.fromisoformat(f"{moment}+00:00")


@pytest.mark.parametrize(
    "words", ["until the cows come home", "until 99", "for 100 days", "until 2020-01-01"]
)
def test_a_moment_that_cannot_be_meant_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        moment_of(words, now=NIGHT, zone=BERLIN)


def test_last_night_is_the_evening_before_and_this_morning() -> None:
    window = window_of("what failed last night", now=NIGHT, zone=BERLIN)

    assert window is not None
    assert (window.since.isoformat(), window.until) == ("2026-02-28T17:00:00+00:00", NIGHT)


# --- reading ----------------------------------------------------------------------------------------------


async def test_help_says_that_it_is_the_command_mode(api: Api) -> None:
    events = await say(api, "/help")

    assert "command mode" in text_of(events)
    assert events[-1][1]["mode"] == "command"
    assert "command mode" in text_of(await say(api, "write me a poem"))


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("what failed last night?", "last night"),
        ("what failed today?", "orders.load"),
        ("why did load fail?", "worker_lost"),
        ("/why 1", "connection refused"),
        ("show me the log lines", "line one"),
        ("/log 1 2-2", "2 | line two"),
        ("what would you do?", "Airflow's dry run"),
        ("/timeline 1", "Cause named"),
        ("/history 1", "failed, try 1"),
        ("/history orders load", "failed, try 1"),
        ("what changed since yesterday?", "1 incidents opened"),
        ("what waits for me?", "orders.load"),
        ("/incidents asking orders", "1 incidents"),
        ("/incidents closed", "no incident fits"),
        ("how are things?", "1 of them ask"),
        ("/pools", "default_pool"),
        ("/metrics week", "the last week: 1 incidents"),
        ("is the source back?", "AIRMEDIC_PROBES"),
        ("/show 99", "there is no incident 99"),
        ("why did payments fail?", "I know no incident, DAG or task called 'payments'"),
        ("/source orders", "orders: "),
    ],
)
async def test_questions_are_answered(api: Api, message: str, told: str) -> None:
    await fail(api)

    events = await say(api, message)

    assert told in text_of(events), text_of(events)
    assert not [data for name, data in events if name == "error"]


async def test_it_means_what_the_thread_is_about(api: Api) -> None:
    await fail(api)
    await say(api, "/why 1")

    events = await say(api, "show me the log lines")

    assert "line two" in text_of(events)
    assert "hunter2secret" not in text_of(events)
    assert [data["incident"] for name, data in events if name == "link"] == [1]
    assert events[-1][1]["focus"] == 1


async def test_a_probe_is_asked_only_when_it_is_configured(tmp_path: Path) -> None:
    async with open_api(tmp_path, background=True, probes="tcp://127.0.0.1:9") as api:
        told = text_of(await say(api, "is the source back?"))
        assert "tcp://127.0.0.1:9: does not answer" in told

        other = text_of(await say(api, "is evil.example.com back?"))
        assert "none of the configured dependencies" in other


# --- deciding ---------------------------------------------------------------------------------------------


async def test_approve_needs_the_question_to_have_been_shown(api: Api) -> None:
    number = await fail(api)

    first = await say(api, f"/approve {number}")
    assert "you have not seen this question" in text_of(first)
    assert [one["version"] for one in asked(first)] == [2]
    assert clears(api) == 0

    second = await say(api, f"/approve {number}")
    assert "approved by" in text_of(second)
    await settled(api, number)
    assert clears(api) == 1


async def test_free_text_approves_nothing(api: Api) -> None:
    number = await fail(api)
    await say(api, f"/show {number}")

    for words in ("yes", "approve it", "go ahead", "I approve incident 1", "approve everything"):
        events = await say(api, words)
        assert "approve nothing" in text_of(events)
    assert (await api.service.store.incident(number)).status is Status.WAITING_DECISION
    assert clears(api) == 0


async def test_another_version_is_not_approved(api: Api) -> None:
    number = await fail(api)

    events = await say(api, f"/approve {number} 1")

    assert "moved on" in text_of(events)
    assert [one["version"] for one in asked(events)] == [2]
    assert clears(api) == 0


async def test_reject_answer_and_edit(api: Api) -> None:
    number = await fail(api)
    await say(api, f"/show {number}")
    assert "argument=value" in text_of(await say(api, f"/edit {number} nonsense"))
    edited = text_of(await say(api, f"/edit {number} downstream=false"))
    assert "approved as edited" in edited
    await settled(api, number)
    assert [one.args["downstream"] for one in api.airflow.writes if one.verb == "clear"] == [False]


async def test_reject_hands_it_over(api: Api) -> None:
    number = await fail(api)
    await say(api, f"/show {number}")

    events = await say(api, f"/reject {number} 3 columns are missing")

    assert "rejected by" in text_of(events)
    (answer,) = (await api.service.store.detail(number)).answers
    assert answer.message == "3 columns are missing"
    assert clears(api) == 0


async def test_a_viewer_reads_and_cannot_decide_or_ask(api: Api) -> None:
    number = await fail(api)
    token, _ = await api.service.tokens.create("vera", Role.VIEWER, life=timedelta(hours=1))
    api.app.state.doorkeeper._timer = lambda: 1e9
    shown = {"authorization": f"Bearer {token}"}

    events = await say(api, f"/show {number}", **shown)
    assert asked(events)[0]["may"] is False
    for message in (f"/approve {number} 2", f"/retry {number}", "/pause orders", f"/reject {number} no"):
        assert "needs the role operator" in text_of(await say(api, message, **shown))
    assert (await api.service.store.incident(number)).status is Status.WAITING_DECISION
    assert api.airflow.writes == []


# --- asking for changes -----------------------------------------------------------------------------------


async def test_a_retry_of_what_is_with_people_becomes_a_question(api: Api) -> None:
    number = await fail(api)
    await say(api, f"/show {number}")
    await say(api, f"/reject {number} not now")
    assert (await api.service.store.incident(number)).status is Status.ESCALATED

    events = await say(api, "/retry orders load run_1")

    (question,) = asked(events)
    assert question["incident"] == number
    assert "as asked by local operator" in question["plan"]["summary"]
    assert clears(api) == 0
    await say(api, f"/approve {number}")
    await settled(api, number)
    assert clears(api) == 1


async def test_a_retry_of_a_failure_nobody_reported_opens_an_incident(api: Api) -> None:
    api.airflow.start("orders", "run_1")
    await api.airflow.settle()

    events = await say(api, "retry load of orders")

    (question,) = asked(events)
    assert question["plan"]["actions"][0]["target"]["run_id"] == "run_1"
    assert "as asked" in question["plan"]["summary"]
    assert clears(api) == 0


async def test_a_question_that_stands_already_is_shown_instead(api: Api) -> None:
    number = await fail(api)

    events = await say(api, f"/retry {number}")

    assert "asks already" in text_of(events)
    assert [one["incident"] for one in asked(events)] == [number]


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("/retry orders", "which task"),
        ("/retry orders nothing", "nothing is asked for"),
        ("retry load when the source is back", "nothing is asked for"),
        ("/retry orders load run_9", "no failed instance"),
        ("retry it", "which one?"),
        ("/pause payments", "nothing is asked for"),
        ("/pause orders until whenever", "nothing is asked for"),
        ("/unpause orders", "not paused already"),
    ],
)
async def test_what_is_not_clear_is_not_done(api: Api, message: str, told: str) -> None:
    await fail(api)

    events = await say(api, message, thread="fresh")

    assert told in text_of(events), text_of(events)
    assert len(await api.service.store.incidents()) == 1
    assert api.airflow.writes == []


async def test_an_ambiguous_name_asks_which(api: Api) -> None:
    api.airflow.add_dag("sales", [TaskSpec("load", [Try(state="failed", log="boom")])])
    for dag in ("orders", "sales"):
        api.airflow.start(dag, "run_1")
    await api.airflow.settle()
    for dag in ("orders", "sales"):
        given = {"event": "task_instance_failed", "dag_id": dag, "run_id": "run_1", "task_id": "load"}
        assert (await api.http.post("/webhook", json=given)).status_code == 202
    await api.drive()

    events = await say(api, "retry load")

    assert "name one by its number" in text_of(events)
    assert sorted(data["incident"] for name, data in events if name == "link") == [1, 2]


async def test_a_pause_until_nine_is_asked_done_and_ended_by_a_question(api: Api) -> None:
    events = await say(api, "pause orders for 2 hours")
    (question,) = asked(events)
    number = question["incident"]
    assert question["plan"]["actions"] == [{"name": "pause_dag", "target": {"dag_id": "orders"}, "args": {}}]
    assert api.airflow.writes == []

    told = text_of(await say(api, f"/approve {number}"))
    assert "approved" in told
    await settled(api, number)
    assert (await api.service.airflow.dag("orders")).is_paused
    record = await api.service.store.incident(number)
    assert (record.kind, record.status) == (IncidentKind.REQUEST, Status.WAITING_TIMER)

    api.clock.ahead = timedelta(hours=2, minutes=1)
    for _ in range(200):
        await api.service.runner.drive_due()
        record = await api.service.store.incident(number)
        if record.status is Status.WAITING_DECISION:
            break
        await pause()
    assert record.plan is not None
    assert record.plan.actions[0].name == "unpause_dag"
    assert (await api.service.airflow.dag("orders")).is_paused
    await say(api, f"/show {number}")
    ended = text_of(await say(api, f"/approve {number}"))
    assert "done as asked: not paused" in ended
    assert not (await api.service.airflow.dag("orders")).is_paused


async def test_nothing_is_asked_for_in_shadow_mode_or_under_the_kill_switch(tmp_path: Path) -> None:
    async with open_api(tmp_path, background=True, healing="shadow") as api:
        assert "shadow mode" in text_of(await say(api, "/pause orders"))
        await api.http.post("/api/control", json={"paused": True})
        assert "kill switch" in text_of(await say(api, "/pause orders"))
        assert await api.service.store.incidents() == []


# --- threads ----------------------------------------------------------------------------------------------


async def test_threads_are_their_owners_alone(api: Api) -> None:
    await fail(api)
    tokens = [
        await api.service.tokens.create(name, Role.OPERATOR, life=timedelta(hours=1))
        for name in ("ada", "bob")
    ]
    api.app.state.doorkeeper._timer = lambda: 1e9
    ada, bob = ({"authorization": f"Bearer {token}"} for token, _ in tokens)
    await say(api, "/why 1", thread="night", **ada)

    mine = (await api.http.get("/api/chat/night", headers=ada)).json()["turns"]
    theirs = (await api.http.get("/api/chat/night", headers=bob)).json()["turns"]

    assert [one["role"] for one in mine] == ["person", "airmedic"]
    assert theirs == []
    assert (await api.http.get("/api/chat", headers=bob)).json()["items"] == []
    assert [one["title"] for one in (await api.http.get("/api/chat", headers=ada)).json()["items"]] == [
        "/why 1"
    ]
    assert (await api.http.delete("/api/chat/night", headers=bob)).status_code == 204
    assert len((await api.http.get("/api/chat/night", headers=ada)).json()["turns"]) == 2
    assert (await api.http.delete("/api/chat/night", headers=ada)).status_code == 204
    assert (await api.http.get("/api/chat/night", headers=ada)).json()["turns"] == []


async def test_a_long_thread_keeps_its_turns_and_folds_its_checkpoints(api: Api) -> None:
    for _ in range(22):
        await say(api, "/help")

    turns = (await api.http.get("/api/chat/t1")).json()["turns"]
    saver = api.app.state.chat._saver
    kept = [one async for one in saver.alist(api.app.state.chat._config(_local(), "t1"))]

    assert len(turns) == 44
    assert len(kept) < 12


def _local() -> Caller:
    return Caller(name=LOCAL_OPERATOR, role=Role.ADMIN)


async def test_secrets_in_a_message_are_not_kept(api: Api) -> None:
    await say(api, "why does password=hunter2secret not work?")

    assert "hunter2secret" not in (await api.http.get("/api/chat/t1")).text
    assert "hunter2secret" not in (await api.http.get("/api/chat")).text


@pytest.mark.parametrize(
    "body",
    [
        {"thread": "t 1", "message": "hi"},
        {"thread": "hints", "message": "hi"},
        {"thread": "t1", "message": "  "},
        {"thread": "t1", "message": "x" * 4001},
        {"thread": "t1", "message": "hi", "timezone": "../etc/passwd"},
        {"thread": "t1", "message": "hi", "role": "admin"},
    ],
)
async def test_bodies_that_do_not_fit(api: Api, body: dict[str, Any]) -> None:
    assert (await api.http.post("/api/chat", json=body)).status_code == 422


async def test_hints(api: Api) -> None:
    number = await fail(api)

    async def hints(q: str) -> list[str]:
        found = (await api.http.get("/api/chat/hints", params={"q": q})).json()["items"]
        return [one["text"] for one in found]

    assert await hints("/app") == ["/approve "]
    assert await hints("/approve ") == [f"/approve {number}"]
    assert await hints("/pause o") == ["/pause orders"]
    assert "what failed last night?" in await hints("")
    assert await hints("/show 9") == []
