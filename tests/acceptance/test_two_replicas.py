"""Two `airmedic serve` on one Postgres heal the real pipeline; the one that writes first dies in the middle.

It gets no answer to its clear, and is killed by SIGKILL. The other must find out, take over what the dead one
held, read back what became of the clear, and heal every run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from evals.faults.injections import INJECTIONS
from evals.faults.sandbox import free_port
from graph.domain import Outcome, Status
from server.schemas import IncidentDetailOut
from tests.acceptance.medic import MedicProcess, open_medic_process
from tests.acceptance.proxy import Fate, Proxy, Request, open_proxy
from tests.acceptance.scene import Scene, written

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]

RUNS = 4
WITHIN = 60.0  # seconds until every run has failed and waits
TAKEN_OVER = 90.0  # seconds for the other one to heal every run


class Trap:
    """The first clear that anybody sends reaches Airflow, and its answer is kept back; all else passes."""

    def __init__(self) -> None:
        self._set = True

    def rule(self, request: Request) -> Fate:
        if not (request.is_clear and self._set):
            return Fate.PASS
        self._set = False
        return Fate.SWALLOW


@asynccontextmanager
async def open_replicas(
    scene: Scene, database_url: str, home: Path
) -> AsyncIterator[list[tuple[MedicProcess, Proxy]]]:
    """Two replicas, the first where the listener expects it; each sees Airflow through a proxy of its own."""
    trap = Trap()
    async with AsyncExitStack() as stack:
        replicas = []
        for number, port in enumerate((scene.airflow.airmedic_port, free_port())):
            folder = home / str(number)
            folder.mkdir()
            proxy = await stack.enter_async_context(open_proxy(scene.airflow.sandbox.url))
            proxy.rule = trap.rule
            settings = scene.environment(proxy, folder) | {"AIRMEDIC_DATABASE_URL": database_url}
            medic = await stack.enter_async_context(open_medic_process(settings, port=port, home=folder))
            await medic.start()
            replicas.append((medic, proxy))
        yield replicas


def waits(one: IncidentDetailOut) -> bool:
    return one.status is Status.WAITING_TIMER


def over(one: IncidentDetailOut) -> bool:
    return one.outcome is not None


def story(one: IncidentDetailOut) -> str:
    """What befell it and when, for a test that finds it otherwise than expected."""
    events = [f"{event.at:%X} {event.node} {event.name} {event.data}" for event in one.events]
    return "\n".join([f"incident {one.id}", *events, *(str(entry) for entry in one.ledger)])


async def test_what_a_killed_replica_held_is_healed_by_the_other_and_written_once(
    scene: Scene, new_database: Callable[[str], str], tmp_path: Path
) -> None:
    async with open_replicas(scene, new_database("postgres"), tmp_path) as replicas:
        await scene.world.reset()
        await INJECTIONS["F03"].inject(scene.world)
        runs = [await scene.world.trigger("replicas") for _ in range(RUNS)]
        for run in runs:
            await replicas[0][0].api.wait(run, waits, within=WITHIN)
        await INJECTIONS["F03"].lift(scene.world)
        lifted = datetime.now(UTC)

        dead, survivor = await kill_the_first_writer(replicas)
        ended = [await survivor[0].api.wait(run, over, within=TAKEN_OVER) for run in runs]

    (held,) = [one for one in dead[1].passed if one.fate is Fate.SWALLOW]
    assert held.status == 200
    for run, incident in zip(runs, ended, strict=True):
        assert (incident.status, incident.outcome) == (Status.CLOSED, Outcome.HEALED), story(incident)
        assert written(incident.ledger) == [("clear_task", "confirmed")]
        sent = dead[1].clears(run) + survivor[1].clears(run)
        assert len([one for one in sent if one.status == 200]) == 1
        # Airflow's log names the request before it is carried out: one that it then refused stands there too.
        assert 1 <= await scene.clears(run, "fetch") <= len(sent)
        # On a busy machine the first wait may end while the last run still fails: that try fails once more.
        assert {*(await scene.tries(run, "fetch"))[:-1]} == {"failed"}
        assert await scene.tries(run, "fetch", since=lifted) == ["success"]
        assert scene.rows(run).agrees


async def kill_the_first_writer(
    replicas: list[tuple[MedicProcess, Proxy]],
) -> tuple[tuple[MedicProcess, Proxy], tuple[MedicProcess, Proxy]]:
    """Kill whoever waits for the answer that is kept back; the dead one and the other."""
    waiting = [asyncio.create_task(proxy.caught(1)) for _, proxy in replicas]
    done, pending = await asyncio.wait(waiting, timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
    for one in pending:
        one.cancel()
    assert done, "nobody has sent a clear"
    first = waiting.index(done.pop())
    dead, survivor = replicas[first], replicas[1 - first]
    await dead[0].kill()
    return dead, survivor
