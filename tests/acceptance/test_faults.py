"""Faults of the catalogue on a real Airflow, judged at Airflow and at the warehouse."""

from __future__ import annotations

import asyncio
from datetime import datetime

import pytest

from evals.faults.catalogue import CATALOGUE
from evals.faults.injections import INJECTIONS
from evals.faults.play import Played, play
from evals.faults.stage import Arena
from evals.faults.world import GOOD_CONTRACT, PIPELINE, TASKS
from graph.domain import Door, Outcome, Status
from server.record import AgentEvent, IncidentRecord
from tests.acceptance.scene import Medic, Scene, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

DETECTED_WITHIN = 2.0  # seconds from the failure in Airflow to the first line of the incident
OURS_WITHIN = 1.0  # seconds from a final state and a complete log to the fix call
ENDS_WITHIN = 60.0  # seconds


def say_nothing(event: AgentEvent) -> None:
    """The live view that nobody watches."""


async def nobody(stage: Arena, incident: IncidentRecord) -> None:
    raise AssertionError(f"a person was asked: {incident.question}")


async def played(medic: Medic, number: str) -> Played:
    """Play a fault that asks nobody; it must end as the catalogue says."""
    result = await play(medic.stage, CATALOGUE[number], tell=say_nothing, ask=nobody)
    assert result.objections == ()
    return result


def run_of(result: Played) -> str:
    assert result.incident is not None
    return result.incident.task.run_id


async def test_f43_a_healthy_run_opens_no_incident_and_is_left_alone(scene: Scene, medic: Medic) -> None:
    result = await played(medic, "F43")

    # The listener may bring only now what an earlier run told while no server was there.
    incidents = await medic.stage.service.store.incidents()
    assert [one for one in incidents if one.task.run_id.startswith("f43")] == []
    assert medic.proxy.writes == []
    assert (result.data.expected, result.data.found) == (120, 120)


async def test_f01_a_source_that_was_away_is_healed_once_it_is_back(scene: Scene, medic: Medic) -> None:
    result = await played(medic, "F01")

    run_id = run_of(result)
    assert written(result.ledger) == [("clear_task", "confirmed")]
    assert [one.status for one in medic.proxy.clears(run_id)] == [200]
    assert medic.proxy.writes == medic.proxy.clears(run_id)
    assert await scene.clears(run_id, "fetch") == 1
    assert (await scene.tries(run_id, "fetch"))[-1] == "success"
    assert await _waited_for_airflows_own_tries(scene, medic, result)
    assert (result.data.expected, result.data.found) == (120, 120)
    assert result.timings.detect is not None
    assert result.timings.detect < DETECTED_WITHIN
    assert result.timings.own is not None
    assert result.timings.own < OURS_WITHIN


async def _waited_for_airflows_own_tries(scene: Scene, medic: Medic, result: Played) -> bool:
    """Whether the incident was known from the first try on, and written for only after the last one."""
    run_id = run_of(result)
    assert result.incident is not None
    told = await medic.api.incident(result.incident.id)
    tries = await scene.world.airflow.tries(PIPELINE, run_id, "fetch")
    sent = [one.sent_at for one in result.ledger if one.action.name == "clear_task"]
    used_up = datetime.fromisoformat(tries[1]["end_date"])
    return told.occurrences[0].try_number == 1 and all(at is not None and at > used_up for at in sent)


async def test_f22_a_load_killed_half_way_is_healed_and_no_row_comes_twice(
    scene: Scene, medic: Medic
) -> None:
    result = await played(medic, "F22")

    run_id = run_of(result)
    assert written(result.ledger) == [("clear_task", "confirmed")]
    assert medic.proxy.writes == medic.proxy.clears(run_id)
    assert await scene.clears(run_id, "load") == 1
    assert await scene.tries(run_id, "load") == ["failed", "failed", "success"]
    assert [await scene.tries(run_id, task) for task in TASKS[:3]] == [["success"]] * 3
    assert (result.data.expected, result.data.found) == (120, 120)


async def test_f26_a_code_error_is_handed_over_with_file_and_line_and_nothing_is_touched(
    scene: Scene, medic: Medic
) -> None:
    result = await played(medic, "F26")

    run_id = run_of(result)
    assert result.incident is not None
    assert result.ledger == ()
    assert medic.proxy.writes == []
    assert await scene.tries(run_id, "transform") == ["failed"]
    assert await scene.clears(run_id, "transform") == 0
    assert await scene.contract() == GOOD_CONTRACT
    assert result.data.found == 0
    where = result.incident.diagnosis.location if result.incident.diagnosis else None
    assert where is not None
    assert where.file.endswith("employees_transform.py")
    assert any(f"{where.file}:{where.line}" in line for line in result.incident.checklist)
    broken = INJECTIONS["F26"]
    await broken.inject(scene.world)
    line = (scene.world.layout.dags / "employees_transform.py").read_text().splitlines()[where.line - 1]
    assert line.strip() == 'label = row["salary"] + " EUR"'
    await broken.lift(scene.world)


async def test_f39_f44_what_airflow_will_repeat_is_watched_and_ends_as_its_own_recovery(
    scene: Scene, medic: Medic
) -> None:
    fault, world = INJECTIONS["F44"], scene.world
    await world.reset()
    await fault.inject(world)
    run_id = await world.trigger("f44")
    playing = asyncio.create_task(fault.play(world, run_id))

    watched = await medic.api.wait(run_id, lambda one: one.status is Status.WATCHING, within=ENDS_WITHIN)
    before = await scene.tries(run_id, "fetch")
    ended = await medic.api.wait(run_id, lambda one: one.status is Status.CLOSED, within=ENDS_WITHIN)
    await playing
    await world.airflow.wait_run(PIPELINE, run_id, within=ENDS_WITHIN)

    assert before[0] in {"up_for_retry", "failed"}
    assert (watched.diagnosis, watched.plan, watched.ledger) == (None, None, [])
    assert {one.door for one in ended.occurrences} == {Door.LISTENER}
    assert ended.outcome is Outcome.SELF_RECOVERED
    assert ended.ledger == []
    assert medic.proxy.writes == []
    assert await scene.tries(run_id, "fetch") == ["failed", "success"]
    assert await scene.clears(run_id, "fetch") == 0
    assert scene.rows(run_id).agrees
