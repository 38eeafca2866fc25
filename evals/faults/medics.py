"""How Airmedic is run for a row: in this process, behind a gate that cuts it off, or to be killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from evals.faults.catalogue import FaultRow
from evals.faults.ground import Ground, open_airmedic
from evals.faults.stage import Stage


@asynccontextmanager
async def open_medic(ground: Ground, row: FaultRow, *, name: str) -> AsyncIterator[Stage]:
    """The Airmedic that this row needs, with a database of its own."""
    async with open_airmedic(ground, name) as stage:
        yield stage
