"""The role × route matrix, taken from the application itself: a route that declares nothing fails here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

from graph.domain import AnswerKind, Role, Status
from server.access.entry import Require
from tests.factories import Clock
from tests.unit.healing_world import make_airflow, open_ward
from tests.unit.serving import Api, open_api

CALLERS: tuple[Role | None, ...] = (None, *Role)
LIFE = timedelta(hours=1)
# What anybody may ask: it changes nothing and says nothing of any incident. The webhook asks for signatures.
PUBLIC = frozenset(
    {"/healthz", "/readyz", "/webhook", "/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"}
)


@dataclass(frozen=True)
class Route:
    """One method of one path, and the least role it declares; None for a public one."""

    method: str
    path: str
    role: Role | None

    def url(self) -> str:
        """With numbers for its parameters: what does not exist is still refused by role first."""
        parts = ["987654" if part.startswith("{") else part for part in self.path.split("/")]
        return "/".join(parts)


def _roles(dependant: Any) -> Iterator[Role]:
    for one in dependant.dependencies:
        if isinstance(one.call, Require):
            yield one.call.role
        yield from _roles(one)


def routes_of(app: FastAPI) -> list[Route]:
    """Every route of the application. Raises for one that is neither public nor declares a role."""
    found = []
    for context in iter_route_contexts(app.routes):
        path = context.path
        assert path is not None
        dependant = getattr(context, "dependant", None)
        roles = list(_roles(dependant)) if dependant is not None else []
        role = max(roles, key=list(Role).index, default=None)
        if role is None and path not in PUBLIC:
            raise AssertionError(f"{path} declares no role: take ViewerDep, OperatorDep or require(role)")
        if role is not None and path in PUBLIC:
            raise AssertionError(f"{path} is called public and declares {role}")
        found += [Route(method, path, role) for method in sorted((context.methods or set()) - {"HEAD"})]
    return found


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with open_api(tmp_path) as opened:
        yield opened


async def tokens_of(api: Api) -> dict[Role | None, dict[str, str]]:
    headers: dict[Role | None, dict[str, str]] = {None: {}}
    for role in Role:
        token, _ = await api.service.tokens.create(f"a-{role.value}", role, life=LIFE)
        headers[role] = {"authorization": f"Bearer {token}"}
    return headers


def refused(route: Route, who: Role | None) -> int | None:
    """The status that the matrix demands; None where the route itself answers."""
    if route.role is None:
        return None
    if who is None:
        return 401
    return None if who.includes(route.role) else 403


async def test_the_matrix(api: Api) -> None:
    headers = await tokens_of(api)
    routes = routes_of(api.app)
    wrong = []
    for route in routes:
        for who in CALLERS:
            body: Any = {} if route.method == "POST" else None
            async with api.http.stream(route.method, route.url(), headers=headers[who], json=body) as answer:
                status = answer.status_code
            demanded = refused(route, who)
            met = status == demanded if demanded else status not in {401, 403} and status < 500
            # The webhook signs what it takes; unsigned is fine here. Not ready is an answer of /readyz.
            if not met and not (route.path == "/readyz" and status == 503):
                wrong.append(f"{route.method} {route.path} as {who}: {status}, not {demanded or 'an answer'}")

    assert wrong == []
    assert {route.role for route in routes} >= {None, Role.VIEWER, Role.OPERATOR}


async def test_what_changes_something_is_not_for_viewers(api: Api) -> None:
    """But for asking: these POST only because what they are told is long."""
    asking = {"/api/diagnose", "/api/chat", "/api/chat/{thread}", "/api/feedback", "/api/simulate"}
    open_to_viewers = {
        route.path
        for route in routes_of(api.app)
        if route.method != "GET" and route.role in {None, Role.VIEWER} and route.path != "/webhook"
    }

    assert open_to_viewers <= asking


async def test_a_route_that_declares_nothing_is_found(api: Api) -> None:
    async def forgotten() -> None:
        """A route somebody added in a hurry."""

    api.app.add_api_route("/api/forgotten", forgotten)

    with pytest.raises(AssertionError, match="/api/forgotten declares no role"):
        routes_of(api.app)


# --- who is asked for a token -----------------------------------------------------------------------------


async def test_the_first_token_closes_the_door_at_once_and_for_good(tmp_path: Path) -> None:
    async with open_api(tmp_path) as api:
        assert (await api.http.get("/api/status")).status_code == 200
        api.app.state.doorkeeper._timer = lambda: 1e9  # a few seconds later
        token, _ = await api.service.tokens.create("ada", Role.ADMIN, life=LIFE)

        assert (await api.http.get("/api/status")).status_code == 401
        shown = {"authorization": f"Bearer {token}"}
        assert (await api.http.get("/api/status", headers=shown)).status_code == 200
        await api.service.tokens.revoke("ada")
        api.app.state.doorkeeper._timer = lambda: 2e9

        for headers in (shown, {}):
            assert (await api.http.get("/api/status", headers=headers)).status_code == 401


async def test_a_revoked_token_works_for_seconds_at_most(api: Api) -> None:
    now = 0.0
    api.app.state.doorkeeper._timer = lambda: now
    token, _ = await api.service.tokens.create("ada", Role.ADMIN, life=LIFE)
    shown = {"authorization": f"Bearer {token}"}
    assert (await api.http.get("/api/status", headers=shown)).status_code == 200

    await api.service.tokens.revoke("ada")
    now = 3.1

    assert (await api.http.get("/api/status", headers=shown)).status_code == 401


async def test_the_settings_token_is_an_admin_beside_stored_ones(tmp_path: Path) -> None:
    async with open_api(tmp_path, api_token="a-token-of-the-settings") as api:
        await api.service.tokens.create("ada", Role.VIEWER, life=LIFE)
        shown = {"authorization": "Bearer a-token-of-the-settings"}

        answer = await api.http.post("/api/control", json={"shadow": False}, headers=shown)

    assert answer.json()["by"] == "operator (API token)"


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param("head.body.signature", id="another system's sign-in"),
        pytest.param("a-token-of-the-setting", id="all but the last letter"),
        pytest.param("\xe9", id="no ASCII"),
        pytest.param("", id="nothing"),
    ],
)
async def test_what_is_no_token_of_ours_opens_nothing(tmp_path: Path, shown: str) -> None:
    async with open_api(tmp_path, api_token="a-token-of-the-settings") as api:
        answer = await api.http.get(
            "/api/status", headers=[(b"authorization", b"Bearer " + shown.encode("latin-1"))]
        )

    assert answer.status_code == 401


async def test_with_a_token_any_host_name_is_answered(api: Api) -> None:
    token, _ = await api.service.tokens.create("ada", Role.VIEWER, life=LIFE)
    shown = {"authorization": f"Bearer {token}", "host": "airmedic.example"}
    assert (await api.http.get("/api/status", headers={"host": "airmedic.example"})).status_code == 401

    assert (await api.http.get("/api/status", headers=shown)).status_code == 200


@pytest.mark.parametrize(
    ("switch", "role", "status"),
    [
        pytest.param({"paused": True}, Role.OPERATOR, 200, id="an operator stops everything"),
        pytest.param({"paused": False}, Role.OPERATOR, 200, id="and lets it go on"),
        pytest.param({"shadow": True}, Role.OPERATOR, 200, id="an operator takes its hands off"),
        pytest.param({"shadow": False}, Role.OPERATOR, 403, id="only an admin lets it act"),
        pytest.param({"paused": True, "shadow": False}, Role.OPERATOR, 403, id="not beside another switch"),
        pytest.param({"shadow": False}, Role.ADMIN, 200, id="an admin does"),
        pytest.param({"paused": True}, Role.VIEWER, 403, id="a viewer only looks"),
    ],
)
async def test_the_switches_and_their_roles(
    tmp_path: Path, switch: dict[str, bool], role: Role, status: int
) -> None:
    async with open_api(tmp_path, healing="shadow") as api:
        headers = await tokens_of(api)

        answer = await api.http.post("/api/control", json=switch, headers=headers[role])

        assert answer.status_code == status, answer.text
        shown = (await api.http.get("/api/control", headers=headers[role])).json()
        if status == 403:
            assert (shown["paused"], shown["shadow"]) == (False, True)


# --- who may decide ---------------------------------------------------------------------------------------

ADMINS_ONLY = """
version: 1
rules:
  - name: admins decide about orders
    match: {dag: orders}
    verdict: ask
    approvers: admin
