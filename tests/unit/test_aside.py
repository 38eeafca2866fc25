"""Long texts are read and packed beside the event loop, short ones on it."""

from __future__ import annotations

import threading

import pytest

from graph.domain import Diagnosis, TaskLog
from server.correlation import ReadOnce
from tests.factories import make_diagnosis
from tools.aside import LONG, aside
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase


class Noting(KnowledgeBase):
    """Says where it was asked."""

    def __init__(self) -> None:
        self.asked_in: list[int] = []

    def diagnose(self, case: Case) -> Diagnosis:
        self.asked_in.append(threading.get_ident())
        return make_diagnosis()


@pytest.mark.parametrize(
    ("size", "on_the_loop"), [pytest.param(LONG, True, id="short"), pytest.param(LONG + 1, False, id="long")]
)
async def test_a_log_holds_nobody_up(size: int, on_the_loop: bool) -> None:
    knowledge, case = Noting(), Case(log=TaskLog(text="x" * size))
    reader = ReadOnce(knowledge)

    first, second = await reader.diagnose(case), await reader.diagnose(case)

    assert first is second
    assert [one == threading.get_ident() for one in knowledge.asked_in] == [on_the_loop]


async def test_what_goes_wrong_aside_is_told() -> None:
    def breaks() -> None:
        raise ValueError("no such thing")

    for size in (1, LONG + 1):
        with pytest.raises(ValueError, match="no such thing"):
            await aside(breaks, size=size)
