"""Broken promises, on purpose: with one of them in place the judge must find it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any


def _no_fence() -> None:
    """Whoever drove an incident once goes on writing, whatever the epoch says."""
    from server.driving import StoreDriving
    from server.record import Lease

    written = StoreDriving.write_found

    async def unfenced(self: Any, writing: Any, lease: Lease, found: Any) -> None:
        query = "SELECT epoch FROM incident WHERE id = :id"
        from sqlalchemy import text

        rows = await writing.connection.execute(text(query), {"id": lease.incident_id})
        await written(self, writing, lease.model_copy(update={"epoch": rows.scalar_one()}), found)

    setattr(StoreDriving, "write_found", unfenced)  # noqa: B010


def _blind_resend() -> None:
    """Who finds `sent` does not ask Airflow, and sends again."""
    from tools.actions.kind import Confirmation, Found
    from tools.carry_out import _Hand

    async def blind(self: Any, entry: Any) -> Confirmation:
        return Confirmation(found=Found.NOT_DONE, why="nobody looked")

    async def unguarded(self: Any, entry: Any, guard: Any) -> Any:
        from graph.domain import Step

        entry = await self.ledger.advance(entry, Step.SENT)
        await self.kind(entry).apply(self.airflow, entry.action, before=entry.before, key=entry.key)
        return await self.ledger.advance(entry, Step.CONFIRMED)

    setattr(_Hand, "_look", blind)  # noqa: B010
    setattr(_Hand, "_send", unguarded)  # noqa: B010


def _sent_not_flushed() -> None:
    """`sent` is written with the rest of the drive, after the write has left."""
    from server.ledger import StoreLedger

    begun = StoreLedger.__init__

    def careless(self: Any, *args: Any, **given: Any) -> None:
        begun(self, *args, **given | {"quiet": frozenset({"wait", "notify", "clear_task"})})

    setattr(StoreLedger, "__init__", careless)  # noqa: B010


def _early_answer() -> None:
    """The event is answered before it is stored."""
    import asyncio

    from server.store import IncidentStore

    stored = IncidentStore.accept

    async def later(self: Any, *args: Any, **given: Any) -> int:
        async def store() -> None:
            await asyncio.sleep(0.2)
            await stored(self, *args, **given)

        self.kept = asyncio.create_task(store())
        return 1

    setattr(IncidentStore, "accept", later)  # noqa: B010


MUTATIONS: Mapping[str, Callable[[], None]] = MappingProxyType(
    {
        "no-fence": _no_fence,
        "blind-resend": _blind_resend,
        "sent-not-flushed": _sent_not_flushed,
        "early-answer": _early_answer,
    }
)
