"""The rest of the API: status, agent log, figures, diagnosis on demand, feedback, policy, simulations."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from graph.domain import DiagnosedBy, RootCause
from graph.errors import AirflowUnreachable
from server.demo.simulation import SCENARIOS, simulate
from tests.unit.serving import Api, make_settings, open_api
from tests.unit.test_app import is_problem


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path, stream_limit=timedelta(0), demo=True) as opened:
        yield opened


async def read(api: Api, path: str, **query: Any) -> Any:
    answer = await api.http.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_status_shows_pipelines_and_the_health_of_every_part(api: Api) -> None:
    await api.fail()

    status = await read(api, "/api/status")

    (pipeline,) = status["pipelines"]
    assert (pipeline["dag_id"], pipeline["open_incidents"]) == ("orders", 1)
    assert [run["state"] for run in pipeline["runs"]] == ["failed"]
    assert status["success_rate"] == 0.0
    health = {part["name"]: part["state"] for part in status["health"]}
    assert health["airflow"] == health["scheduler"] == health["database"] == "well"
    assert (health["triggerer"], health["model"]) == ("off", "off")
    assert health["agent"] == "unwell"  # nothing runs in the background of this test
    assert status["queue"] == {"occurrences": 0, "due": 0, "deciding": 1}


async def test_status_keeps_the_pipelines_it_knew_while_airflow_is_away(api: Api) -> None:
    await api.fail()
    await read(api, "/api/status")
    api.clock.ahead += timedelta(minutes=1)
    for verb in ("health", "dags", "updates_since", "recent_runs"):
        api.airflow.fail_next(verb, AirflowUnreachable("no answer"))

    status = await read(api, "/api/status")

    assert [one["dag_id"] for one in status["pipelines"]] == ["orders"]
    assert {one["name"]: one["state"] for one in status["health"]}["scheduler"] == "unknown"


async def test_the_agent_log_reads_backwards_too(api: Api) -> None:
    await api.fail()
    forward = (await read(api, "/api/logs"))["items"]

    backward: list[Any] = []
    cursor = 0
    while True:
        page = await read(api, "/api/logs", order="newest", cursor=cursor, limit=2)
        backward += page["items"]
        cursor = page["next"]
        if cursor == 0:
            break

    assert [one["id"] for one in backward] == [one["id"] for one in forward[::-1]]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        pytest.param({"text": "CONFIDENCE"}, {"diagnosed"}, id="text in the data, in any case"),
        pytest.param({"text": "opene"}, {"opened"}, id="text in the name"),
        pytest.param({"text": "100%_"}, set(), id="no wildcards"),
        pytest.param({"since": "2030-01-01T00:00:00Z"}, set(), id="since"),
        pytest.param({"until": "2020-01-01T00:00:00Z"}, set(), id="until"),
        pytest.param({"node": "diagnose", "text": "confid"}, {"diagnosed"}, id="text and node"),
    ],
)
async def test_the_agent_log_is_searched(api: Api, query: dict[str, Any], names: set[str]) -> None:
    await api.fail()

    found = (await read(api, "/api/logs", **query))["items"]

    assert {one["name"] for one in found} == names


def events_of(answer: httpx.Response) -> list[dict[str, str]]:
    """What a stream sent."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [one for one in answer.text.split("\n\n") if "event: " in one]
    return [dict(line.split(": ", 1) for line in one.splitlines()) for one in blocks]


async def test_an_incident_is_followed_from_where_one_was(api: Api) -> None:
    number = await api.fail()
    path = f"/api/incidents/{number}/events"

    whole = events_of(await api.http.get(path))
    rest = events_of(await api.http.get(path, headers={"last-event-id": whole[1]["id"]}))

    assert whole[0]["event"] == "opened"
    assert rest == whole[2:]
    assert json.loads(whole[0]["data"])["incident_id"] == number
    is_problem(await api.http.get("/api/incidents/99/events"), 404)
    is_problem(await api.http.get(path, headers={"last-event-id": "x"}), 422)


async def test_the_agent_log_is_followed_from_now_or_from_a_place(api: Api) -> None:
    await api.fail()

    now = events_of(await api.http.get("/api/logs", params={"follow": True}))
    placed = events_of(await api.http.get("/api/logs", params={"follow": True, "cursor": 1}))
    chosen = await api.http.get(
        "/api/logs", params={"follow": True, "node": "diagnose"}, headers={"last-event-id": "0"}
    )

    assert now == []
    assert placed[0]["id"] == "2"
    assert {json.loads(one["data"])["node"] for one in events_of(chosen)} == {"diagnose"}


