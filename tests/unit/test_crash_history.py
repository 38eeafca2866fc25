"""The crash harness's checker: it accepts every history of a fenced register, and finds what is none."""

from __future__ import annotations

from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from evals.benchmarks.crash.history import (
    CLAIM,
    SENT,
    WRITE,
    Arrival,
    Operation,
    repeated,
    unannounced,
    violations,
)

Span = tuple[float, float]
around = st.tuples(st.floats(0, 2), st.floats(0, 2))


def operation(kind: str, epoch: int, begin: float, end: float) -> Operation:
    return Operation(kind, 1, epoch, begin, end)


@st.composite
def histories(draw: st.DrawFn) -> list[Operation]:
    """What a fenced register does, each operation seen from outside: it began before and ended after."""
    found, moment = [], 0.0
    for epoch in range(1, draw(st.integers(1, 5)) + 1):
        for kind in [CLAIM] + [WRITE] * draw(st.integers(0, 3)):
            moment += 1
            before, after = draw(around)
            found.append(operation(kind, epoch, moment - before, moment + after))
    kept = draw(st.lists(st.booleans(), min_size=len(found), max_size=len(found)))
    return draw(st.permutations([one for one, keep in zip(found, kept, strict=True) if keep]))


@st.composite
def spans(draw: st.DrawFn) -> Span:
    begin = draw(st.integers(0, 6))
    return float(begin), float(begin + draw(st.integers(0, 4)))


@given(histories())
@settings(deadline=None)
def test_every_history_of_a_fenced_register_is_accepted(history: list[Operation]) -> None:
    assert violations(history) == []


@given(histories(), st.integers(1, 5))
@settings(deadline=None)
def test_a_write_of_an_older_epoch_after_a_newer_one_is_found(history: list[Operation], epoch: int) -> None:
    late = max([one.end for one in history], default=0.0) + 1
    newer = operation(WRITE, 9, late, late + 1)
    zombie = operation(WRITE, epoch, late + 2, late + 3)

    assert violations([*history, newer]) == []
    assert violations([*history, newer, zombie])


@given(st.lists(st.tuples(st.sampled_from([CLAIM, WRITE]), st.integers(1, 3), spans()), max_size=5))
@settings(deadline=None)
def test_it_says_what_trying_every_order_says(drawn: list[tuple[str, int, Span]]) -> None:
    claims = set()
    history = []
    for kind, epoch, (begin, end) in drawn:
        if kind == CLAIM and epoch in claims:
            continue  # claimed twice is a matter of its own
        claims |= {epoch} if kind == CLAIM else set()
        history.append(operation(kind, epoch, begin, end))

    assert (violations(history) == []) == any(is_linear(order) for order in permutations(history))


def is_linear(order: tuple[Operation, ...]) -> bool:
    """Real time is kept, and so is the fence."""
    places = [one.place for one in order]
    in_time = all(
        not later.end < earlier.begin
        for position, earlier in enumerate(order)
        for later in order[position + 1 :]
    )
    return in_time and places == sorted(places)


def test_an_epoch_that_two_have_claimed_is_found() -> None:
    twice = [operation(CLAIM, 2, 0, 1), operation(CLAIM, 2, 0, 1)]

    assert violations(twice) == ["incident 1: epoch 2 was claimed twice"]


def test_a_write_that_was_not_committed_as_sent_is_found() -> None:
    sent = Operation(SENT, 1, 1, 0.0, 2.0, "airmedic:1.1.0")

    assert unannounced([sent], [Arrival("airmedic:1.1.0", 3.0, applied=True)]) == []
    assert unannounced([sent], [Arrival("airmedic:1.1.0", 1.0, applied=True)])
    assert unannounced([sent], [Arrival("airmedic:1.2.0", 3.0, applied=False)])


def test_a_write_that_is_sent_again_after_it_was_applied_is_found() -> None:
    lost, once, refused, again = (
        Arrival("a", 1.0, applied=False),
        Arrival("a", 2.0, applied=True),
        Arrival("a", 3.0, applied=False),
        Arrival("a", 4.0, applied=True),
    )

    assert repeated([lost, once]) == []
    assert repeated([lost, once, refused]) == ["a: sent again after it was applied"]
    assert repeated([lost, once, again]) == ["a: sent again after it was applied, and applied"]
