"""What policy counts of what was done lately."""

from __future__ import annotations

from pathlib import Path

from graph.domain import Outcome
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