async def test_the_timeline_tells_all_of_it_in_order(api: Api) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]
    await api.decide(number, {"type": "reject", "version": version, "message": "not tonight"})
    await api.drive()
    await api.http.post("/api/feedback", json={"incident": number, "rating": 3})

    first = await read(api, f"/api/incidents/{number}/timeline", limit=3)
    rest = await read(api, f"/api/incidents/{number}/timeline", cursor=first["next"])
    moments = [*first["items"], *rest["items"]]

    assert rest["next"] is None
    assert [one["at"] for one in moments] == sorted(one["at"] for one in moments)
    assert {one["kind"] for one in moments} >= {"occurrence", "event", "answer", "feedback"}
    answered = next(one for one in moments if one["kind"] == "answer")
    assert (answered["name"], answered["detail"]) == ("reject", "not tonight")


async def test_an_incident_shows_plans_answers_feedback_and_cost(api: Api) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]
    await api.decide(number, {"type": "reject", "version": version, "message": "no"})
    await api.http.post(
        "/api/feedback", json={"incident": number, "rating": 2, "comment": "password=hunter2secret"}
    )

    found = await api.incident(number)

    assert found["plans"][0]["verdict"] == "ask"
    assert [one["kind"] for one in found["answers"]] == ["reject"]
    (said,) = found["feedback"]
    assert (said["rating"], said["by"]) == (2, "local operator")
    assert "hunter2secret" not in said["comment"]
    assert found["cost"] | {} == {
        "asked": 0, "calls": 0, "input_tokens": 0, "output_tokens": 0, "cost_usd": None, "seconds": 0.0,
    }  # fmt: skip


async def test_a_range_of_the_log(api: Api) -> None:
    number = await api.fail()

    answer = await api.http.get(f"/api/incidents/{number}/log", params={"first": 2, "lines": 1})

    assert (answer.text, answer.headers["x-log-lines"]) == ("line two\n", "3")
    beyond = await api.http.get(f"/api/incidents/{number}/log", params={"first": 10**9})
    assert (beyond.status_code, beyond.text) == (200, "")


async def test_incidents_are_searched_and_counted(api: Api) -> None:
    await api.fail()

    found = await read(api, "/api/incidents", q="worker lost ord", cause="worker_lost", count=True)
    none = await read(api, "/api/incidents", q="elsewhere", count=True)

    assert ([one["task"]["dag_id"] for one in found["items"]], found["count"]) == (["orders"], 1)
    assert found["more"] is False
    assert found["items"][0]["summary"]
    assert (none["items"], none["count"]) == ([], 0)
    is_problem(await api.http.get("/api/incidents", params={"sort": "updated", "q": "x"}), 422)
    is_problem(await api.http.get("/api/incidents", params={"since": "0001-01-01T00:00:00Z"}), 422)


@pytest.mark.parametrize(
    ("given", "cause"),
    [
        pytest.param({"log": "KeyError: 'x'\npassword=hunter2secret"}, "worker_lost", id="a log"),
        pytest.param({"dag_id": "orders", "run_id": "run_1", "task_id": "load"}, "worker_lost", id="a task"),
    ],
)
async def test_a_diagnosis_on_demand_changes_nothing(api: Api, given: dict[str, Any], cause: str) -> None:
    api.airflow.start("orders", "run_1")
    await api.airflow.settle()

    answer = await api.http.post("/api/diagnose", json=given)

    assert answer.status_code == 200, answer.text
    assert answer.json()["diagnosis"]["root_cause"] == cause
    assert "hunter2secret" not in answer.text
    assert api.airflow.writes == []
    assert (await read(api, "/api/incidents"))["items"] == []
    assert (await read(api, "/api/logs"))["items"] == []


@pytest.mark.parametrize(
    ("given", "status"),
    [
        pytest.param({}, 422, id="nothing"),
        pytest.param({"log": "x", "dag_id": "orders", "run_id": "r", "task_id": "t"}, 422, id="both"),
        pytest.param({"dag_id": "orders"}, 422, id="half a task"),
        pytest.param({"dag_id": "orders", "run_id": "none", "task_id": "load"}, 404, id="an unknown task"),
    ],
)
async def test_what_cannot_be_diagnosed(api: Api, given: dict[str, Any], status: int) -> None:
    is_problem(await api.http.post("/api/diagnose", json=given), status)


async def test_a_cause_said_to_be_wrong_is_no_longer_trusted(api: Api) -> None:
    number = await api.fail()
    store = api.service.store
    lease = (await store.claim_due(owner="test", limit=5)) or None
    assert lease is None
    signature = "0123456789abcdef"
    await store._write(_signed(number, signature))

    assert await store.recall(signature) is None
    for body in (
        {"incident": number, "rating": 5, "cause_right": True},
        {"incident": number, "rating": 1, "cause_right": False, "cause": "rate_limited"},
    ):
        assert (await api.http.post("/api/feedback", json=body)).status_code == 201
    known = await store.recall(signature)

    assert known is not None
    assert (known.right, known.wrong, known.corrected) == (0, 1, RootCause.RATE_LIMITED)
    assert not known.good


