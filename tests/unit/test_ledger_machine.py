"""Workers come, die, sleep through their lease and wake again: the ledger lets one write through, once."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy.ext.asyncio import create_async_engine

from graph.domain import Door, LedgerEntry, Step
from graph.errors import ActionRefused, LeaseLost
from server.database import open_database
from server.ledger import StoreLedger
from server.record import Lease
from server.store import LEASE, IncidentStore
from tests.factories import Clock, make_clear, make_failure, make_snapshot, make_task
from tools.ledger import ALLOWED_STEPS

POSITIONS = st.integers(0, 2)
WORKERS = st.integers(0, 3)
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


class LedgerMachine(RuleBasedStateMachine):
    """Holds the store's ledger against a model of what may have happened."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.leases: list[Lease] = []  # one a worker; only the last is good
        self.seen: list[dict[int, LedgerEntry]] = []  # what each worker believes, stale beliefs included
        self.truth: dict[int, Step] = {}
        self.sent: Counter[int] = Counter()

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
        self.engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
        self.store = IncidentStore(self.engine, clock=self.clock)
        await self.store.accept([make_failure()], door=Door.POLL)
        (occurrence,) = await self.store.new_occurrences()
        await self.store.open_incident(occurrence, make_snapshot())

    def teardown(self) -> None:
        if self.leases:
            self.runner.run(self.engine.dispose())
            self.folder.cleanup()
        self.runner.close()

    @precondition(lambda self: len(self.leases) < 4)
    @rule()
    def take_over(self) -> None:
        """The lease ran out; another worker begins with what the ledger holds."""
        self.clock.forward(LEASE.total_seconds() + 1)
        (lease,) = self.runner.run(self.store.claim_due(owner=f"w{len(self.leases)}", limit=1))
        self.leases.append(lease)
        held = self.runner.run(self._ledger(len(self.leases) - 1).entries(attempt=1))
        self.seen.append({entry.position: entry for entry in held})

    @rule(worker=WORKERS, position=POSITIONS)
    def intend(self, worker: int, position: int) -> None:
        worker %= len(self.leases)
        call = self._ledger(worker).intend(1, position, make_clear(), {"by": worker})
        if not self._is_current(worker):
            with pytest.raises(LeaseLost):
                self.runner.run(call)
            return
        entry = self.runner.run(call)
        assert entry.step is self.truth.setdefault(position, Step.INTENT)
        self.seen[worker][position] = entry

    @rule(worker=WORKERS, position=POSITIONS, step=STEPS)
    def advance(self, worker: int, position: int, step: Step) -> None:
        """Whoever is not current, or believes in a step that is past, changes nothing."""
        worker = worker % len(self.leases)
        entry = self.seen[worker].get(position)
        if entry is None:
            return
        call = self._ledger(worker).advance(entry, step)
        if step not in ALLOWED_STEPS[entry.step]:
            with pytest.raises(ActionRefused):
                self.runner.run(call)
        elif not self._is_current(worker) or entry.step is not self.truth[position]:
            with pytest.raises(LeaseLost):
                self.runner.run(call)
        else:
            self.seen[worker][position] = self.runner.run(call)
            self.truth[position] = step
            # A read-back that finds nothing takes the sending back.
            self.sent[position] += {Step.SENT: 1, Step.INTENT: -1}.get(step, 0)

    @rule(worker=WORKERS)
    def crash(self, worker: int) -> None:
        """Memory is gone; what the ledger holds is not."""
        worker %= len(self.leases)
        if self._is_current(worker):
            held = self.runner.run(self._ledger(worker).entries(attempt=1))
            self.seen[worker] = {entry.position: entry for entry in held}

    @invariant()
    def it_holds_what_happened(self) -> None:
        if not self.leases:
            return
        held = self.runner.run(self._ledger(len(self.leases) - 1).entries(attempt=1))
        assert {entry.position: entry.step for entry in held} == self.truth
        assert all(count in (0, 1) for count in self.sent.values())

    def _is_current(self, worker: int) -> bool:
        return worker == len(self.leases) - 1

    def _ledger(self, worker: int) -> StoreLedger:
        return StoreLedger(self.engine, self.leases[worker], make_task(), clock=self.clock)


LedgerMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase
