"""What one drive of an incident has found, written in as few transactions as its promises allow.

It is written when the drive ends, before any write to Airflow, and as soon as something has lain here for a
moment: a slow step or a call to a model keeps nobody waiting for the agent log.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Protocol

import structlog

from graph.checkpoint import CarriedSaver
from graph.errors import AirmedicError, StoreDoubt
from server.db.database import store_errors
from server.db.group_writer import Writing
from server.driving import Found, StoreDriving, log_row
from server.people.notifier import Notice
from server.record import Lease

log = structlog.get_logger("runner")

PATIENCE = 0.15  # seconds something may lie here before it is written
BUSY = 0.02  # seconds an alarm comes late when the process has its hands full: no step is slow by itself
LONGEST = 1.0  # seconds something lies here even then


class Part(Protocol):
    """Something else that is written with the draft: the ledger."""

    async def write(self, writing: Writing) -> None:
        """Write what is not in the database yet."""

    def written(self) -> None:
        """It was committed."""


class Draft:
    """The unsaved part of one drive; also the archive of the logs it reads."""

    def __init__(
        self,
        store: StoreDriving,
        lease: Lease,
        *,
        saver: CarriedSaver,
        clock: Callable[[], datetime],
    ) -> None:
        self.lease = lease
        self.columns: dict[str, Any] = {}  #: every column this drive has set, written or not
        self.parts: list[Part] = []
        self._store = store
        self._saver = saver
        self._thread = str(lease.incident_id)
        self._clock = clock
        self._found = Found()
        self._one_at_a_time = asyncio.Lock()
        self._alarm: asyncio.TimerHandle | None = None
        self._since = 0.0
        self._early: asyncio.Task[None] | None = None
        self._doubt: StoreDoubt | None = None

    def add(self, events: Sequence[dict[str, Any]], columns: dict[str, Any]) -> None:
        """Take up what a step has found."""
        now = self._clock()
        self._found.events += [{"at": now, **event} for event in events]
        self._found.values |= columns
        self.columns |= columns
        self.touch()

    async def put_log(self, text: str) -> str:
        """Keep a redacted log once; its digest comes back."""
        row = await log_row(text, self._clock())
        self._found.logs.append(row)
        self.touch()
        return str(row["digest"])

    def touch(self) -> None:
        """There is something to write: soon, at the latest."""
        if self._alarm is None:
            self._since = asyncio.get_running_loop().time()
            self._set_alarm()

    def _set_alarm(self) -> None:
        self._alarm = asyncio.get_running_loop().call_later(PATIENCE, self._write_early)

    def _write_early(self) -> None:
        assert self._alarm is not None
        now = asyncio.get_running_loop().time()
        if now - self._alarm.when() > BUSY and now - self._since < LONGEST:
            self._set_alarm()
            return
        self._alarm = None
        self._early = asyncio.create_task(self._flush_quietly(), name="draft")

    async def _flush_quietly(self) -> None:
        try:
            await self.flush()
        except AirmedicError as exc:
            # The drive itself meets the same at its next write, and answers for it.
            log.info("draft_kept_back", reason=str(exc))

    async def flush(
        self,
        *,
        notices: Sequence[Notice] = (),
        closed: bool = False,
        suspended: bool = False,
        **values: object,
    ) -> None:
        """Write everything in one transaction. Raises `LeaseLost`; what was not written stays here.

        What may be written or not is never written again: from then on this raises `StoreDoubt`, and the next
        drive goes on from what is stored.
        """
        async with self._one_at_a_time:
            if self._doubt is not None:
                raise self._doubt
            self.quiet()
            found, self._found = self._found, Found()
            # A question and the place that waits for its answer go on record together or not at all.
            place_holds = not closed and (suspended or not self._saver.interrupts(self._thread))
            written = Found(
                events=found.events,
                values=found.values | values,
                logs=found.logs,
                notices=notices,
                checkpoint=self._saver.packed(self._thread) if place_holds else None,
                closed=closed,
            )

            async def write(writing: Writing) -> None:
                await self._store.write_found(writing, self.lease, written)
                for part in self.parts:
                    await part.write(writing)

            try:
                with store_errors("recording a step"):
                    await self._store.writer.run(write, beside=True)
            except StoreDoubt as exc:
                self._doubt = exc
                raise
            except BaseException:
                new, self._found = self._found, found
                self._found.events += new.events
                self._found.logs += new.logs
                self._found.values |= new.values
                raise
            for part in self.parts:
                part.written()

    async def settle(
        self,
        *,
        wake_at: datetime | None,
        events: Sequence[dict[str, Any]] = (),
        notices: Sequence[Notice] = (),
        closed: bool = False,
        suspended: bool = False,
        **values: object,
    ) -> None:
        """Write everything, give the lease back, and sleep until `wake_at` or until somebody rings.

        `suspended`: `values` say what the graph waits for, so the place where it waits is written too.
        """
        self.add(events, {})
        given_back = self._store.given_back(self.lease, wake_at) | values
        await self.flush(notices=notices, closed=closed, suspended=suspended, **given_back)

    def quiet(self) -> None:
        """Set no alarm off any more."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    async def end(self) -> None:
        """The drive is over, one way or another; what is not written is found again by the next one."""
        self.quiet()
        if self._early is not None:
            self._early.cancel()
            await asyncio.gather(self._early, return_exceptions=True)
