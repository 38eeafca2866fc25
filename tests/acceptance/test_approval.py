"""A renamed column: a person is asked with a diff, and the question outlives the process that asked it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from copy import deepcopy
from difflib import unified_diff
from pathlib import Path

import pytest

from evals.faults.catalogue import CATALOGUE
from evals.faults.injections import INJECTIONS
from evals.faults.world import CONTRACT, GOOD_CONTRACT
from graph.domain import Outcome, Status
from server.schemas import IncidentDetailOut
from tests.acceptance.medic import open_medic_process
from tests.acceptance.proxy import Proxy
from tests.acceptance.scene import Scene, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(180)]

ASKED_WITHIN = 60.0  # seconds
HEALED_WITHIN = 60.0  # seconds


def asks(one: IncidentDetailOut) -> bool:
    return one.status is Status.WAITING_DECISION


async def test_f07_is_asked_with_a_diff_outlives_kill_9_and_is_healed_as_the_diff_said(
    scene: Scene, proxy: Proxy, tmp_path: Path
) -> None:
    world, fault = scene.world, INJECTIONS["F07"]
    port = scene.airflow.airmedic_port
    async with open_medic_process(scene.environment(proxy, tmp_path), port=port, home=tmp_path) as medic:
        await medic.start()
        await world.reset()
        await fault.inject(world)
        run_id = await world.trigger("f07")
        asked = await medic.api.wait(run_id, asks, within=ASKED_WITHIN)
        untouched = (proxy.writes, await scene.contract(), await scene.tries(run_id, "validate"))

        await medic.kill()
        await medic.start()
        again = await medic.api.incident(asked.id)
        late = await medic.api.decide(asked.id, type="approve", version=asked.version - 1)
        answer = await medic.api.decide(asked.id, type="approve", version=asked.version)
        twice = await medic.api.decide(asked.id, type="reject", version=asked.version)
        ended = await medic.api.wait(run_id, lambda one: one.outcome is not None, within=HEALED_WITHIN)

    assert untouched == ([], GOOD_CONTRACT, ["failed"])
    assert asked.root_cause in CATALOGUE["F07"].causes
    assert (again.status, again.version, again.question) == (asked.status, asked.version, asked.question)
    assert (late.status_code, answer.status_code, twice.status_code) == (409, 202, 409)
    assert (ended.status, ended.outcome) == (Status.CLOSED, Outcome.HEALED)
    assert written(ended.ledger) == [("set_variable", "confirmed"), ("clear_task", "confirmed")]
    changed = [one for one in proxy.writes if one not in proxy.clears(run_id)]
    assert [(one.request.method, one.request.path.split("?")[0]) for one in changed] == [
        ("PATCH", f"/api/v2/variables/{CONTRACT}")
    ]
    assert await scene.clears(run_id, "validate") == len(proxy.clears(run_id)) == 1
    assert await scene.tries(run_id, "validate") == ["failed", "success"]
    assert scene.rows(run_id).agrees
    await _changed_as_shown(scene, asked)


async def _changed_as_shown(scene: Scene, asked: IncidentDetailOut) -> None:
    """The Variable differs from the old contract by the diff's lines and by nothing else."""
    assert asked.question is not None
    now = await scene.contract()
    expected = deepcopy(GOOD_CONTRACT)
    expected["columns"]["email"]["source"] = "email_address"
    assert now == expected
    changed = unified_diff(_lines(GOOD_CONTRACT), _lines(now), lineterm="")
    assert _changes(str(asked.question["diff"]).splitlines()) == _changes(changed)


def _lines(contract: object) -> list[str]:
    return json.dumps(contract, indent=2).splitlines()


def _changes(diff: Iterable[str]) -> list[str]:
    return [line for line in diff if line[:1] in {"+", "-"} and line[:3] not in {"+++", "---"}]
