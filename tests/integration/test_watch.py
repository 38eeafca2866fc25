"""The watch on a real Airflow: a DAG paused by mistake, and a task that runs on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from graph.domain import Answer, AnswerKind, Outcome, RunSnapshot, Status
from graph.errors import AirflowUnreachable
from server.record import IncidentRecord
from server.service import Service, open_service
from server.settings import load_settings
from tests.conftest import AirflowUnderTest
from tools.durations import GOOD_RUNS

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

EVERY = timedelta(seconds=10)
CLOCK = "contract_clock"


@asynccontextmanager
async def watching(airflow: AirflowUnderTest, folder: Path, **given: object) -> AsyncIterator[Service]:
    """An Airmedic that looks around every few seconds."""
    sandbox = airflow.sandbox
    settings = load_settings(
        {},
        _env_file=None,
        AIRMEDIC_AIRFLOW_URL=sandbox.url,
        AIRMEDIC_AIRFLOW_USERNAME=sandbox.username,
        AIRMEDIC_AIRFLOW_PASSWORD=sandbox.password,
        database_url=f"sqlite:///{folder / 'watch.db'}",
        log_file=None,
        healing="on",
        watch_interval=timedelta(seconds=3),
        poll_interval=timedelta(seconds=2),
        watch_window=timedelta(seconds=3),
        **given,
    )
    async with open_service(settings) as service:
        yield service


async def until(ready: Callable[[], Awaitable[bool]], *, within: float = 120.0) -> None:
    async with asyncio.timeout(within):
        while True:
            with suppress(AirflowUnreachable):  # a busy machine: ask again
                if await ready():
                    return
            await asyncio.sleep(0.5)


async def incident(service: Service, dag_id: str) -> IncidentRecord | None:
    found = await service.store.incidents(dag_id=dag_id)
    return found[0] if found else None


async def by_the_clock(service: Service) -> list[RunSnapshot]:
    return [one for one in await service.airflow.recent_runs(CLOCK, limit=50) if one.logical_date]


async def test_a_dag_paused_by_mistake_is_unpaused_and_its_missed_runs_are_made_once(
    airflow_sandbox: AirflowUnderTest, tmp_path: Path
) -> None:
    await airflow_sandbox.sandbox.wait_dag(CLOCK)
    async with watching(airflow_sandbox, tmp_path) as service:
        await service.airflow.set_paused(CLOCK, paused=False)

        async def has_run() -> bool:
            return sum(one.state == "success" for one in await by_the_clock(service)) >= 2

        async def asked() -> bool:
            record = await incident(service, CLOCK)
            return record is not None and record.status is Status.WAITING_DECISION

        async def over() -> bool:
            record = await incident(service, CLOCK)
            return record is not None and record.outcome is not None

        try:
            await until(has_run)
            await service.airflow.set_paused(CLOCK, paused=True)
            await until(asked)
            record = await incident(service, CLOCK)
            assert record is not None
            assert record.kind == "missed_schedule"
            await asyncio.sleep(EVERY.total_seconds() + 1)  # one more is missed before anybody answers
            yes = Answer(kind=AnswerKind.APPROVE, by="ada")
            await service.store.answer(record.id, version=record.version, answer=yes)
            service.runner.ring()
            await until(over)

            record = await incident(service, CLOCK)
            assert record is not None
            assert record.outcome is Outcome.HEALED, record.reason
        finally:
            await service.airflow.set_paused(CLOCK, paused=True)
        first = datetime.fromisoformat(record.task.run_id.removeprefix("missed__"))
        dates = [one.logical_date for one in await by_the_clock(service) if one.logical_date]
        since = sorted(one for one in dates if one >= first)
        # A busy machine may skip some before; from the first missed one on each is there, and once.
        assert since == [first + EVERY * number for number in range(len(since))]
        ledger = (await service.store.detail(record.id)).ledger
        assert [entry.action.name for entry in ledger] == ["backfill", "unpause_dag"]


async def test_a_task_that_runs_on_is_found_by_its_own_past(
    airflow_sandbox: AirflowUnderTest, tmp_path: Path
) -> None:
    pace = "contract_pace"
    await airflow_sandbox.sandbox.wait_dag(pace)
    async with watching(airflow_sandbox, tmp_path, overrun_after=timedelta(seconds=3)) as service:
        airflow = service.airflow
        for number in range(GOOD_RUNS):
            await airflow.trigger(pace, run_id=f"good_{number}")

        async def all_good() -> bool:
            return all(one.state == "success" for one in await airflow.recent_runs(pace))

        await until(all_good)
        await airflow.trigger(pace, run_id="slow", conf={"seconds": 60})

        async def handed_over() -> bool:
            record = await incident(service, pace)
            return record is not None and record.outcome is not None

        await until(handed_over)
        record = await incident(service, pace)
        assert record is not None
        assert (record.kind, record.task.run_id) == ("stuck_running", "slow")
        assert record.outcome is Outcome.ESCALATED
        assert record.diagnosis is not None
        assert "its last 5 good runs took" in record.diagnosis.summary
        assert (await service.store.detail(record.id)).ledger == ()
