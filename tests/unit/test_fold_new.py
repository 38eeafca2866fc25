"""Sorting a page of new failures leaves room for whoever else wants the event loop."""

from __future__ import annotations

import asyncio
import time

from graph.domain import Door
from server.correlation import CauseLook, ReadOnce
from server.fold_new import SLICE, Folding
from server.store import IncidentStore
from tests.factories import Clock, make_failure
from tools.correlation import Cause
from tools.knowledge import KnowledgeBase


class Slow(CauseLook):
    """Takes longer over each error than a turn is long."""

    def of_error(self, airflow: str, error: str) -> Cause | None:
        time.sleep(SLICE)
        return None


async def test_others_have_their_turn_between_two_errors(store: IncidentStore) -> None:
    for number in range(3):
        await store.accept([make_failure(run_id=f"run {number}")], door=Door.LISTENER)
    page = await store.new_occurrences(limit=100)
    folding = Folding(store, Slow(ReadOnce(KnowledgeBase.load())), clock=Clock())
    turns: list[int] = []

    async def others() -> None:
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    found = await folding.sort_out(page)
    task.cancel()

    assert len(found.to_ask) == 3
    assert len(turns) >= 2
