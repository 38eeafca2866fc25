"""The kill switch and shadow mode also hold what was begun: nothing leaves until they are taken back."""

from __future__ import annotations

from datetime import timedelta

from graph.domain import Status
from graph.errors import OnHold
from nodes.deps import Deps
from nodes.waiting import wait_for

HELD = timedelta(seconds=30)  # between two looks whether writing is allowed again


async def held(deps: Deps) -> str:
    """Why nothing may be written now; empty when it may."""
    control = await deps.records.control()
    if control.paused:
        return "Airmedic is paused: nothing is written"
    return "shadow mode is on: nothing is written" if control.shadow else ""


async def check_held(deps: Deps) -> None:
    """Raises `OnHold` while nothing may be written."""
    if why := await held(deps):
        raise OnHold(why)


def wait_until_allowed(deps: Deps, why: str) -> None:
    """Suspend for a while; then it is looked at again."""
    wait_for(Status.WAITING_TIMER, until=deps.clock() + HELD, note=why)