def _signed(number: int, signature: str) -> Any:
    from sqlalchemy import update

    from server.db.tables import IncidentRow

    return (
        update(IncidentRow)
        .where(IncidentRow.id == number)  # type: ignore[arg-type]
        .values(signature=signature, outcome="escalated")
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param({"incident": 99, "rating": 3}, 404, id="no such incident"),
        pytest.param({"incident": 1, "rating": 6}, 422, id="beyond the scale"),
        pytest.param({"incident": 1, "rating": 3, "cause": "timeout"}, 422, id="a cause without a no"),
        pytest.param({"incident": 1, "rating": 3, "comment": "\0"}, 422, id="a NUL"),
    ],
)
async def test_feedback_that_is_refused(api: Api, body: dict[str, Any], status: int) -> None:
    is_problem(await api.http.post("/api/feedback", json=body), status)


async def test_the_policy_is_read_whole(api: Api) -> None:
    policy = await read(api, "/api/policy")

    assert policy["digest"] == api.service.policy.digest == (await read(api, "/api/status"))["policy"]
    assert policy["source"] == "policy_default.yaml"
    assert policy["words"][0] == f"policy {policy['digest']}"
    assert len(policy["rules"]) == len(policy["policy"]["rules"])


@pytest.mark.parametrize(("window", "buckets"), [("day", 24), ("week", 28), ("month", 30)])
async def test_the_summary_counts_the_window(api: Api, window: str, buckets: int) -> None:
    number = await api.fail()
    version = (await api.incident(number))["version"]
    await api.decide(number, {"type": "reject", "version": version})
    await api.drive()

    summary = await read(api, "/api/metrics/summary", window=window)

    assert (len(summary["series"]), summary["complete"]) == (buckets, True)
    assert summary["series"][-1]["opened"] == 1
    assert summary["pipeline"]["causes"] == {"worker_lost": 1}
    agent = summary["agent"]
    assert (agent["outcomes"], agent["heal_rate"]) == ({"escalated": 1}, 0.0)
    assert (agent["approvals_asked"], agent["approvals_answered"]) == (1, 1)
    assert agent["diagnose"]["count"] == agent["decide"]["count"] == 1
    assert agent["recover"] == {"count": 0, "p50": None, "p95": None}
    assert summary["business"]["cost_usd"] is None
    assert summary["system"]["memory"] > 1_000_000


async def test_incidents_outside_the_window_do_not_count(api: Api) -> None:
    await api.fail()
    api.clock.ahead += timedelta(days=2)

    assert (await read(api, "/api/metrics/summary", window="day"))["pipeline"]["incidents"] == 0
    assert (await read(api, "/api/metrics/summary", window="week"))["pipeline"]["incidents"] == 1


async def test_the_demo_shows_employees_and_plays(api: Api) -> None:
    assert len((await read(api, "/api/employees"))["employees"]) == 50
    names = [one["name"] for one in await read(api, "/api/simulate")]
    answer = await api.http.post("/api/simulate", json={"failure": "unsafe_to_rerun", "approve": False})

    assert names == list(SCENARIOS)
    played = answer.json()
    assert (answer.status_code, played["incident"]["outcome"]) == (200, "escalated")
    assert played["writes"] == []
    assert "answer" in {one["kind"] for one in played["timeline"]}
    assert (await read(api, "/api/incidents"))["items"] == []
    assert api.airflow.calls == []


@pytest.mark.parametrize("name", SCENARIOS)
async def test_every_play_ends_as_it_says(tmp_path: Path, name: Any) -> None:
    played = await simulate(name, approve=True, by="ada", settings=make_settings(tmp_path))

    incident = played.detail.incident
    assert incident.outcome is SCENARIOS[name].expected, (incident.reason, incident.diagnosis)
    assert incident.diagnosis is None or incident.diagnosis.by is DiagnosedBy.KNOWLEDGE


async def test_a_play_takes_nothing_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AIRMEDIC_DATABASE_URL", "AIRMEDIC_NOTIFY_URLS", "AIRMEDIC_LLM_MODEL", "AIRMEDIC_REDIS_URL"):
        monkeypatch.setenv(name, "nothing://of-this")
    settings = make_settings(tmp_path)

    played = await simulate("deadlock", approve=True, by="ada", settings=settings)

    assert played.detail.incident.outcome is not None
