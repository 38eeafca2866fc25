"""The doctor on the service itself: tokens, queue, early warnings, probes, traces."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from cli.doctor import Finding, Level, examine
from cli.doctor_service import check_service
from graph.domain import Door, Role
from server.access.tokens import TokenStore
from server.db.database import open_database
from server.store import IncidentStore
from tests.factories import make_failure
from tests.unit.serving import Wall, make_settings


async def look(folder: Path, environ: dict[str, str] | None = None, **given: str) -> dict[str, Finding]:
    found = check_service(make_settings(folder, **given), environ or {})
    return {finding.check: finding async for finding in found}


async def test_without_a_database_only_what_needs_none_is_looked_at(tmp_path: Path) -> None:
    assert set(await look(tmp_path)) == {"start", "probes", "traces"}


async def test_a_healthy_service(tmp_path: Path) -> None:
    clock = Wall()
    async with open_database(f"sqlite:///{tmp_path / 'airmedic.db'}") as engine:
        await TokenStore(engine, clock=clock).create("ops", Role.OPERATOR, life=timedelta(days=90))

    found = await look(tmp_path)

    assert {name for name, one in found.items() if one.level is not Level.OK} == {"probes"}
    assert found["tokens"].seen == "1 in use, roles: operator"


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
async def test_who_may_call_counts_the_tokens_of_the_database(tmp_path: Path, host: str) -> None:
    async with open_database(f"sqlite:///{tmp_path / 'airmedic.db'}") as engine:
        await TokenStore(engine, clock=Wall()).create("ops", Role.OPERATOR, life=timedelta(days=90))

    settings = make_settings(tmp_path, host=host, webhook_secret="x" * 64)
    found = {finding.check: finding async for finding in examine(settings)}

    assert found["access"].level is Level.OK, found["access"]


@pytest.mark.parametrize(
    "given",
    [
        {"rate_token": "often"},
        {"cors_origins": "here"},
        {"redis_url": "http://x"},
        {"oidc_issuer": "https://id.example.com"},
        {"knowledge": "README.md"},
    ],
    ids=lambda given: next(iter(given)),
)
async def test_what_would_stop_the_start_is_found(tmp_path: Path, given: dict[str, str]) -> None:
    found = (await look(tmp_path, {}, **given))["start"]

    assert found.level is Level.FAIL
    assert f"AIRMEDIC_{next(iter(given)).split('_')[0].upper()}" in found.seen + found.todo


async def test_a_sick_service(tmp_path: Path) -> None:
    past = Wall()
    past.ahead = -timedelta(days=2)
    async with open_database(f"sqlite:///{tmp_path / 'airmedic.db'}") as engine:
        await TokenStore(engine, clock=past).create("ops", Role.OPERATOR, life=timedelta(days=1))
        await IncidentStore(engine, clock=past).accept([make_failure()], door=Door.WEBHOOK)

    found = await look(tmp_path, {"LANGSMITH_TRACING": "true"}, probes="127.0.0.1:1")

    assert found["tokens"].level is Level.FAIL
    assert found["queue"].level is Level.FAIL
    assert "airmedic serve" in found["queue"].todo
    assert found["probe: tcp://127.0.0.1:1"].level is Level.WARN
    assert found["traces"].level is Level.WARN


async def test_a_probe_that_answers(tmp_path: Path) -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        found = await look(tmp_path, probes=f"127.0.0.1:{port}")

    assert found[f"probe: tcp://127.0.0.1:{port}"].level is Level.OK


@pytest.mark.parametrize("given", ["no port", "ftp://x"])
async def test_a_probe_that_is_spelled_wrongly(tmp_path: Path, given: str) -> None:
    assert (await look(tmp_path, probes=given))["probes"].level is Level.FAIL