"""

ANSWERS = [
    pytest.param({"type": "approve"}, id="approve"),
    pytest.param({"type": "edit", "args": [{"downstream": False}]}, id="edit"),
    pytest.param({"type": "reject"}, id="reject"),
    pytest.param({"type": "respond", "message": "look again"}, id="respond"),
]


@pytest.mark.parametrize("body", ANSWERS)
async def test_a_question_for_admins_is_not_answered_by_operators(
    tmp_path: Path, body: dict[str, Any]
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(ADMINS_ONLY)
    async with open_api(tmp_path, policy=policy) as api:
        number = await api.fail()
        headers = await tokens_of(api)
        before = await api.service.store.incident(number)
        assert isinstance(before.question, dict)
        assert before.question["approvers"] == "admin"

        answer = await api.decide(number, {**body, "version": before.version}, **headers[Role.OPERATOR])

        assert answer.status_code == 403
        assert "policy asks for admin" in answer.json()["detail"]
        await api.drive()
        assert await api.service.store.incident(number) == before
        assert not [write for write in api.airflow.writes if write.verb == "clear"]
        (event,) = await api.service.store.events(incident_id=number, level="warning")
        assert event.name == "answer_refused"
        assert event.data == {"by": "a-operator", "role": "operator", "needed": "admin"}

        answer = await api.decide(number, {**body, "version": before.version}, **headers[Role.ADMIN])
        assert answer.status_code == 202, answer.text


async def test_an_operators_answer_stands_where_operators_are_asked(api: Api) -> None:
    number = await api.fail()
    headers = await tokens_of(api)

    answer = await api.decide(number, {"type": "approve", "version": 2}, **headers[Role.OPERATOR])
    assert answer.status_code == 202, answer.text
    await api.drive()

    assert (await api.service.store.incident(number)).status is not Status.WAITING_DECISION
    (said,) = [e for e in await api.service.store.events(incident_id=number) if e.name == "answered"]
    assert isinstance(said.data, dict)
    assert said.data["by"] == "a-operator"


BY_HOURS = """
version: 1
rules:
  - name: by day operators decide
    match: {hours: {from: "06:00", to: "18:00"}}
    verdict: ask
  - name: by night admins decide
    match: {}
    verdict: ask
    approvers: admin
