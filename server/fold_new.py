"""Sorts new failures: those of a cause that an incident stands for join it, of each other cause one leads."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from pydantic import JsonValue

from graph.domain import IncidentKind
from server.correlation import CauseLook
from server.record import Occurrence
from server.store import IncidentStore
from tools.correlation import Cause

log = structlog.get_logger("intake")

SLICE = 0.004  # seconds that errors are read before others have their turn
TELL_EVERY = timedelta(seconds=2)


@dataclass
class Sorted:
    """What is to be done with a page of new failures."""

    to_ask: list[tuple[Occurrence, Cause | None]] = field(default_factory=list)
    folded: int = 0
    held: bool = False  #: some wait for the one that leads


class Folding:
    """One process's part in it: it remembers what it has read, and nothing that the store does not know."""

    def __init__(self, store: IncidentStore, look: CauseLook, *, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._look = look
        self._clock = clock
        self._untold: dict[int, Counter[str]] = {}  # by incident: how many came through which door
        self._told = clock() - TELL_EVERY

    async def sort_out(self, found: Sequence[Occurrence]) -> Sorted:
        """Join what can join; the rest has to be confirmed by Airflow, of each cause one at a time."""
        causes: dict[str, Cause] = {}
        by_key: dict[str, list[Occurrence]] = defaultdict(list)
        result = Sorted()
        since = time.perf_counter()
        for one in found:
            if time.perf_counter() - since > SLICE:
                await asyncio.sleep(0)
                since = time.perf_counter()
            cause = self._cause(one)
            if cause is None:
                result.to_ask.append((one, None))
            else:
                causes[cause.key] = cause
                by_key[cause.key].append(one)
        leaders = await self._store.leaders(list(causes)) if causes else {}
        for key, members in by_key.items():
            leader = leaders.get(key)
            if leader is None:
                result.to_ask.append((members[0], causes[key]))
                result.held = result.held or len(members) > 1
                continue
            own = [one for one in members if one.task == leader.task]
            result.to_ask += [(one, None) for one in own]
            others = [one for one in members if one.task != leader.task]
            if others:
                result.folded += await self._fold(key, leader.incident_id, others)
        return result

    def _cause(self, one: Occurrence) -> Cause | None:
        return self._look.of_error(one.airflow, one.error) if one.kind is IncidentKind.FAILURE else None

    async def _fold(self, key: str, incident_id: int, members: Sequence[Occurrence]) -> int:
        folded = await self._store.fold(key, incident_id, members)
        if folded:
            doors = Counter(one.door.value for one in members)
            self._untold.setdefault(incident_id, Counter()).update(doors)
            log.info("gathered", incident_id=incident_id, failures=folded)
        return folded

    async def tell(self) -> None:
        """The agent log says how many joined, every few seconds and not one by one."""
        now = self._clock()
        if abs(now - self._told) < TELL_EVERY or not self._untold:
            return
        self._told = now
        untold, self._untold = self._untold, {}
        for incident_id, doors in untold.items():
            so_far = await self._store.gathered(incident_id)
            data: dict[str, JsonValue] = {"so_far": so_far, "doors": dict(doors)}
            await self._store.add_event("gathered", incident_id=incident_id, node="intake", data=data)
