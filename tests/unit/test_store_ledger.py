"""The ledger in the database keeps what `tools.ledger` promises; its in-memory twin does the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.checkpoint import CarriedSaver
from graph.domain import Action, Door, LedgerEntry, Step
from graph.errors import ActionRefused, LeaseLost
from server.db.database import open_database
from server.draft import Draft
from server.ledger import StoreLedger, entries_on_record
from server.store import LEASE, IncidentStore
from tests.factories import Clock, make_clear, make_failure, make_snapshot, make_task
from tools.ledger import ActionLedger, MemoryLedger


@dataclass
class Kept:
    """A ledger, and how another process would read it once everything is written."""

    ledger: ActionLedger
    draft: Draft | None = None
    engine: AsyncEngine | None = None

    async def on_record(self) -> tuple[LedgerEntry, ...]:
        if self.draft is None or self.engine is None:
            return await self.ledger.entries()
        await self.draft.flush()
        return await entries_on_record(self.engine, self.draft.lease)


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def kept(
    request: pytest.FixtureRequest, new_database: Callable[[str], str], clock: Clock
) -> AsyncIterator[Kept]:
    if request.param == "memory":
        yield Kept(MemoryLedger(1))
        return
    async with open_database(new_database(request.param)) as engine:
        one = await leased(engine, IncidentStore(engine, clock=clock), clock)
        yield one
        if one.draft is not None:
            await one.draft.end()


@pytest.fixture
def ledger(kept: Kept) -> ActionLedger:
    return kept.ledger


async def leased(engine: AsyncEngine, store: IncidentStore, clock: Clock) -> Kept:
    await store.accept([make_failure()], door=Door.POLL)
    (occurrence,) = await store.new_occurrences()
    await store.open_incident(occurrence, make_snapshot())
    (lease,) = await store.claim_due(owner="a", limit=1)
    draft = Draft(store, lease, saver=CarriedSaver(), clock=clock)
    ledger = StoreLedger(engine, draft, make_task(), clock=clock, quiet=frozenset())
    return Kept(ledger, draft, engine)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param([Step.SENT, Step.CONFIRMED, Step.UNDONE], id="written, then taken back"),
        pytest.param([Step.SENT, Step.FAILED], id="refused"),
        pytest.param([Step.SENT, Step.INTENT, Step.SENT, Step.CONFIRMED], id="read back: never arrived"),
    ],
)
async def test_an_entry_moves_step_by_step(kept: Kept, path: list[Step]) -> None:
    entry = await kept.ledger.intend(1, 0, make_clear(), {"state": "failed"})
    for step in path:
        entry = await kept.ledger.advance(entry, step)

    (stored,) = await kept.on_record()
    assert stored.step is path[-1]
    assert stored.before == {"state": "failed"}
    assert stored.key == f"airmedic:{stored.incident_id}.1.0"


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        pytest.param([], Step.UNDONE, id="nothing to undo"),
        pytest.param([Step.SENT, Step.CONFIRMED], Step.SENT, id="sent twice"),
        pytest.param([Step.SENT, Step.FAILED], Step.CONFIRMED, id="failed is the end"),
    ],
)
async def test_a_step_the_ledger_does_not_know_is_refused(
    ledger: ActionLedger, path: list[Step], refused: Step
) -> None:
    entry = await ledger.intend(1, 0, make_clear(), None)
    for step in path:
        entry = await ledger.advance(entry, step)

    with pytest.raises(ActionRefused):
        await ledger.advance(entry, refused)


async def test_a_repeated_intent_returns_the_first_record(ledger: ActionLedger) -> None:
    first = await ledger.intend(1, 0, make_clear(), "before")
    sent = await ledger.advance(first, Step.SENT)

    again = await ledger.intend(1, 0, make_clear(), "another before")

    assert (again.step, again.before) == (sent.step, "before")


async def test_a_place_keeps_its_action(ledger: ActionLedger) -> None:
    await ledger.intend(1, 0, make_clear(), None)

    with pytest.raises(ActionRefused):
        await ledger.intend(1, 0, Action(name="pause_dag", target={"dag_id": "orders"}), None)


async def test_attempts_are_told_apart(ledger: ActionLedger) -> None:
    await ledger.intend(1, 0, make_clear(), None)
    await ledger.intend(2, 0, make_clear(), None)
    await ledger.intend(2, 1, make_clear(), None)

    assert [(e.attempt, e.position) for e in await ledger.entries(attempt=2)] == [(2, 0), (2, 1)]


async def test_attempts_on_record_are_told_apart(kept: Kept) -> None:
    await kept.ledger.intend(1, 0, make_clear(), None)
    await kept.ledger.intend(2, 0, make_clear(), None)

    assert [(e.attempt, e.position) for e in await kept.on_record()] == [(1, 0), (2, 0)]


async def test_after_a_takeover_nothing_can_be_written(
    engine: AsyncEngine, store: IncidentStore, clock: Clock
) -> None:
    old = await leased(engine, store, clock)
    assert old.draft is not None
    entry = await old.ledger.intend(1, 0, make_clear(), None)
    clock.forward(LEASE.total_seconds() + 1)
    (lease,) = await store.claim_due(owner="b", limit=1)

    for attempt in (
        old.ledger.advance(entry, Step.SENT),
        old.draft.flush(),
        entries_on_record(engine, old.draft.lease),
    ):
        with pytest.raises(LeaseLost):
            await attempt
    assert await entries_on_record(engine, lease) == ()
    await old.draft.end()
