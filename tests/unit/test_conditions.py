"""Whether what Airmedic depends on is well: believed when two looks agree, told once. On both databases."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from graph.domain import Severity
from server.people.conditions import Conditions, Seen
from server.people.notifier import Notice
from tests.factories import Clock


class Pile:
    """A post that only piles up."""

    def __init__(self) -> None:
        self.notices: list[Notice] = []

    async def post(self, connection: AsyncConnection, notice: Notice) -> bool:
        self.notices.append(notice)
        return True


@pytest.fixture
def pile() -> Pile:
    return Pile()


@pytest.fixture
def conditions(engine: AsyncEngine, clock: Clock, pile: Pile) -> Conditions:
    return Conditions(engine, post=pile, clock=clock)


def seen(*, unwell: bool = True, name: str = "Airflow", detail: str = "no answer") -> Seen:
    return Seen(name=name, unwell=unwell, detail=detail, severity=Severity.CRITICAL)


ILL, WELL = seen(), seen(unwell=False, detail="it answers")


@pytest.mark.parametrize(
    ("looks", "told"),
    [
        pytest.param([ILL], [], id="one look is not believed"),
        pytest.param([ILL, ILL], ["unwell"], id="two that agree are"),
        pytest.param([ILL, WELL, ILL], [], id="two that do not follow each other are not"),
        pytest.param([ILL, WELL, ILL, ILL], ["unwell"], id="and are counted afresh"),
        pytest.param([ILL] * 9, ["unwell"], id="it is told once"),
        pytest.param([WELL] * 9, [], id="what was never unwell is not told to be well"),
        pytest.param([ILL, ILL, WELL], ["unwell"], id="nor is it well again after one look"),
        pytest.param([ILL, ILL, WELL, ILL, WELL], ["unwell"], id="nor after two that do not follow"),
        pytest.param([ILL, ILL, WELL, WELL], ["unwell", "well_again"], id="well again"),
        pytest.param(
            [ILL, ILL, WELL, WELL, ILL, ILL], ["unwell", "well_again", "unwell"], id="and ill again"
        ),
    ],
)
async def test_a_change_is_told_once_when_it_is_believed(
    conditions: Conditions, pile: Pile, looks: list[Seen], told: list[str]
) -> None:
    changed = [await conditions.report(look) for look in looks]

    assert [notice.event for notice in pile.notices] == told
    assert sum(changed) == len(told)
    assert len({notice.key for notice in pile.notices}) == len(told)


async def test_each_thing_is_counted_for_itself(conditions: Conditions, pile: Pile) -> None:
    await conditions.report(seen(name="Airflow"))
    await conditions.report(seen(name="the model"))

    assert pile.notices == []
    await conditions.report(seen(name="the model", detail="quota used up"))
    assert await conditions.unwell() == {"the model": "quota used up"}


async def test_two_processes_tell_it_once(engine: AsyncEngine, clock: Clock, pile: Pile) -> None:
    one, other = (Conditions(engine, post=pile, clock=clock) for _ in range(2))

    for look in (ILL, ILL):
        await one.report(look)
        await other.report(look)

    assert [notice.event for notice in pile.notices] == ["unwell"]
    assert await other.unwell() == {"Airflow": "no answer"}


async def test_a_restart_remembers_what_was_told(engine: AsyncEngine, clock: Clock, pile: Pile) -> None:
    before = Conditions(engine, post=pile, clock=clock)
    for look in (ILL, ILL):
        await before.report(look)

    after = Conditions(engine, post=pile, clock=clock)
    for look in (ILL, ILL, WELL, WELL):
        await after.report(look)

    assert [notice.event for notice in pile.notices] == ["unwell", "well_again"]
