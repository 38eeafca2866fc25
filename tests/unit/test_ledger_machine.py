"""Workers come, die, sleep through their lease and wake again: the ledger lets one write through, once."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from graph.checkpoint import CarriedSaver
from graph.domain import Door, LedgerEntry, Step
from graph.errors import ActionRefused, LeaseLost
from server.db.database import open_database
from server.draft import Draft
from server.ledger import StoreLedger, entries_on_record
from server.record import Lease
from server.store import LEASE, IncidentStore
from tests.factories import Clock, make_clear, make_failure, make_snapshot, make_task
from tools.ledger import ALLOWED_STEPS

T = TypeVar("T")

POSITIONS = st.integers(0, 2)
NUMBERS = st.integers(0, 3)
STEPS = st.sampled_from([Step.SENT, Step.SENT, *Step])  # most of what can go wrong comes after sending


@cache
def migrated() -> bytes:
    """A database with every table and no row."""

    async def make(path: Path) -> None:
        async with open_database(f"sqlite:///{path}"):
            pass

    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.db"
        asyncio.run(make(path))
        return path.read_bytes()


@dataclass
class Worker:
    """One process with the lease it once took, and what it believes."""

    lease: Lease
    draft: Draft
    ledger: StoreLedger
    seen: dict[int, LedgerEntry]


class LedgerMachine(RuleBasedStateMachine):
    """Holds the store's ledger against a model of what may be on record."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.workers: list[Worker] = []  # only the last one's lease is good
        self.truth: dict[int, Step] = {}  # what is committed
        self.out: set[int] = set()  # requests that may have left for Airflow and were not read back as lost

    @initialize(positions=st.sets(POSITIONS))
    def begin(self, positions: set[int]) -> None:
        """A first worker has begun; often it is replaced at once."""
        self.runner.run(self._begin(migrated()))
        self.take_over()
        for position in positions:
            self.intend(0, position)

    async def _begin(self, empty: bytes) -> None:
        self.folder = TemporaryDirectory()
        path = Path(self.folder.name) / "ledger.db"
        path.write_bytes(empty)
        self.clock = Clock()
        self.open = AsyncExitStack()
        self.engine = await self.open.enter_async_context(open_database(f"sqlite:///{path}"))
        self.store = IncidentStore(self.engine, clock=self.clock)
        await self.store.accept([make_failure()], door=Door.POLL)
        (occurrence,) = await self.store.new_occurrences()
        await self.store.open_incident(occurrence, make_snapshot())

    def teardown(self) -> None:
        if self.workers:
            self.runner.run(self.open.aclose())
            self.folder.cleanup()
        self.runner.close()

    @precondition(lambda self: len(self.workers) < 4)
    @rule()
    def take_over(self) -> None:
        """The lease ran out; another worker begins with what is on record."""
        self.clock.forward(LEASE.total_seconds() + 1)
        (lease,) = self.runner.run(self.store.claim_due(owner=f"w{len(self.workers)}", limit=1))
        self.workers.append(self.runner.run(self._worker(lease)))

    async def _worker(self, lease: Lease) -> Worker:
        draft = Draft(self.store, lease, saver=CarriedSaver(), clock=self.clock)
        ledger = StoreLedger(self.engine, draft, make_task(), clock=self.clock, quiet=frozenset())
        seen = {entry.position: entry for entry in await ledger.entries(attempt=1)}
        return Worker(lease, draft, ledger, seen)

    @rule(number=NUMBERS, position=POSITIONS)
    def intend(self, number: int, position: int) -> None:
        """Promises nothing yet, so that nobody is refused."""
        worker = self._at(number)
        entry = self._do(worker, worker.ledger.intend(1, position, make_clear(), {"by": number}))
        if position in worker.seen:
            assert entry.step is worker.seen[position].step
        worker.seen[position] = entry

    @rule(number=NUMBERS, position=POSITIONS, step=STEPS)
    def advance(self, number: int, position: int, step: Step) -> None:
        """What is sent is on record first; whoever is not current sends nothing."""
        worker = self._at(number)
        entry = worker.seen.get(position)
        if entry is None:
            return
        call = worker.ledger.advance(entry, step)
        if step not in ALLOWED_STEPS[entry.step]:
            with pytest.raises(ActionRefused):
                self._do(worker, call)
        elif step is not Step.SENT:
            worker.seen[position] = self._do(worker, call)
            if worker is self.workers[-1] and step is Step.INTENT:
                self.out.discard(position)  # Airflow was asked: it never arrived
        elif worker is not self.workers[-1]:
            with pytest.raises(LeaseLost):
                self._do(worker, call)
            worker.seen.clear()  # its drive is over
        else:
            worker.seen[position] = self._do(worker, call)
            assert position not in self.out, "the same request may leave twice"
            self.out.add(position)
            self._committed(worker)

    @rule(number=NUMBERS)
    def flush(self, number: int) -> None:
        """The end of a drive, or something that has lain too long."""
        worker = self._at(number)
        if worker is self.workers[-1]:
            self._do(worker, worker.draft.flush())
            self._committed(worker)
        else:
            with pytest.raises(LeaseLost):
                self._do(worker, worker.draft.flush())

    @rule(number=NUMBERS)
    def crash(self, number: int) -> None:
        """Memory is gone; what is on record is not."""
        if self._at(number) is self.workers[-1]:
            self.workers[-1] = self.runner.run(self._worker(self.workers[-1].lease))

    @invariant()
    def the_record_is_what_was_committed(self) -> None:
        if not self.workers:
            return
        held = self.runner.run(entries_on_record(self.engine, self.workers[-1].lease))
        assert {entry.position: entry.step for entry in held} == self.truth
        for position in self.out:
            assert self.truth[position] is not Step.INTENT, "a request left that the record does not show"

    def _at(self, number: int) -> Worker:
        return self.workers[number % len(self.workers)]

    def _do(self, worker: Worker, call: Coroutine[Any, Any, T]) -> T:
        """Run it, and let no alarm write behind the model's back."""
        try:
            return self.runner.run(call)
        finally:
            worker.draft.quiet()

    def _committed(self, worker: Worker) -> None:
        self.truth = {position: entry.step for position, entry in worker.seen.items()}


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
