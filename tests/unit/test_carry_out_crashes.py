"""The process dies at any await, any number of times: each write still happens exactly once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.domain import Action, FixPlan, Step
from graph.errors import AirflowDoubt, AirflowUnreachable, LeaseLost, StalePlan
from tests.unit.fix_world import (
    SETTINGS,
    TASK,
    WRITE_VERBS,
    Bench,
    Crash,
    Fuse,
    clear,
    failed_airflow,
    make_fix,
    settings_of,
    verbs,
)

CUTS = st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=6)
PLANS = st.lists(st.sampled_from(sorted(SETTINGS)), unique=True, max_size=3).map(
    lambda names: make_fix(*(SETTINGS[name] for name in names), clear())
)
DOUBTS = st.dictionaries(st.sampled_from(sorted(set(WRITE_VERBS.values()))), st.booleans(), max_size=2)


def expected(plan: FixPlan) -> Counter[str]:
    return Counter(WRITE_VERBS[action.name] for action in plan.actions)


async def with_cuts(bench: Bench, cuts: list[tuple[int, bool]], plan: FixPlan | None) -> None:
    """Do it, or take it back, dying at each of these awaits and starting again."""
    for at, after_effect in [*cuts, (-1, False)]:
        bench.fuse = Fuse(at=at, after_effect=after_effect)
        try:
            await (bench.apply(plan) if plan is not None else bench.undo())
        except (Crash, AirflowUnreachable):
            continue
        return
    await (bench.apply(plan) if plan is not None else bench.undo())


@settings(max_examples=150, deadline=None)
@given(plan=PLANS, cuts=CUTS, doubts=DOUBTS, auto=st.booleans())
def test_each_write_happens_exactly_once(
    plan: FixPlan, cuts: list[tuple[int, bool]], doubts: dict[str, bool], auto: bool
) -> None:
    async def run() -> None:
        bench = Bench(await failed_airflow(auto=auto))
        for verb, arrived in doubts.items():
            bench.airflow.fail_next(verb, AirflowDoubt("no answer"), after_effect=arrived)

        await with_cuts(bench, cuts, plan)

        assert Counter(verbs(bench.airflow)) == expected(plan)
        entries = await bench.ledger.entries()
        assert [entry.step for entry in entries] == [Step.CONFIRMED] * len(plan.actions)
        assert [entry.action for entry in entries] == list(plan.actions)

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(plan=PLANS, before=CUTS, after=CUTS, doubts=DOUBTS)
def test_undo_restores_the_world_and_writes_once(
    plan: FixPlan, before: list[tuple[int, bool]], after: list[tuple[int, bool]], doubts: dict[str, bool]
) -> None:
    async def run() -> None:
        bench = Bench(await failed_airflow())
        world = settings_of(bench.airflow)
        undoable = FixPlan(**{**plan.model_dump(), "actions": plan.actions[:-1] or plan.actions})
        await with_cuts(bench, before, undoable)
        bench.airflow.writes.clear()
        for verb, arrived in doubts.items():
            bench.airflow.fail_next(verb, AirflowDoubt("no answer"), after_effect=arrived)

        await with_cuts(bench, after, None)

        assert settings_of(bench.airflow) == world
        assert (await bench.airflow.task(TASK)).note in ("", "airmedic:7.1.0")
        taken_back = [one for one in undoable.actions if one.name != "clear_task"]
        assert sum(Counter(verbs(bench.airflow)).values()) == len(taken_back)
        assert all(
            entry.step is Step.UNDONE for entry in await bench.ledger.entries() if entry.action in taken_back
        )

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(plan=PLANS, cuts=CUTS.filter(bool))
def test_an_attempt_given_up_anywhere_can_be_taken_back(plan: FixPlan, cuts: list[tuple[int, bool]]) -> None:
    """Crash in the middle of a plan, then undo instead of going on."""

    async def run() -> None:
        bench = Bench(await failed_airflow())
        world = settings_of(bench.airflow)
        bench.fuse = Fuse(at=cuts[0][0], after_effect=cuts[0][1])
        with suppress(Crash):
            await bench.apply(plan)

        await with_cuts(bench, cuts[1:], None)

        assert settings_of(bench.airflow) == world
        steps = {entry.step for entry in await bench.ledger.entries() if entry.action.name != "clear_task"}
        assert steps <= {Step.UNDONE, Step.FAILED}

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(plan=PLANS, cut=st.integers(0, 40), after_effect=st.booleans())
def test_a_lost_lease_lets_no_further_write_through(plan: FixPlan, cut: int, after_effect: bool) -> None:
    """Another worker takes over while we are dead: whoever comes back without the lease writes nothing."""

    async def run() -> None:
        bench = Bench(await failed_airflow())
        bench.fuse = Fuse(at=cut, after_effect=after_effect)
        with suppress(Crash):
            await bench.apply(plan)
        written = verbs(bench.airflow)

        bench.fuse, bench.ledger.fence = Fuse(), True
        with pytest.raises(LeaseLost):
            await bench.apply(plan)
        with pytest.raises(LeaseLost):
            await bench.undo()

        assert verbs(bench.airflow) == written

    asyncio.run(run())


@settings(max_examples=100, deadline=None)
@given(plan=PLANS, cut=st.integers(0, 40), after_effect=st.booleans())
def test_a_world_that_moved_during_the_crash_is_left_alone(
    plan: FixPlan, cut: int, after_effect: bool
) -> None:
    async def run() -> None:
        bench = Bench(await failed_airflow())
        bench.fuse = Fuse(at=cut, after_effect=after_effect)
        try:
            await bench.apply(plan)
            return
        except Crash:
            pass
        written = verbs(bench.airflow)
        if "clear" in written:
            return
        with bench.airflow.by_someone_else():
            await bench.airflow.clear("orders", "manual__1", [TASK], dry_run=False)

        bench.fuse = Fuse()
        with pytest.raises(StalePlan):
            await bench.apply(plan)

        assert verbs(bench.airflow) == written

    asyncio.run(run())


def test_the_crashes_reach_every_await() -> None:
    """The cuts above go up to await 40: the longest plan has fewer."""

    async def run() -> int:
        bench = Bench(await failed_airflow())
        longest: list[Action] = [*SETTINGS.values()][:3]
        await bench.apply(make_fix(*longest, clear()))
        return bench.fuse.calls

    assert asyncio.run(run()) <= 40
