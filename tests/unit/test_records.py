"""What policy counts of what was done lately."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import insert

from graph.domain import Outcome, Status
from server.db.tables import ActionRow, EventRow, IncidentRow
from server.records import LOOKED_BACK, StoreRecords
from server.store import IncidentStore
from tests.factories import Clock, make_task
from tests.unit.healing_world import FAIL, GOOD, SAFE, Ward, make_airflow, open_ward
from tools.airflow_memory_state import TaskSpec

DAY = 86400  # seconds


async def play(ward: Ward, run_id: str) -> None:
    """A run fails, and all is done about it that is done without people."""
    ward.airflow.start("orders", run_id)
    await ward.airflow.settle()
    await ward.report(make_task(run_id=run_id))
    for _ in range(4):
        await ward.pass_time(600)


async def test_the_breaker_counts_by_when_a_heal_failed_not_by_when_people_closed_it(
    tmp_path: Path, clock: Clock
) -> None:
    async with open_ward(tmp_path, make_airflow(clock, FAIL), clock) as ward:
        for number in range(3):
            await play(ward, f"bad {number}")
            clock.forward(DAY)
        failed = await ward.service.store.incidents()
        assert {record.outcome for record in failed} == {Outcome.ESCALATED}
        ward.airflow.add_dag("orders", [TaskSpec("load", tries=(FAIL, GOOD))], tags=SAFE)
        await play(ward, "good 1")

        for record in failed:
            await ward.service.store.close(record.id, by="ada", reason="mended")
        await play(ward, "good 2")

        newest = (await ward.service.store.incidents())[0]
        assert newest.task.run_id == "good 2"
        assert newest.outcome is Outcome.HEALED, newest.decision


def ended(dag_id: str, outcome: Outcome, *, at: datetime, closed: datetime | None = None) -> dict[str, Any]:
    """The row of an incident on which one fix was tried."""
    status = Status.ESCALATED if outcome is Outcome.ESCALATED and closed is None else Status.CLOSED
    names = {"airflow": "default", "dag_id": dag_id, "run_id": "r", "task_id": "load", "attempt": 1}
    times = {"opened_at": at, "updated_at": closed or at, "closed_at": closed}
    return {**names, **times, "status": status.value, "outcome": outcome.value}


def sent(incident_id: int, dag_id: str, at: datetime) -> dict[str, Any]:
    """The row of its one write."""
    place = {"incident_id": incident_id, "attempt": 1, "position": 0, "key": f"airmedic:{incident_id}.1.0"}
    what = {"name": "clear_task", "dag_id": dag_id, "task_id": "load", "target": {}, "args": {}}
    return {
        **place,
        **what,
        "before": None,
        "after": None,
        "step": "confirmed",
        "sent_at": at,
        "intended_at": at,
    }


@pytest.mark.parametrize(
    ("between", "closed", "overall"),
    [
        pytest.param(Outcome.HEALED, False, 0, id="many heals of another DAG"),
        pytest.param(Outcome.ESCALATED, True, 3, id="many old ones that a person closed since"),
    ],
)
async def test_the_breaker_of_a_dag_stays_open_whatever_ended_after_its_failed_heals(
    clock: Clock, engine: AsyncEngine, store: IncidentStore, between: Outcome, closed: bool, overall: int
) -> None:
    now = clock()
    soon, old = now - timedelta(minutes=5), now - timedelta(days=3)
    others = {"at": old, "closed": now} if closed else {"at": now}
    rows = [
        ended("orders", Outcome.HEALED, at=now - timedelta(days=2)),
        *(ended("orders", Outcome.ESCALATED, at=soon) for _ in range(3)),
        *(ended("others", between, **others) for _ in range(LOOKED_BACK)),
    ]
    async with engine.begin() as connection:
        for number, row in enumerate(rows, 1):
            await connection.execute(insert(IncidentRow).values(id=number, **row))
            line = {"incident_id": number, "at": row["opened_at"], "name": "ended"}
            await connection.execute(insert(EventRow).values(**line))
            await connection.execute(insert(ActionRow).values(sent(number, row["dag_id"], row["opened_at"])))
    records = StoreRecords(engine, store=store, clock=clock, shadow=False)

    counters = await records.counters(make_task())

    assert (counters.failed_heals_dag, counters.last_failed_heal_dag) == (3, soon)
    assert counters.failed_heals == overall


@pytest.mark.parametrize(
    ("sent_after", "dag_id", "outcome", "trials"),
    [
        pytest.param(1, "orders", None, (1, 1), id="a heal that goes on"),
        pytest.param(1, "others", None, (1, 0), id="one of another DAG"),
        pytest.param(-1, "orders", None, (0, 0), id="one that began before the last failed one"),
        pytest.param(1, "orders", Outcome.EXPIRED, (0, 0), id="one that is over"),
    ],
)
async def test_heals_that_are_tried_after_the_last_failed_one_are_counted(
    clock: Clock,
    engine: AsyncEngine,
    store: IncidentStore,
    sent_after: int,
    dag_id: str,
    outcome: Outcome | None,
    trials: tuple[int, int],
) -> None:
    failed_at = clock() - timedelta(minutes=90)
    began = failed_at + timedelta(minutes=sent_after)
    own = {"run_id": make_task().run_id, "task_id": make_task().task_id}
    going = ended(dag_id, Outcome.ESCALATED, at=began) | {"outcome": outcome}
    rows = [
        ended("orders", Outcome.ESCALATED, at=failed_at),
        going,
        ended("orders", Outcome.ESCALATED, at=began) | {"outcome": None} | own,
    ]
    async with engine.begin() as connection:
        for number, row in enumerate(rows, 1):
            await connection.execute(insert(IncidentRow).values(id=number, **row))
            await connection.execute(insert(ActionRow).values(sent(number, row["dag_id"], row["opened_at"])))
    records = StoreRecords(engine, store=store, clock=clock, shadow=False)

    counters = await records.counters(make_task())

    assert (counters.trials, counters.trials_dag) == trials
