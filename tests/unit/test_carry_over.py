"""A SQLite store is carried over to Postgres: what was there is there, and new rows come behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from typer.testing import CliRunner

from cli.migrate import app
from graph.domain import Door
from graph.errors import SettingsInvalid
from server.db.carry_over import carry_over
from server.db.database import open_database
from server.record import Lease
from server.store import IncidentStore
from tests.factories import Clock, make_failure, make_snapshot


async def fill(url: str, clock: Clock) -> int:
    async with open_database(url) as engine:
        store = IncidentStore(engine, clock=clock)
        await store.accept([make_failure()], door=Door.POLL)
        (occurrence,) = await store.new_occurrences()
        incident_id, _ = await store.open_incident(occurrence, make_snapshot(), data={"kind": "failure"})
        await store.claim_due(owner="old", limit=1)
        await store.put_log("the log")
        return incident_id


async def test_everything_is_carried_over(new_database: Callable[[str], str], clock: Clock) -> None:
    old, new = new_database("sqlite"), new_database("postgres")
    incident_id = await fill(old, clock)

    counts = await carry_over(old, new)

    assert (counts["incident"], counts["occurrence"], counts["event"], counts["log"]) == (1, 1, 1, 1)
    async with open_database(new) as engine:
        store = IncidentStore(engine, clock=clock)
        assert (await store.incident(incident_id)).task == make_failure().task
        (lease,) = await store.claim_due(owner="new", limit=1)
        assert lease == Lease(incident_id=incident_id, epoch=2, owner="new", since=clock())
        await store.accept([make_failure(dag_id="another")], door=Door.POLL)
        (occurrence,) = await store.new_occurrences()
        assert (await store.open_incident(occurrence, make_snapshot()))[0] > incident_id


async def test_a_database_in_use_is_left_alone(new_database: Callable[[str], str], clock: Clock) -> None:
    old, new = new_database("sqlite"), new_database("postgres")
    await fill(old, clock)
    await fill(new, clock)

    with pytest.raises(SettingsInvalid, match="in use"):
        await carry_over(old, new)


def test_check_says_whether_the_schema_is_behind(
    new_database: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRMEDIC_DATABASE_URL", new_database("sqlite"))
    runner = CliRunner()

    assert runner.invoke(app, ["--check"]).exit_code == 1
    assert runner.invoke(app, []).exit_code == 0
    assert runner.invoke(app, ["--check"]).exit_code == 0
