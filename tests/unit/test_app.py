"""The API: what it shows, to whom, and how it says no."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from graph.errors import AirflowUnreachable, SettingsInvalid, StoreUnavailable
from server.app import create_app
from tests.unit.serving import Api, make_settings, open_api


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as opened:
        yield opened


def is_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The answer's body, checked for RFC 9457."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == answer.request.url.path
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert problem["title"]
    assert problem["detail"]
    return problem


async def test_an_incident_shows_everything_known_of_it(api: Api) -> None:
    number = await api.fail()

    found = await api.incident(number)

    assert found["task"] == {"dag_id": "orders", "run_id": "run_1", "task_id": "load", "map_index": -1}
    assert found["status"] == "waiting_decision"
    assert found["asks"] is True
    assert found["root_cause"] == "worker_lost"
    assert found["diagnosis"]["evidence"] == [{"line": 3, "text": "connection refused"}]
    assert found["plan"]["id"] == found["question"]["plan_id"]
    assert found["question"]["action_requests"][0]["name"] == "clear_task"
    assert found["question"]["review_configs"][0]["args_schema"]["type"] == "object"
    assert found["decision"]["verdict"] == "ask"
    assert [one["door"] for one in found["occurrences"]] == ["webhook"]
    assert found["ledger"] == []
    assert "diagnosed" in [event["name"] for event in found["events"]]
    assert found["expires_at"] is not None


async def test_the_etag_is_the_version(api: Api) -> None:
    number = await api.fail()

    answer = await api.http.get(f"/api/incidents/{number}")

    assert answer.headers["etag"] == f'"{answer.json()["version"]}"'


async def test_the_stored_log_is_redacted_text(api: Api) -> None:
    number = await api.fail()

    answer = await api.http.get(f"/api/incidents/{number}/log")

    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "connection refused" in answer.text
    assert "hunter2secret" not in answer.text


async def test_incidents_come_newest_first_in_pages(api: Api) -> None:
    numbers = [await api.fail(f"run_{n}") for n in range(3)]

    first = (await api.http.get("/api/incidents", params={"limit": 2})).json()
    second = (await api.http.get("/api/incidents", params={"limit": 2, "cursor": first["next"]})).json()

    assert [one["id"] for one in first["items"]] == numbers[:0:-1]
    assert [one["id"] for one in second["items"]] == numbers[:1]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("query", "found"),
    [
        pytest.param({"status": "waiting_decision"}, 1, id="its status"),
        pytest.param({"status": ["closed", "waiting_decision"]}, 1, id="one of several statuses"),
        pytest.param({"status": "closed"}, 0, id="another status"),
        pytest.param({"dag_id": "orders"}, 1, id="its dag"),
        pytest.param({"dag_id": "orders%"}, 0, id="a name is a name, not a pattern"),
    ],
)
async def test_incidents_are_filtered(api: Api, query: dict[str, Any], found: int) -> None:
    await api.fail()

    page = (await api.http.get("/api/incidents", params=query)).json()

    assert len(page["items"]) == found


async def test_the_agent_log_goes_on_where_it_stopped(api: Api) -> None:
    number = await api.fail()

    first = (await api.http.get("/api/logs", params={"incident": number, "limit": 2})).json()
    rest = (await api.http.get("/api/logs", params={"incident": number, "after": first["next"]})).json()
    end = (await api.http.get("/api/logs", params={"after": rest["next"]})).json()

    ids = [event["id"] for event in first["items"] + rest["items"]]
    assert ids == sorted(set(ids))
    assert len(first["items"]) == 2
    assert end == {"items": [], "next": rest["next"]}


async def test_the_agent_log_is_filtered_by_node_and_level(api: Api) -> None:
    await api.fail()

    diagnosed = (await api.http.get("/api/logs", params={"node": "diagnose"})).json()["items"]
    warnings = (await api.http.get("/api/logs", params={"level": "warning"})).json()["items"]

    assert {event["node"] for event in diagnosed} == {"diagnose"}
    assert warnings == []


async def test_status_says_how_things_stand(api: Api) -> None:
    await api.fail()

    status = (await api.http.get("/api/status")).json()

    assert status["healing"] == "on"
    assert status["airflow"]["ok"] is True
    assert status["airflow"]["version"] == "3.3.2"
    assert status["incidents"] == {"waiting_decision": 1}
    assert (status["open"], status["waiting_decision"]) == (1, 1)
    assert status["seen"]["webhook"] is not None
    assert status["seen"]["listener"] is None


async def test_status_answers_when_airflow_does_not(api: Api) -> None:
    api.airflow.fail_next("health", AirflowUnreachable("no answer"))

    status = (await api.http.get("/api/status")).json()

    assert status["airflow"] | {"asked_at": ""} == {
        "ok": False,
        "detail": "no answer",
        "asked_at": "",
        "version": None,
        "metadatabase": None,
        "scheduler": None,
        "triggerer": None,
        "dag_processor": None,
    }


async def test_airflow_is_not_asked_at_every_look(api: Api) -> None:
    for _ in range(5):
        await api.http.get("/readyz")

    assert api.airflow.calls.count("health") == 1


async def test_ready_when_database_airflow_and_driver_are_well(tmp_path: Path) -> None:
    async with open_api(tmp_path, background=True) as api:
        answer = await api.http.get("/readyz")

    assert answer.status_code == 200, answer.text
    assert answer.json()["ready"] is True


async def test_not_ready_says_what_is_wrong(api: Api) -> None:
    api.airflow.fail_next("health", AirflowUnreachable("no answer"))

    answer = await api.http.get("/readyz")

    assert answer.status_code == 503
    wrong = {part["name"]: part["detail"] for part in answer.json()["parts"] if not part["ok"]}
    assert wrong == {"airflow": "no answer", "driver": "not running: admit, poll, runner, watch"}


async def test_the_process_is_alive_whatever_airflow_does(api: Api) -> None:
    api.airflow.fail_next("health", AirflowUnreachable("no answer"))

    assert (await api.http.get("/healthz")).json() == {"status": "alive"}


async def test_only_an_escalated_incident_is_closed(api: Api) -> None:
    number = await api.fail()
    problem = is_problem(await api.http.post(f"/api/incidents/{number}/close"), 409)
    assert "waiting_decision" in problem["detail"]
    await api.decide(number, {"type": "reject", "version": (await api.incident(number))["version"]})
    await api.drive()
    assert (await api.incident(number))["status"] == "escalated"

    closed = await api.http.post(f"/api/incidents/{number}/close", json={"reason": "done by hand"})

    assert closed.json()["status"] == "closed"
    events = (await api.incident(number))["events"]
    assert events[-1]["data"] == {"by": "local operator", "reason": "done by hand"}


# --- saying no --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status"),
    [
        pytest.param("/api/incidents/99", 404, id="unknown incident"),
        pytest.param("/api/incidents/99/log", 404, id="log of an unknown incident"),
        pytest.param("/api/incidents/nine", 422, id="not a number"),
        pytest.param("/api/incidents/0", 422, id="no incident has the number 0"),
        pytest.param(f"/api/incidents/{10**30}", 422, id="larger than any database counts"),
        pytest.param("/api/incidents?limit=100000", 422, id="limit out of bounds"),
        pytest.param("/api/incidents?cursor=abc", 422, id="not a cursor"),
        pytest.param("/api/incidents?status=sleeping", 422, id="no such status"),
        pytest.param("/api/incidents?dag_id=a%00b", 422, id="NUL in a name"),
        pytest.param(f"/api/logs?after={10**30}", 422, id="cursor larger than any database counts"),
        pytest.param("/api/logs?level=loud", 422, id="no such level"),
        pytest.param("/api/nothing", 404, id="no such path"),
    ],
)
async def test_a_wrong_question_gets_a_problem(api: Api, path: str, status: int) -> None:
    answer = await api.http.get(path)

    is_problem(answer, status)


async def test_a_validation_problem_names_the_field_and_not_its_value(api: Api) -> None:
    answer = await api.http.get("/api/incidents?limit=verysecret")

    problem = is_problem(answer, 422)
    assert problem["type"] == "urn:airmedic:problem:request-invalid"
    assert [one["field"] for one in problem["errors"]] == ["query.limit"]
    assert "verysecret" not in answer.text


async def test_a_wrong_method_gets_a_problem(api: Api) -> None:
    is_problem(await api.http.put("/api/status"), 405)


async def test_a_database_that_does_not_answer_is_503_and_may_be_asked_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_args: object, **_given: object) -> None:
        raise StoreUnavailable("reading: the database did not answer (password=hunter2secret)")

    monkeypatch.setattr(api.service.store, "status_counts", away)

    answer = await api.http.get("/api/status")

    problem = is_problem(answer, 503)
    assert answer.headers["retry-after"] == "5"
    assert "hunter2secret" not in problem["detail"]


async def test_a_defect_is_a_plain_500_with_a_request_id(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_args: object, **_given: object) -> None:
        raise ZeroDivisionError("secret internals")

    monkeypatch.setattr(api.service.store, "status_counts", broken)

    answer = await api.http.get("/api/status")

    problem = is_problem(answer, 500)
    assert "secret internals" not in answer.text
    assert "Traceback" not in answer.text
    assert problem["type"] == "urn:airmedic:problem:internal"


# --- who may ask ------------------------------------------------------------------------------------------

TOKEN = "a-token-of-the-api"


@pytest.mark.parametrize("path", ["/api/status", "/api/logs", "/api/incidents", "/api/incidents/1"])
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="no token"),
        pytest.param({"authorization": "Bearer wrong"}, id="a wrong token"),
        pytest.param({"authorization": f"Basic {TOKEN}"}, id="another scheme"),
        pytest.param({"authorization": f"Bearer {TOKEN}x"}, id="a longer token"),
    ],
)
async def test_with_a_token_set_nobody_reads_without_it(
    tmp_path: Path, path: str, headers: dict[str, str]
) -> None:
    async with open_api(tmp_path, api_token=TOKEN) as api:
        answer = await api.http.get(path, headers=headers)

    is_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


async def test_every_api_route_asks_for_the_token(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token=TOKEN) as api:
        for path, methods in api.app.openapi()["paths"].items():
            if not path.startswith("/api/"):
                continue
            for method in methods:
                body: dict[str, str] | None = {} if method == "post" else None
                answer = await api.http.request(
                    method.upper(), path.format(incident_id=1, thread="t"), json=body
                )
                is_problem(answer, 401)


async def test_the_token_opens_the_api_and_health_needs_none(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token=TOKEN) as api:
        answer = await api.http.get("/api/status", headers={"authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        assert (await api.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({"origin": "https://evil.example"}, 403, id="a page of another site"),
        pytest.param({"origin": "null"}, 403, id="a page without an origin"),
        pytest.param({"origin": "http://["}, 403, id="an origin that is none"),
        pytest.param({"origin": "http://[", "host": ""}, 403, id="an origin that is none, and no name"),
        pytest.param({"host": "["}, 421, id="a name that is none"),
        pytest.param({"origin": "http://127.0.0.1:9999"}, 403, id="another server on this machine"),
        pytest.param({"origin": "http://127.0.0.1:8642"}, 200, id="our own pages"),
        pytest.param({"host": "evil.example"}, 421, id="a name that was bent to this machine"),
        pytest.param({"host": "localhost:8642"}, 200, id="this machine by name"),
    ],
)
async def test_a_strangers_page_cannot_speak_for_the_user(
    api: Api, headers: dict[str, str], status: int
) -> None:
    assert (await api.http.get("/api/status", headers=headers)).status_code == status


async def test_no_origin_is_allowed_by_cors(api: Api) -> None:
    answer = await api.http.options(
        "/api/status", headers={"origin": "https://evil.example", "access-control-request-method": "GET"}
    )

    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        pytest.param({}, "AIRMEDIC_API_TOKEN and AIRMEDIC_WEBHOOK_SECRET", id="neither"),
        pytest.param({"api_token": "t"}, "AIRMEDIC_WEBHOOK_SECRET", id="no secret"),
        pytest.param({"webhook_secret": "s"}, "AIRMEDIC_API_TOKEN", id="no token"),
    ],
)
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.5", "airmedic.example"])
async def test_strangers_are_not_let_in_unasked(
    tmp_path: Path, host: str, given: dict[str, str], missing: str
) -> None:
    app = create_app(make_settings(tmp_path, host=host, **given))

    with pytest.raises(SettingsInvalid, match=f"set {missing} first"):
        async with app.router.lifespan_context(app):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_commas_alone_are_no_secret(tmp_path: Path, host: str) -> None:
    with pytest.raises(SettingsInvalid, match="AIRMEDIC_WEBHOOK_SECRET is wrong"):
        make_settings(tmp_path, host=host, api_token="t", webhook_secret=" , ")


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_a_prefix_alone_is_no_secret(tmp_path: Path, host: str) -> None:
    """Whatever was to follow it is missing, and anybody could sign."""
    app = create_app(make_settings(tmp_path, host=host, api_token="t", webhook_secret="s, whsec_"))

    with pytest.raises(SettingsInvalid, match="nothing after it is no secret"):
        async with app.router.lifespan_context(app):
            pass


async def test_a_prefix_before_what_is_not_base64_is_no_secret(tmp_path: Path) -> None:
    """The plugin could not sign with it, and every delivery would be refused."""
    app = create_app(make_settings(tmp_path, webhook_secret="whsec_not-base64"))

    with pytest.raises(SettingsInvalid, match="AIRMEDIC_WEBHOOK_SECRET: what follows whsec_ is not base64"):
        async with app.router.lifespan_context(app):
            pass


# --- every answer -----------------------------------------------------------------------------------------


async def test_every_answer_carries_an_id_and_the_safe_headers(api: Api) -> None:
    answer = await api.http.get("/api/status")

    assert len(answer.headers["x-request-id"]) == 32
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["x-frame-options"] == "DENY"
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("abc-123", True, id="a plain id is kept"),
        pytest.param("a b\x01", False, id="anything else is replaced"),
        pytest.param("x" * 65, False, id="too long is replaced"),
    ],
)
async def test_a_callers_request_id(api: Api, given: str, kept: bool) -> None:
    answer = await api.http.get("/healthz", headers={"x-request-id": given})

    assert (answer.headers["x-request-id"] == given) is kept


async def test_the_openapi_document_builds_and_names_every_route(api: Api) -> None:
    document = (await api.http.get("/openapi.json")).json()

    assert json.dumps(document)
    assert set(document["paths"]) >= {
        "/api/diagnose",
        "/api/feedback",
        "/api/incidents/{incident_id}/events",
        "/api/incidents/{incident_id}/timeline",
        "/api/metrics/summary",
        "/api/policy",
        "/webhook",
        "/api/control",
        "/api/incidents/{incident_id}/reopen",
        "/api/status",
        "/api/logs",
        "/api/incidents",
        "/api/incidents/{incident_id}",
        "/api/incidents/{incident_id}/log",
        "/api/incidents/{incident_id}/decision",
        "/api/incidents/{incident_id}/close",
        "/healthz",
        "/readyz",
    }
    assert "Problem" in document["components"]["schemas"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400 and path != "/readyz":
                    assert "application/problem+json" in answer["content"], (path, status)


async def test_the_documentation_is_served(api: Api) -> None:
    assert (await api.http.get("/docs")).status_code == 200
