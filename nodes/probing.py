"""Is what the task needs back? A retry before that would fail again."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from graph.domain import Facts, Outcome, Status
from graph.errors import AirflowRefused, NotFound
from graph.state import HealState
from nodes.deps import Deps
from nodes.waiting import wait_for

PROBE_AT_LEAST, PROBE_AT_MOST = timedelta(seconds=10), timedelta(minutes=5)  # between two looks at a probe


async def not_back(state: HealState, deps: Deps, *, since: datetime | None = None) -> HealState | None:
    """Wait while a probe the administrator configured says that what the task needs is still away."""
    reading = await deps.probes.look(await _hosts(state["diagnosis"].facts, deps))
    if reading is None or reading.up:
        return None
    now, due = deps.clock(), since or state.get("due") or deps.clock()
    if now - due >= deps.limits.probe_patience:
        reason = f"{reading.probe} has not come back in {deps.limits.probe_patience}: {reading.detail}"
        return {"outcome": Outcome.ESCALATED, "reason": reason}
    pause = min(max((now - due) / 4, PROBE_AT_LEAST), PROBE_AT_MOST)
    wait_for(Status.WAITING_TIMER, until=now + pause, note=f"{reading.probe} is not back: {reading.detail}")
    return {"applied": False}


async def _hosts(facts: Facts, deps: Deps) -> list[str]:
    """What the failure is about: a log may choose among the configured probes, never add one."""
    hosts = [facts.host] if facts.host else []
    if facts.conn_id:
        with suppress(
            NotFound, AirflowRefused
        ):  # not there, or not ours to read: the host in the log remains
            hosts.append((await deps.airflow.connection(facts.conn_id)).host or "")
    return [host for host in hosts if host]
