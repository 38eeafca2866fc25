"""Where tokens come from and when they are renewed."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from graph.errors import (
    AirflowError,
    AirflowRefused,
    AirflowUnreachable,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
)
from tests.unit.airflow_server import HANG, RESET, answer, open_scripted
from tools.airflow_auth import DEFAULT_LIFE, PasswordLogin, life_of

START = datetime(2026, 1, 1, tzinfo=UTC)


def jwt(**claims: float) -> str:
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"


async def test_a_token_is_kept_while_it_is_young_and_renewed_before_it_is_old() -> None:
    now = START
    async with open_scripted(answer(200)) as airflow, httpx.AsyncClient(base_url=airflow.url) as http:
        airflow.login = [answer(201, {"access_token": jwt(iat=0, exp=1000)})]
        login = PasswordLogin(http, username="u", password="p", clock=lambda: now)
        first = await login.token()
        now = START + timedelta(seconds=799)
        second = await login.token()
        now = START + timedelta(seconds=800)
        third = await login.token()

    assert first == second != third


@pytest.mark.parametrize(
    ("said", "error"),
    [
        pytest.param(answer(401, {"detail": "no"}), NotAuthenticated, id="wrong password"),
        pytest.param(answer(403, {}), NotPermitted, id="forbidden"),
        pytest.param(answer(422, {}), InvalidRequest, id="an empty user name"),
        pytest.param(answer(418, {}), AirflowRefused, id="any other 4xx"),
        pytest.param(answer(404, {}), NotFound, id="not Airflow's address"),
        pytest.param(answer(429, {}), AirflowUnreachable, id="slow down"),
        pytest.param(answer(500, {}), AirflowUnreachable, id="500"),
        pytest.param(answer(200, "<html>", kind="text/html"), AirflowUnreachable, id="HTML"),
        pytest.param(answer(201, []), AirflowUnreachable, id="no token in it"),
        pytest.param(RESET, AirflowUnreachable, id="hung up"),
        pytest.param(HANG, AirflowUnreachable, id="no answer"),
    ],
)
async def test_a_failed_log_in_says_why_and_keeps_the_password(
    said: bytes, error: type[AirflowError]
) -> None:
    async with open_scripted(answer(404, {})) as airflow:
        airflow.login = [said]
        async with httpx.AsyncClient(base_url=airflow.url, timeout=0.3) as http:
            login = PasswordLogin(http, username="u", password="hunter2", clock=lambda: START)
            with pytest.raises(error, match="log in to Airflow") as caught:
                await login.token()

    assert type(caught.value) is error
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("token", "life"),
    [
        pytest.param(jwt(iat=100, exp=400), timedelta(seconds=300), id="by its claims"),
        pytest.param(jwt(iat=100, exp=50), timedelta(seconds=1), id="never negative"),
        pytest.param(jwt(exp=50), DEFAULT_LIFE, id="claims that do not tell"),
        pytest.param("opaque", DEFAULT_LIFE, id="not a JWT"),
        pytest.param("a.!!!.b", DEFAULT_LIFE, id="not base64"),
    ],
)
def test_life_of_a_token(token: str, life: timedelta) -> None:
    assert life_of(token) == life
