"""The kill switch, shadow mode and a maintenance window in which nothing is done also hold what was begun.

Nothing leaves until they are taken back, or the window is over. What began before a window that only asks is
brought to its end.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from graph.domain import Status, Verdict
from graph.errors import OnHold
from nodes.deps import Deps
from nodes.waiting import wait_for
from tools.policy import maintained

HELD = timedelta(seconds=30)  # between two looks whether writing is allowed again


async def held(deps: Deps, dags: Collection[str]) -> str:
    """Why nothing may be written to these DAGs now; empty when it may."""
    control = await deps.records.control()
    if control.paused:
        return "Airmedic is paused: nothing is written"
    if control.shadow:
        return "shadow mode is on: nothing is written"
    for one in maintained(deps.policy, dags, deps.clock()):
        if one.verdict is Verdict.NEVER:
            return f"maintenance {one.name!r} ({one.hours}): nothing is written"
    return ""


async def check_held(deps: Deps, dags: Collection[str]) -> None:
    """Raises `OnHold` while nothing may be written to these DAGs."""
    if why := await held(deps, dags):
        raise OnHold(why)


def wait_until_allowed(deps: Deps, why: str) -> None:
    """Suspend for a while; then it is looked at again."""
    wait_for(Status.WAITING_TIMER, until=deps.clock() + HELD, note=why)
