"""kill -9 while a plan waits, then again at the worst moment: the write is sent, its answer not recorded.

One story is played, with two runs that fail together; the tests look at what became of them. Of one clear
Airflow's answer is kept back, the other never reaches Airflow: to the process they look the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime

import pytest
import pytest_asyncio

from evals.faults.injections import INJECTIONS
from graph.domain import Outcome, Status
from server.schemas import IncidentDetailOut
from tests.acceptance.medic import MedicProcess, open_medic_process
from tests.acceptance.proxy import Fate, Passed, Proxy, Request, open_proxy, pass_all
from tests.acceptance.scene import Scene, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

WITHIN = 60.0  # seconds for each step of the story
LEASE_AND_RUN = 90.0  # seconds: a dead process's lease runs out, then the runs go through


class Trap:
    """Lets the first clear of each run meet its fate, and everything else pass."""

    def __init__(self, fates: dict[str, Fate]) -> None:
        self._fates = dict(fates)

    def rule(self, request: Request) -> Fate:
        return self._fates.pop(request.json["dag_run_id"], Fate.PASS) if request.is_clear else Fate.PASS


@dataclass(frozen=True)
class Told:
    """What is known of one of the two runs at the end."""

    run_id: str
    waiting: IncidentDetailOut  #: before the first kill
    resumed: IncidentDetailOut  #: after it
    doubtful: IncidentDetailOut  #: after the second kill
    ended: IncidentDetailOut
    clears: list[Passed]  #: that Airmedic sent


Story = dict[Fate, Told]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def story(scene: Scene, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Story]:
    home, port = tmp_path_factory.mktemp("killed"), scene.airflow.airmedic_port
    async with (
        open_proxy(scene.airflow.sandbox.url) as proxy,
        open_medic_process(scene.environment(proxy, home), port=port, home=home) as medic,
    ):
        await medic.start()
        yield await tell(scene, proxy, medic)


async def tell(scene: Scene, proxy: Proxy, medic: MedicProcess) -> Story:
    """Two runs fail, wait, are being healed, and the process dies twice."""
    runs = await fail_twice(scene)
    waiting = [await medic.api.wait(run, waits, within=WITHIN) for run in runs.values()]
    await INJECTIONS["F03"].lift(scene.world)
    await medic.kill()

    proxy.rule = Trap({run: fate for fate, run in runs.items()}).rule
    await medic.start()
    resumed = [await medic.api.incident(one.id) for one in waiting]
    async with asyncio.timeout(WITHIN):
        await proxy.caught(len(runs))
    await medic.kill()

    proxy.rule = pass_all
    await medic.start()
    doubtful = [await medic.api.incident(one.id) for one in waiting]
    ended = [await medic.api.wait(run, over, within=LEASE_AND_RUN) for run in runs.values()]
    rows = zip(runs.items(), waiting, resumed, doubtful, ended, strict=True)
    return {
        fate: Told(run, before, after, doubt, end, proxy.clears(run))
        for (fate, run), before, after, doubt, end in rows
    }


async def fail_twice(scene: Scene) -> dict[Fate, str]:
    """One run for each fate; both fail because the source is busy."""
    await scene.world.reset()
    await INJECTIONS["F03"].inject(scene.world)
    return {fate: await scene.world.trigger(fate.value) for fate in (Fate.SWALLOW, Fate.LOSE)}


def waits(one: IncidentDetailOut) -> bool:
    return one.status is Status.WAITING_TIMER


def over(one: IncidentDetailOut) -> bool:
    return one.outcome is not None


async def test_a_plan_that_waited_for_its_time_goes_on_in_the_next_process(
    scene: Scene, story: Story
) -> None:
    for told in story.values():
        assert told.waiting.plan is not None
        assert (told.resumed.status, told.resumed.plan) == (Status.WAITING_TIMER, told.waiting.plan)
        assert told.resumed.ledger == []
        assert [event.name for event in told.ended.events].count("opened") == 1
        (applied,) = [event for event in told.ended.events if event.name == "fix_applied"]
        assert isinstance(applied.data, dict)
        assert told.waiting.wake_at is not None
        assert datetime.fromisoformat(str(applied.data["began_at"])) >= told.waiting.wake_at


@pytest.mark.parametrize(
    ("fate", "sent"),
    [
        pytest.param(Fate.SWALLOW, [Fate.SWALLOW], id="one that Airflow took is not sent again"),
        pytest.param(Fate.LOSE, [Fate.LOSE, Fate.PASS], id="one that never arrived is sent again"),
    ],
)
async def test_a_write_whose_answer_nobody_recorded_happens_once(
    scene: Scene, story: Story, fate: Fate, sent: list[Fate]
) -> None:
    told = story[fate]

    assert written(told.doubtful.ledger) == [("clear_task", "sent")]
    taken = [one for one in told.clears if not one.refused]
    assert [one.fate for one in taken] == sent
    assert [one.status for one in taken if one.status is not None] == [200]
    # Airflow's log names a request before it is carried out: one that it then refused stands there too.
    refused = len(told.clears) - len(taken)
    assert 1 <= await scene.clears(told.run_id, "fetch") <= 1 + refused
    assert await scene.tries(told.run_id, "fetch") == ["failed", "failed", "success"]
    assert (told.ended.status, told.ended.outcome) == (Status.CLOSED, Outcome.HEALED)
    assert written(told.ended.ledger) == [("clear_task", "confirmed")]
    assert scene.rows(told.run_id).agrees
