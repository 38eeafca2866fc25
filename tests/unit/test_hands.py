"""How many incidents are driven at the same time follows from how busy the thread is."""

from __future__ import annotations

import pytest

from server.hands import BUSY, FEWEST, MOST, SPARE, WINDOW, Hands


class Watch:
    """A thread that was busy for a share of the time that passed."""

    def __init__(self) -> None:
        self.now, self.used = 100.0, 5.0
        self.hands = Hands(timer=lambda: self.now, busy=lambda: self.used)

    def after(self, seconds: float, *, busy: float) -> int:
        self.now += seconds
        self.used += seconds * busy
        return self.hands.at_once()


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_many_at_first(watch: Watch) -> None:
    assert watch.hands.at_once() == MOST


def test_fewer_while_there_is_nothing_but_work(watch: Watch) -> None:
    assert watch.after(WINDOW * 1.01, busy=0.99) == FEWEST


def test_as_many_again_once_they_wait(watch: Watch) -> None:
    watch.after(WINDOW * 1.01, busy=0.99)

    assert watch.after(WINDOW * 1.01, busy=SPARE / 2) == MOST


@pytest.mark.parametrize("before", [0.99, 0.0], ids=["few", "many"])
def test_in_between_it_stays(watch: Watch, before: float) -> None:
    known = watch.after(WINDOW * 1.01, busy=before)

    assert watch.after(WINDOW * 1.01, busy=(BUSY + SPARE) / 2) == known


def test_a_moment_of_work_changes_nothing(watch: Watch) -> None:
    assert [watch.after(WINDOW / 10, busy=1.0) for _ in range(5)] == [MOST] * 5
