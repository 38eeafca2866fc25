"""The kill switch and shadow mode, while the service runs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import JsonValue

from graph.domain import (
    AnswerKind,
    ColumnProblem,
    DataReport,
    Facts,
    Outcome,
    Remediation,
    RootCause,
    Status,
)
from server.app import create_app
from server.records import CONTROL
from tests.factories import Clock, make_diagnosis
from tests.unit.healing_world import FAIL, GOOD, SAFE, Ward, make_airflow, open_ward
from tools.airflow_memory_state import TaskSpec


@pytest.mark.parametrize(
    ("switch", "word"),
    [
        pytest.param({"paused": True}, "kill switch", id="paused"),
        pytest.param({"shadow": True}, "shadow", id="shadow"),
    ],
)
async def test_a_switch_thrown_before_the_fix_stops_it(
    tmp_path: Path, clock: Clock, switch: dict[str, bool], word: str
) -> None:
    airflow = make_airflow(clock)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        assert (await ward.only()).status is Status.WAITING_TIMER
        app = create_app(ward.service.settings)
        app.state.service = ward.service
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.post("/api/control", json=switch)
            assert answer.status_code == 200, answer.text
            shown = (await client.get("/api/control")).json()
            assert shown == {"paused": False, "shadow": False, "by": "local operator", **switch}
        await ward.pass_time(60)

        record = await ward.only()
        assert airflow.writes == []
        assert record.outcome is Outcome.ESCALATED
        assert word in record.reason


NAME = "airmedic_contract_orders"
BEFORE = json.dumps({"version": 1, "columns": {"mail": {"type": "string", "required": True}}})
WRONG = json.dumps({"version": 1, "columns": {"mail": {"type": "string", "source": "name"}}})
DRIFT = make_diagnosis(
    root_cause=RootCause.SCHEMA_DRIFT,
    transient=False,
    remediation=Remediation.ADAPT_SCHEMA,
    facts=Facts(
        report=DataReport(
            contract=NAME,
            satisfied=False,
            problems=(
                ColumnProblem(kind="missing", column="mail", expected="string"),
                ColumnProblem(kind="unexpected", column="mail_address", found="string", required=False),
            ),
        )
    ),
)


@pytest.mark.parametrize("switch", [{"paused": True}, {"shadow": True}], ids=["paused", "shadow"])
async def test_what_did_not_help_is_taken_back_only_when_writing_is_allowed_again(
    tmp_path: Path, clock: Clock, switch: dict[str, JsonValue]
) -> None:
    tags = (*SAFE, f"airmedic:contract={NAME}")
    airflow = make_airflow(clock, FAIL, FAIL, tags=tags, auto=False)
    airflow.add_variable(NAME, BEFORE)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, DRIFT) as ward:
        await ward.report()
        await ward.answer(AnswerKind.EDIT, args=({"value": WRONG}, {"downstream": True}))
        await ward.service.store.remember(CONTROL, switch)
        written = len(airflow.writes)
        await airflow.settle()
        for _ in range(3):
            await ward.pass_time(60)

        assert len(airflow.writes) == written
        assert (await airflow.variable(NAME)).value == WRONG
        assert (await ward.only()).status is Status.WAITING_TIMER
        held = [event for event in (await ward.detail()).events if event.name == "waiting"]
        assert "nothing is written" in str(held[-1].data)

        await ward.service.store.remember(CONTROL, {"paused": False, "shadow": False})
        await ward.pass_time(60)

        assert (await airflow.variable(NAME)).value == BEFORE


MISSING = make_diagnosis(
    root_cause=RootCause.MISSING_DATA, transient=False, remediation=Remediation.RERUN_UPSTREAM
)


@asynccontextmanager
async def ward_that_began(tmp_path: Path, clock: Clock, **settings: Any) -> AsyncIterator[Ward]:
    """A run of `feed` was started for the input of `orders`, and nobody runs it yet."""
    airflow = make_airflow(clock, FAIL, GOOD, tags=(*SAFE, "airmedic:upstream=feed"), auto=False)
    airflow.add_dag("feed", [TaskSpec("publish", tries=(GOOD,))], tags=SAFE)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock, MISSING, **settings) as ward:
        await ward.report()
        await ward.answer(AnswerKind.APPROVE)
        assert [write.verb for write in airflow.writes] == ["trigger"]
        yield ward


async def test_a_plan_that_waits_for_airflow_goes_on_only_when_writing_is_allowed_again(
    tmp_path: Path, clock: Clock
) -> None:
    async with ward_that_began(tmp_path, clock) as ward:
        airflow = ward.airflow
        await ward.service.store.remember(CONTROL, {"paused": True})
        await airflow.settle()
        for _ in range(3):
            await ward.pass_time(60)
        assert [write.verb for write in airflow.writes] == ["trigger"]
        assert (await ward.only()).status is Status.WAITING_TIMER

        await ward.service.store.remember(CONTROL, {"paused": False})
        await ward.pass_time(60)
        await airflow.settle()
        for _ in range(2):
            await ward.pass_time(60)

        assert [write.verb for write in airflow.writes] == ["trigger", "clear"]
        assert (await ward.only()).outcome is Outcome.HEALED


async def test_a_window_in_which_nothing_is_done_holds_what_was_begun(tmp_path: Path, clock: Clock) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "version: 1\nmaintenance: [{name: night, hours: {from: '03:30', to: '05:00'}, verdict: never}]\n"
    )
    async with ward_that_began(tmp_path, clock, policy=policy) as ward:
        await ward.pass_time(3600)
        await ward.airflow.settle()
        await ward.pass_time(60)
        assert ward.writes() == 0
        held = [event for event in (await ward.detail()).events if event.name == "waiting"]
        assert "maintenance 'night'" in str(held[-1].data)

        await ward.pass_time(3600)
        await ward.airflow.settle()
        await ward.pass_time(60)
        await ward.pass_time(60)

        assert ward.writes() == 1
        assert (await ward.only()).outcome is Outcome.HEALED


async def test_a_run_that_never_ends_is_not_waited_for_for_ever(tmp_path: Path, clock: Clock) -> None:
    async with ward_that_began(tmp_path, clock) as ward:
        ward.airflow.change_dag("feed", is_paused=True)
        await ward.pass_time(86_000)
        assert (await ward.only()).status is Status.WAITING_TIMER

        await ward.pass_time(600)

        record = await ward.only()
        assert record.outcome is Outcome.ESCALATED
        assert "start a run of DAG 'feed', and has not ended within" in record.reason
        assert ward.writes() == 0


async def test_what_changed_nothing_needs_no_permission_to_be_given_up(tmp_path: Path, clock: Clock) -> None:
    """A plan that only ran the task again leaves nothing to take back: people hear of it at once."""
    airflow = make_airflow(clock, FAIL, FAIL, auto=False)
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        await ward.pass_time(60)
        assert ward.writes() == 1
        await ward.service.store.remember(CONTROL, {"paused": True})
        await airflow.settle()
        await ward.pass_time(60)

        record = await ward.only()
        assert ward.writes() == 1
        assert record.outcome is Outcome.ESCALATED
