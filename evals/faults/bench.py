"""The fault bench: every row of the catalogue on a real Airflow, first without Airmedic, then with it.

What is done is kept in `results.jsonl` and `symptoms.json` of the bench's home; a second run goes on there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evals.faults.airflow_admin import BenchFailed
from evals.faults.catalogue import FaultRow
from evals.faults.ground import MEDIC, Ground, open_ground
from evals.faults.injections import INJECTIONS
from evals.faults.medics import open_medic
from evals.faults.people import People
from evals.faults.play import QUIET, play
from evals.faults.results import Result, Write, read_results, result_of
from graph.errors import SandboxFailed
from server.record import AgentEvent

HOME = Path(".airmedic/bench")
SYMPTOM_WITHIN = 120.0  # seconds
SETTLE = timedelta(seconds=1)  # by which Airflow's and our clock may differ

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Task:
    """One fault to be played once."""

    row: FaultRow
    repetition: int

    def __str__(self) -> str:
        return f"{self.row.id}.{self.repetition}"


class Notebook:
    """What the bench knows from before, and what it finds."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._results = home / "results.jsonl"
        self._symptoms = home / "symptoms.json"

    def results(self) -> list[Result]:
        """Every result, the newest of each repetition."""
        return read_results(self._results)

    def has(self, task: Task) -> bool:
        """Whether this was played to its end already."""
        return any(
            (one.fault, one.repetition) == (task.row.id, task.repetition) and not one.failed
            for one in self.results()
        )

    def add(self, result: Result) -> None:
        """Keep a result; what was written before stays."""
        with self._results.open("a", encoding="utf-8") as file:
            file.write(f"{result.model_dump_json()}\n")

    def shown(self) -> dict[str, str]:
        """The faults whose symptom was seen with Airmedic off, and when."""
        return dict(json.loads(self._symptoms.read_text())) if self._symptoms.exists() else {}

    def note_symptom(self, fault: str, at: datetime) -> None:
        """It showed."""
        self._symptoms.write_text(json.dumps({**self.shown(), fault: at.isoformat()}, indent=2))


async def run_bench(
    rows: Sequence[FaultRow], *, repeat: int, home: Path, tell: Tell, verbose: bool = False
) -> list[Result]:
    """Play what is not done yet; the results of all that was asked for, in its order."""
    book = Notebook(home)
    wanted = [Task(row, number) for number in range(1, repeat + 1) for row in rows]
    todo = [task for task in wanted if not book.has(task)]
    if len(todo) < len(wanted):
        tell(f"{len(wanted) - len(todo)} of {len(wanted)} are done already, in {home}")
    if todo:
        async with open_ground(home, progress=tell) as ground:
            for number, task in enumerate(todo, 1):
                result = await play_once(ground, task, book, tell=tell, verbose=verbose)
                book.add(result)
                tell(f"[{number}/{len(todo)}] {line_of(result)}")
    asked = {(task.row.id, task.repetition) for task in wanted}
    return [one for one in book.results() if (one.fault, one.repetition) in asked]


async def play_once(
    ground: Ground, task: Task, book: Notebook, *, tell: Tell, verbose: bool = False
) -> Result:
    """Prove the symptom when nobody has yet, then play the fault with a fresh Airmedic."""
    at = datetime.now(UTC)
    try:
        if task.row.id not in book.shown():
            await prove(ground, task.row)
            book.note_symptom(task.row.id, datetime.now(UTC))
        return await _with_airmedic(ground, task, tell=tell if verbose else _silent)
    except (BenchFailed, SandboxFailed, TimeoutError) as exc:
        ground.world.source.state.reset()
        return Result(
            fault=task.row.id, repetition=task.repetition, at=at, failed=str(exc) or type(exc).__name__
        )


async def prove(ground: Ground, row: FaultRow) -> None:
    """The fault shows what the row says while no Airmedic is there. Raises `BenchFailed` when it does not."""
    injection, world = INJECTIONS[row.id], ground.world
    await world.reset()
    await injection.inject(world)
    try:
        name = f"proof_{row.id.lower()}"
        run_id = await world.trigger(name, dag_id=injection.dag_id) if injection.triggers else ""
        async with asyncio.timeout(SYMPTOM_WITHIN):
            await (injection.symptom or injection.play)(world, run_id)
    finally:
        await injection.lift(world)


async def _with_airmedic(ground: Ground, task: Task, *, tell: Tell) -> Result:
    injection = INJECTIONS[task.row.id]
    await ground.world.reset()
    if injection.before is not None:
        await injection.before(ground.world)
    since = datetime.now(UTC) - SETTLE
    people = People(task.row)

    def show(event: AgentEvent) -> None:
        tell(f"    {event.at:%H:%M:%S} {event.node or '-'}: {event.name} {event.data}")

    async with open_medic(ground, task.row, name=str(task)) as stage:
        played = await play(stage, task.row, tell=show, ask=people.answer)
        if injection.also is not None:
            await injection.also(ground.world)
            await asyncio.sleep(QUIET)
        store = stage.service.store
        details = [await store.detail(one.id) for one in await store.incidents()]
    audited = await ground.world.airflow.writes_of(MEDIC, since=since)
    return result_of(
        played,
        repetition=task.repetition,
        at=since,
        writes=as_writes(audited),
        ledger=[entry for detail in details for entry in detail.ledger],
        incidents=len(details),
    )


def as_writes(audited: Sequence[dict[str, Any]]) -> list[Write]:
    """The writes of an audit log; Airflow lists a change that it refused for want of the thing, too."""
    made = {one["event"].removeprefix("post_") for one in audited if one["event"].startswith("post_")}
    return [
        Write(event=one["event"], dag_id=one["dag_id"], run_id=one["run_id"], at=one["when"])
        for one in audited
        if not (one["event"].startswith("patch_") and one["event"].removeprefix("patch_") in made)
    ]


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


def forget(home: Path, rows: Sequence[FaultRow]) -> None:
    """Drop the earlier results of these faults; their symptom proofs stay."""
    path = home / "results.jsonl"
    gone = {row.id for row in rows}
    kept = [one for one in read_results(path) if one.fault not in gone]
    if path.exists():
        path.write_text("".join(f"{one.model_dump_json()}\n" for one in kept), "utf-8")
