"""What is usual, what is too long, what grows slower."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.durations import FLOOR, GOOD_RUNS, Usual, drift, in_words, too_long, usual

lengths = st.floats(min_value=0.0, max_value=1e6, allow_nan=False)
good = st.lists(lengths, min_size=GOOD_RUNS, max_size=40)


def known(seconds: Sequence[float]) -> Usual:
    found = usual(seconds)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [
        pytest.param([10.0] * 5, 310.0, id="a short task has a floor of minutes"),
        pytest.param([3600.0] * 5, 7200.0, id="one that never varied may take twice as long"),
        pytest.param(
            [3000.0, 3600.0, 4200.0, 3600.0, 4800.0], 3600 + 6 * 1.4826 * 600, id="one that varies has room"
        ),
        pytest.param([60.0, 60.0, 60.0, 60.0, 90_000.0], 360.0, id="one run that hung changes nothing"),
    ],
)
def test_how_long_is_too_long(seconds: list[float], limit: float) -> None:
    assert too_long(known(seconds)) == pytest.approx(limit)


def test_four_good_runs_say_nothing() -> None:
    assert usual([1.0] * 4) is None


@pytest.mark.parametrize(
    ("seconds", "slower"),
    [
        pytest.param([100.0] * 10 + [200.0] * 5, True, id="twice as long from one day on"),
        pytest.param([100.0 + n % 3 for n in range(25)] + [140.0] * 5, True, id="clearly over a steady past"),
        pytest.param([100.0] * 15, False, id="as ever"),
        pytest.param([100.0] * 10 + [110.0] * 5, False, id="a tenth more is no matter"),
        pytest.param([1.0] * 10 + [5.0] * 5, False, id="seconds are no matter"),
        pytest.param([50.0, 150.0] * 6 + [150.0] * 5, False, id="inside what it always varied"),
        pytest.param([100.0] * 14 + [900.0], False, id="one slow run is no drift"),
        pytest.param([200.0] * 10 + [100.0] * 5, False, id="faster is welcome"),
        pytest.param([100.0] * 9 + [200.0] * 5, False, id="too short a past"),
    ],
)
def test_growing_slower(seconds: list[float], slower: bool) -> None:
    assert (drift(seconds) is not None) is slower


@given(good)
def test_no_run_of_the_usual_half_is_too_long(seconds: list[float]) -> None:
    past = known(seconds)

    assert too_long(past) >= past.median + FLOOR
    assert sum(one <= too_long(past) for one in seconds) * 2 >= len(seconds)


@given(good, st.floats(min_value=1e7, max_value=1e9))
def test_an_outlier_among_many_moves_little(seconds: list[float], outlier: float) -> None:
    """The median of n+1 values lies between two neighbours of the old one."""
    moved = known([*seconds, outlier])

    assert min(seconds) <= moved.median <= max(seconds)


@given(good)
def test_order_does_not_matter_for_what_is_usual(seconds: list[float]) -> None:
    assert usual(sorted(seconds)) == usual(seconds)


@given(st.lists(lengths, min_size=15, max_size=40), st.floats(min_value=0.1, max_value=100.0))
def test_a_drift_is_always_slower(seconds: list[float], factor: float) -> None:
    found = drift([*seconds, *(one * factor for one in seconds[-5:])])

    assert found is None or found.now > found.before.median


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(3, "3 s"), (119.4, "119 s"), (600, "10 min"), (9000, "2.5 h")],
    ids=["seconds", "below two minutes", "minutes", "hours"],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert in_words(seconds) == words