"""


@pytest.mark.parametrize(
    ("role", "writes"),
    [
        pytest.param(Role.OPERATOR, 0, id="an operator's answer is no longer enough"),
        pytest.param(Role.ADMIN, 1, id="an admin's still is"),
    ],
)
async def test_an_answer_counts_by_the_rule_in_force_when_it_is_taken_up(
    tmp_path: Path, clock: Clock, role: Role, writes: int
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(BY_HOURS)
    clock.now = clock.now.replace(hour=17, minute=0)
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, policy=policy) as ward:
        await ward.report()
        clock.forward(2 * 3600)
        before = await ward.only()
        assert isinstance(before.question, dict)
        assert before.question["approvers"] == "operator"

        await ward.answer(AnswerKind.APPROVE, role=role)
        await ward.pass_time(120)

        record = await ward.only()
        assert ward.writes() == writes
        if not writes:
            assert record.status is Status.WAITING_DECISION
            assert isinstance(record.question, dict)
            assert record.question["approvers"] == "admin"
            assert record.version > before.version
            await ward.answer(AnswerKind.APPROVE, role=Role.ADMIN)
            await ward.pass_time(120)
            assert ward.writes() == 1


async def test_an_approval_is_weighed_again_when_its_waiting_time_is_over(
    tmp_path: Path, clock: Clock
) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(BY_HOURS)
    clock.now = clock.now.replace(hour=17, minute=59, second=50)
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, policy=policy) as ward:
        await ward.report()
        await ward.answer(AnswerKind.APPROVE, role=Role.OPERATOR)
        assert (await ward.only()).status is Status.WAITING_TIMER

        await ward.pass_time(120)

        record = await ward.only()
        assert ward.writes() == 0
        assert record.status is Status.WAITING_DECISION
        assert isinstance(record.question, dict)
        assert record.question["approvers"] == "admin"
