"""Carries out a plan's writes, each exactly once, and takes them back.

A write goes intent → sent → confirmed, each step committed to the ledger before the next begins. Whoever
comes back after a crash finds one of three places: `intent` (nothing was sent: go on), `sent` (only Airflow
knows: read it back, never resend blind), `confirmed` (leave it). What remains is the moment between the last
look at Airflow and the write itself: Airflow's API knows no epochs, so that window is kept short, not denied:
a write that does not leave at once, because the process was stopped or had no thread free, does not leave.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from pydantic import JsonValue

from graph.domain import Action, FixPlan, LedgerEntry, Step
from graph.errors import (
    ActionRefused,
    AirflowDoubt,
    AirflowRefused,
    AirflowUnreachable,
    Conflict,
    NotYet,
    StalePlan,
)
from tools.actions import ActionCatalogue, AnyKind, Confirmation, Found
from tools.actions.setting import same
from tools.gateway import AirflowGateway
from tools.leaving import LEAVES, leaving
from tools.ledger import ActionLedger

Guard = Callable[[], Awaitable[None]]  #: before each write; raises `StalePlan` or `NotYet`
Sleep = Callable[[float], Awaitable[None]]

LOOKS = (0.2, 1.0, 3.0)  # seconds before the second, third, fourth look at a doubtful write
SENDS = 3  # times one write may be sent, each after proof that the last one never arrived


async def carry_out(
    plan: FixPlan,
    *,
    attempt: int,
    airflow: AirflowGateway,
    ledger: ActionLedger,
    catalogue: ActionCatalogue,
    guard: Guard,
    sleep: Sleep,
) -> tuple[LedgerEntry, ...]:
    """Bring every action of the plan to `confirmed`; call it again after any interruption.

    Raises `StalePlan` (the world moved; nothing more is written), `AirflowRefused` (the entry is `failed`),
    `ActionRefused` (masked or out of bounds), `AirflowUnreachable` (come back later), `NotYet` (an earlier
    action still runs in Airflow, or the guard says so), `LeaseLost`.
    """
    catalogue.validate_plan(plan)
    hand = _Hand(airflow, ledger, catalogue, sleep)
    done: list[LedgerEntry] = []
    known = {entry.position: entry for entry in await ledger.entries(attempt=attempt)}
    for position, action in enumerate(plan.actions):
        entry = known.get(position)
        if entry is None or entry.step is Step.INTENT:
            await hand.wait_for(done)
        if entry is None:
            before = await hand.capture(action)
            entry = await ledger.intend(attempt, position, action, before)
        done.append(await hand.bring_home(entry, guard))
    return tuple(done)


async def carry_each(
    attempt: int,
    *,
    airflow: AirflowGateway,
    ledger: ActionLedger,
    catalogue: ActionCatalogue,
    guard: Guard,
    sleep: Sleep,
    at_once: int = 4,
) -> tuple[tuple[LedgerEntry, str], ...]:
    """Bring each intended action home by itself; why not, where the world moved or Airflow refused.

    Call it again after any interruption. Raises `AirflowUnreachable` (come back later), `NotYet` (the guard
    says so) and `LeaseLost`.
    """
    hand = _Hand(airflow, ledger, catalogue, sleep)
    turn = asyncio.Semaphore(at_once)

    async def one(entry: LedgerEntry) -> tuple[LedgerEntry, str]:
        async with turn:
            if entry.step is Step.FAILED:
                return entry, entry.error or "refused"
            try:
                return await hand.bring_home(entry, guard), ""
            except (StalePlan, AirflowRefused, ActionRefused) as exc:
                return await _given_up(ledger, entry, _words(exc)), _words(exc)

    entries = await ledger.entries(attempt=attempt)
    # All come to their end before one that could not ends the drive: none is left half-way for that.
    found = await asyncio.gather(*(one(entry) for entry in entries), return_exceptions=True)
    for result in found:
        if isinstance(result, BaseException):
            raise result
    return tuple(result for result in found if not isinstance(result, BaseException))


async def _given_up(ledger: ActionLedger, entry: LedgerEntry, why: str) -> LedgerEntry:
    """An intent that was never sent and will not be is no open end."""
    known = {one.position: one for one in await ledger.entries(attempt=entry.attempt)}
    now = known[entry.position]
    return await ledger.advance(now, Step.FAILED, error=why) if now.step is Step.INTENT else now


async def undo_attempt(
    attempt: int,
    *,
    airflow: AirflowGateway,
    ledger: ActionLedger,
    catalogue: ActionCatalogue,
    sleep: Sleep,
) -> tuple[LedgerEntry, ...]:
    """Take back what one attempt wrote, last write first; call it again after any interruption.

    What cannot be undone (a task that ran) stays `confirmed`. Raises `UndoBlocked` at the first write that
    somebody else changed since; what comes before it in the attempt is then left for a person too.
    """
    hand = _Hand(airflow, ledger, catalogue, sleep)
    entries = await ledger.entries(attempt=attempt)
    return tuple(reversed([await hand.take_back(entry) for entry in reversed(entries)]))


@dataclass(frozen=True)
class _Hand:
    """One write at a time."""

    airflow: AirflowGateway
    ledger: ActionLedger
    catalogue: ActionCatalogue
    sleep: Sleep

    def kind(self, entry: LedgerEntry) -> AnyKind:
        return self.catalogue.get(entry.action.name)

    async def capture(self, action: Action) -> JsonValue:
        return await self.catalogue.get(action.name).capture(self.airflow, action)

    async def wait_for(self, done: list[LedgerEntry]) -> None:
        """The next action may need what the last one set going."""
        if not done or done[-1].step is not Step.CONFIRMED:
            return
        last = done[-1]
        if not await self.kind(last).finished(self.airflow, last.action, key=last.key):
            raise NotYet(f"still at work in Airflow: {self.catalogue.describe(last.action)}")

    async def bring_home(self, entry: LedgerEntry, guard: Guard) -> LedgerEntry:
        """From wherever the entry stands to `confirmed`."""
        if entry.step is Step.FAILED:
            raise Conflict(f"{entry.key} failed before: {entry.error}")
        if entry.step is Step.UNDONE:
            raise StalePlan(f"{entry.key} was taken back already")
        if entry.step is Step.SENT:
            entry = await self._settle(entry, accepted=False)
        for _ in range(SENDS):
            if entry.step is Step.CONFIRMED:
                return entry
            entry = await self._send(entry, guard)
        if entry.step is Step.CONFIRMED:
            return entry
        raise AirflowUnreachable(f"{entry.key}: sent {SENDS} times and never arrived")

    async def _send(self, entry: LedgerEntry, guard: Guard) -> LedgerEntry:
        kind = self.kind(entry)
        if kind.writes:
            await guard()
            if not same(await self.capture(entry.action), entry.before):
                raise StalePlan(f"{self.catalogue.describe(entry.action)}: what it would change has changed")
        begun = time.monotonic()
        entry = await self.ledger.advance(entry, Step.SENT)
        if kind.writes and time.monotonic() - begun > LEAVES:
            return await self._settle(entry, accepted=False)
        try:
            with leaving(begun):
                await kind.apply(self.airflow, entry.action, before=entry.before, key=entry.key)
        except (AirflowRefused, ActionRefused) as exc:
            await self.ledger.advance(entry, Step.FAILED, error=_words(exc))
            raise
        except AirflowUnreachable:
            return await self._settle(entry, accepted=False)
        return await self._settle(entry, accepted=True)

    async def _settle(self, entry: LedgerEntry, *, accepted: bool) -> LedgerEntry:
        """Let Airflow say what became of a write that was sent."""
        seen = await self._look(entry)
        if seen.found is Found.DONE:
            return await self.ledger.advance(entry, Step.CONFIRMED, after=seen.after)
        if seen.found is Found.NOT_DONE and not accepted:
            return await self.ledger.advance(entry, Step.INTENT, error=seen.why)
        if seen.found is Found.OVERTAKEN and accepted:
            # Airflow took our write and somebody was there right after us; undo will find that out.
            return await self.ledger.advance(entry, Step.CONFIRMED, after=seen.after, error=seen.why)
        await self.ledger.advance(entry, Step.FAILED, error=seen.why)
        if accepted:
            raise Conflict(f"{self.catalogue.describe(entry.action)}: accepted, and {seen.why}")
        raise StalePlan(f"{self.catalogue.describe(entry.action)}: {seen.why}")

    async def _look(self, entry: LedgerEntry) -> Confirmation:
        """Read back until it is done, or until it is clear that it is not: an answer may come late."""
        seen = await self._confirm(entry)
        for pause in LOOKS:
            if seen.found is not Found.NOT_DONE:
                break
            await self.sleep(pause)
            seen = await self._confirm(entry)
        return seen

    async def _confirm(self, entry: LedgerEntry) -> Confirmation:
        return await self.kind(entry).confirm(self.airflow, entry.action, before=entry.before, key=entry.key)

    async def take_back(self, entry: LedgerEntry) -> LedgerEntry:
        if entry.step is Step.SENT:
            entry = await self._resolve(entry)
        if entry.step is Step.INTENT:
            return await self.ledger.advance(entry, Step.FAILED, error="withdrawn before it was sent")
        if entry.step is not Step.CONFIRMED or not self.kind(entry).undoable:
            return entry
        await self._undo(entry)
        return await self.ledger.advance(entry, Step.UNDONE, after=entry.before)

    async def _resolve(self, entry: LedgerEntry) -> LedgerEntry:
        """A write whose end nobody saw, and that is not wanted any more."""
        seen = await self._look(entry)
        if seen.found is Found.DONE:
            return await self.ledger.advance(entry, Step.CONFIRMED, after=seen.after)
        return await self.ledger.advance(entry, Step.FAILED, error=seen.why)

    async def _undo(self, entry: LedgerEntry) -> None:
        """Undo reads before it writes, so after doubt the same call again is safe."""
        undo = self.kind(entry).undo
        for pause in LOOKS:
            try:
                await undo(self.airflow, entry.action, before=entry.before, after=entry.after)
            except AirflowDoubt:
                await self.sleep(pause)
                continue
            return
        await undo(self.airflow, entry.action, before=entry.before, after=entry.after)


def _words(exc: Exception) -> str:
    return str(exc) or type(exc).__name__
