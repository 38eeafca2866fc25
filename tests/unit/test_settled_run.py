"""A clear waits until the scheduler is done with the run: what Airflow loses, nobody runs again."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from graph.domain import Outcome, RunSnapshot, TaskRef, TaskSnapshot
from tests.factories import Clock
from tests.unit.healing_world import TASK, make_airflow, open_ward
from tools.airflow_memory_state import TaskSpec
from tools.gateway import AirflowGateway
from tools.gathering import RUN_READS, settled_run

OTHER = TASK.model_copy(update={"task_id": "report"})


class Passes:
    """An Airflow whose scheduler moves on with every look: (state of the run, state of the other task)."""

    def __init__(self, *passes: tuple[str, str]) -> None:
        self.passes = list(passes)
        self.looks = 0

    async def run(self, dag_id: str, run_id: str) -> RunSnapshot:
        self.looks += 1
        self.now = self.passes[min(self.looks, len(self.passes)) - 1]
        return RunSnapshot(dag_id=dag_id, run_id=run_id, state=self.now[0])

    async def run_tasks(self, dag_id: str, run_id: str) -> tuple[TaskSnapshot, ...]:
        states: list[tuple[TaskRef, str]] = [(TASK, "failed"), (OTHER, self.now[1])]
        return tuple(TaskSnapshot(task=task, state=state) for task, state in states)


@pytest.mark.parametrize(
    ("passes", "looks"),
    [
        pytest.param([("failed", "upstream_failed")], 1, id="the run has ended"),
        pytest.param([("running", "running")], 1, id="another branch is at work"),
        pytest.param(
            [("running", "none"), ("failed", "upstream_failed")], 2, id="the next pass ends the run"
        ),
        pytest.param([("running", "upstream_failed"), ("failed", "upstream_failed")], 2, id="about to end"),
        pytest.param([("running", "none")], RUN_READS, id="no scheduler: not for ever"),
    ],
)
async def test_it_waits_for_the_pass_that_ends_the_run(
    clock: Clock, passes: list[tuple[str, str]], looks: int
) -> None:
    airflow = Passes(*passes)
    await settled_run(cast(AirflowGateway, airflow), TASK, clock.sleep)
    assert airflow.looks == looks


async def test_a_clear_that_airflow_lost_goes_to_people_soon(tmp_path: Path, clock: Clock) -> None:
    airflow = make_airflow(clock, downstream=(TaskSpec("report"),))
    airflow.start("orders", "manual__1")
    await airflow.settle()
    async with open_ward(tmp_path, airflow, clock) as ward:
        await ward.report()
        airflow.auto = False
        await ward.pass_time(60)
        assert ward.writes() == 1
        airflow.lose_clear(TASK)
        await ward.pass_time(20)
        assert (await ward.only()).outcome is None

        await ward.pass_time(60)

        record = await ward.only()
    assert record.outcome is Outcome.ESCALATED
    assert "clear it once more" in record.reason
