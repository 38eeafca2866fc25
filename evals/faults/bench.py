"""The fault bench: every row of the catalogue on a real Airflow, first without Airmedic, then with it.

What is done is kept in `results.jsonl` and `symptoms.json` of the bench's home; a second run goes on there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from evals.faults.catalogue import CATALOGUE, FaultRow
from evals.faults.ground import open_ground
from evals.faults.lanes import in_lanes
from evals.faults.notebook import Notebook
from evals.faults.playing import Order, Tell, play_once
from evals.faults.results import Result


async def run_bench(
    rows: Sequence[FaultRow], *, repeat: int, home: Path, tell: Tell, verbose: bool = False, lanes: int = 1
) -> list[Result]:
    """Play what is not done yet, `lanes` at the same time; the results of all that was asked for."""
    book = Notebook(home)
    wanted = [(row.id, number) for number in range(1, repeat + 1) for row in rows]
    done = book.done()
    todo = [Order(fault=fault, repetition=number, verbose=verbose) for fault, number in wanted]
    todo = [order for order in todo if (order.fault, order.repetition) not in done]
    if len(todo) < len(wanted):
        tell(f"{len(wanted) - len(todo)} of {len(wanted)} are done already, in {home}")
    if todo:
        play = in_lanes if lanes > 1 else _one_by_one
        count = 0
        async for result in play(todo, home=home, book=book, tell=tell, lanes=lanes):
            count += 1
            book.add(result)
            tell(f"[{count}/{len(todo)}] {line_of(result)}")
    return [one for one in book.results() if (one.fault, one.repetition) in set(wanted)]


async def _one_by_one(
    todo: Sequence[Order], *, home: Path, book: Notebook, tell: Tell, lanes: int
) -> AsyncIterator[Result]:
    """Here, in order."""
    async with open_ground(home, progress=tell) as ground:
        for order in todo:
            order = order.model_copy(update={"prove": order.fault not in book.shown()})
            shown = partial(_note, book)
            said = tell if order.verbose else _silent
            yield await play_once(ground, CATALOGUE[order.fault], order, shown=shown, tell=said)


def _note(book: Notebook, fault: str) -> None:
    book.note_symptom(fault, datetime.now(UTC))


def _silent(message: str) -> None:
    """The progress of callers that do not want it."""


def line_of(result: Result) -> str:
    """A result in one line."""
    verdict = "ok   " if result.right else "WRONG"
    cause, outcome = result.root_cause or "-", result.outcome or "no incident"
    did = ", ".join(result.actions) or "nothing"
    told = "; ".join([*result.objections, *result.harmful, *([result.failed] if result.failed else [])])
    line = f"{result.fault}.{result.repetition} {verdict} {cause} | {did} | {outcome} | {result.total:.0f} s"
    return f"{line} | {told}" if told else line
