"""Faults of the catalogue on the in-memory Airflow: the demo's own code, a few seconds each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from cli.eval_faults import Where, chosen
from evals.faults.catalogue import CATALOGUE
from evals.faults.injections import INJECTIONS
from evals.faults.twin import TwinGround, open_twin, play_on_twin
from evals.faults.twin_rows import NOT_IN_MEMORY
from graph.errors import SettingsInvalid

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120)]

# One of each kind of ending: healed alone, after a question, by a person; handed over; watched; nothing.
QUICK = ("F03", "F12", "F24", "F25", "F28", "F39", "F43")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ground(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TwinGround]:
    async with open_twin(tmp_path_factory.mktemp("twin")) as ground:
        yield ground


@pytest.mark.parametrize("number", QUICK)
async def test_a_fault_ends_as_the_catalogue_says(ground: TwinGround, number: str) -> None:
    result = await play_on_twin(ground, CATALOGUE[number], 1)

    assert (result.failed, result.objections, result.harmful) == ("", (), ())


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        pytest.param("F07", {"policy_ask"}, id="what was asked, and why"),
        pytest.param("F26", {"policy_never"}, id="why running it again unchanged is never allowed"),
        pytest.param("F35", {"world", "ledger"}, id="the world before and after a plan that did not help"),
    ],
)
async def test_a_fault_that_has_something_to_show(ground: TwinGround, number: str, shown: set[str]) -> None:
    result = await play_on_twin(ground, CATALOGUE[number], 1)

    assert (result.failed, result.objections, result.harmful) == ("", (), ())
    assert set(result.exhibits) == shown
    world = result.exhibits.get("world")
    if isinstance(world, dict):
        assert world["question 2"] == world["before"] != world["after"]


async def test_what_cannot_be_played_there_is_named_with_the_reason() -> None:
    assert {row.id for row in chosen(None, Where.MEMORY)} == set(INJECTIONS) - set(NOT_IN_MEMORY)
    with pytest.raises(SettingsInvalid, match=r"F42 cannot be played on this Airflow: it lives in"):
        chosen("F42", Where.MEMORY)


async def test_a_result_without_times_of_our_own(ground: TwinGround, tmp_path: Path) -> None:
    result = await play_on_twin(ground, CATALOGUE["F06"], 1)

    assert (result.own, result.detect, result.right) == (None, None, True)
