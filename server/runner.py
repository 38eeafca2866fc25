"""Drives incidents: claims what is due, resumes its graph, records each update, and lets it sleep again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

import structlog
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from graph.checkpoint import CarriedSaver
from graph.domain import Answer, AnswerKind, Outcome, RootCause, Severity, Status, TaskSnapshot
from graph.errors import AirmedicError, LeaseLost, StoreUnavailable
from graph.state import HealState
from nodes.deps import Deps
from server.background import forever
from server.db.group_writer import Writing
from server.draft import Draft
from server.drift import Drift
from server.driving import Fresh, Taken, Taker
from server.hands import Hands
from server.narration import columns_of, events_of
from server.observe.heartbeats import Heartbeats
from server.opening import REOPENED
from server.people.notices import of_outcome, of_question
from server.people.notifier import Notice, Notifier
from server.precedence import Newcomer, Precedence
from server.record import IncidentRecord, Lease
from server.rush import Rush
from server.store import IncidentStore
from tools.carry_out import undo_attempt
from tools.ledger import WRITTEN

log = structlog.get_logger("runner")

# A diagnosis is what people wait for: new failures go before healings that go on, but for each fourth time.
OTHERS_TURN = 4
FEW = 2  # incidents in hand with which a process of several still takes what it opens itself
HEARTBEAT = 10.0  # seconds between two renewals of a lease of 30 s
TICK = 1.0  # seconds between two looks for incidents whose time has come
BACKOFF = (2.0, 5.0, 15.0, 30.0, 60.0)  # seconds after the first, second, … error in a row
UNRECORDED = 1.0  # seconds an incident rests when nothing more could be written of its drive
GIVE_UP = 50  # errors in a row after which a person must look
AWAY = 340  # the same, of an Airflow or a database that does not answer: about a day
SELDOM = 300.0  # seconds between two looks when there were so many that another error had ended it
AGAIN = "it was opened again"

Graph = CompiledStateGraph[HealState, Deps, HealState, HealState]


class MakeDeps(Protocol):
    """Builds the world of one incident's run: the ledger in it is bound to the draft and its lease."""

    def __call__(self, draft: Draft, record: IncidentRecord, seen: TaskSnapshot | None) -> Deps: ...


# Where a reopened incident begins again; attempts, spent plans and people's words are kept.
AFRESH: HealState = {
    "outcome": None,
    "reason": "",
    "intervene": False,
    "plan": None,
    "decision": None,
    "asked": False,
    "applied": False,
    "undo": False,
    "stale": "",
    "watch_until": None,
}


class Looked:
    """Ends a newcomer's precedence as soon as its diagnosis is on record; a part of its draft."""

    def __init__(self, newcomer: Newcomer, draft: Draft) -> None:
        self._newcomer = newcomer
        self._draft = draft

    async def write(self, writing: Writing) -> None:
        """Nothing of its own."""

    def written(self) -> None:
        """What the draft had was committed."""
        if "root_cause" in self._draft.columns:
            self._newcomer.over()


@dataclass(frozen=True)
class Skipped:
    """Nothing to do yet; look again then."""

    until: datetime | None


class Runner:
    """One process's driver. Any number of them may share a store: leases keep them apart."""

    def __init__(
        self,
        *,
        store: IncidentStore,
        graph: Graph,
        make_deps: MakeDeps,
        notifier: Notifier,
        clock: Callable[[], datetime],
        owner: str,
        beats: Heartbeats | None = None,
        callbacks: Sequence[BaseCallbackHandler] = (),
        rush: Rush | None = None,
        shared: bool = False,
    ) -> None:
        """`shared`: other processes drive incidents of the same store."""
        self._store = store
        self._shared = shared
        self._beats = beats or Heartbeats()
        self._callbacks = list(callbacks)
        self._graph = graph
        assert isinstance(graph.checkpointer, CarriedSaver), "the runner stores what its saver carries"
        self._saver = graph.checkpointer
        self._make_deps = make_deps
        self._notifier = notifier
        self._clock = clock
        self.owner = owner
        self._running = False
        self._rush, self._hands = rush or Rush(), Hands()
        self._precedence = Precedence()
        self._drift, self._put_back = Drift(clock), False
        self._claims = 0
        self._bell = asyncio.Event()
        self._driving: dict[asyncio.Task[None], int] = {}

    def ring(self) -> None:
        """Something happened: look for due incidents now."""
        self._bell.set()

    async def run(self) -> None:
        """Drive until cancelled."""
        self._running = True
        try:
            await forever("runner", self._round, every=TICK, beats=self._beats, bell=self._bell)
        finally:
            self._running = False
            await self.drain()

    async def _round(self) -> None:
        await self._heed_clock()
        await self.drive_due()

    async def _heed_clock(self) -> None:
        """When the clock was put back, what slept until a time of before is looked at now."""
        self._put_back = self._drift.went_back() or self._put_back
        if not self._put_back:
            return
        try:
            woken = await self._store.wake_sleepers()
        except AirmedicError as exc:
            log.warning("sleepers_not_woken", error=str(exc))
            return
        self._put_back = False
        log.warning("clock_put_back", woken=woken)

    async def drive_due(self) -> int:
        """Start driving whatever is due; returns how many were started."""
        most = self._rush.at_once(self._hands.at_once())
        new = self._precedence.newcomers
        others = len(self._driving) - new
        # However many healings go on, there are hands for what nobody has looked at yet.
        free, fresh = most - others, Fresh.FIRST
        if free <= 0:
            free, fresh = most - new, Fresh.ALONE
        if free <= 0:
            return 0
        self._claims += 1
        if fresh is Fresh.FIRST and self._claims % OTHERS_TURN == 0:
            fresh = Fresh.ALIKE
        try:
            leases = await self._store.claim_due(
                owner=self.owner, limit=free, in_hand=self._in_hand, fresh=fresh
            )
            taken = await self._store.taken(leases) if leases else {}
        except AirmedicError as exc:
            log.error("claim_failed", error=str(exc))
            return 0
        for lease in leases:
            self._begin(lease, taken.get(lease.incident_id))
        return len(leases)

    def taker(self) -> Taker | None:
        """Us, when a hand is free for what is opened now: it needs no claim of its own then.

        Where others drive, too, only when we have next to nothing to do: a claim shares the work out.
        """
        most = self._rush.at_once(self._hands.at_once())
        free = len(self._driving) < FEW if self._shared else self._precedence.newcomers < most
        return self if self._running and free else None

    def take(self, lease: Lease, taken: Taken) -> None:
        """Drive an incident that was opened under our lease; when we are stopping it is left to others."""
        if self._running:
            self._begin(lease, taken)

    def _begin(self, lease: Lease, taken: Taken | None) -> None:
        task = asyncio.create_task(self.drive(lease, taken), name=f"incident-{lease.incident_id}")
        self._driving[task] = lease.incident_id
        task.add_done_callback(self._done)

    @property
    def _in_hand(self) -> set[int]:
        return set(self._driving.values())

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._driving[task]
        self.ring()

    async def drain(self) -> None:
        """Stop what is being driven; it goes on where it was, here or elsewhere."""
        for task in list(self._driving):
            task.cancel()
        await asyncio.gather(*self._driving, return_exceptions=True)

    async def settle_all(self) -> None:
        """Drive until nothing is due (for tests and simulations)."""
        while await self.drive_due() or self._driving:
            await asyncio.gather(*self._driving)

    async def drive(self, lease: Lease, taken: Taken | None = None) -> None:
        """One incident, until it waits or ends. The outermost loop: it logs and records any failure."""
        draft = Draft(self._store, lease, saver=self._saver, clock=self._clock)
        with structlog.contextvars.bound_contextvars(incident_id=lease.incident_id):
            try:
                async with self._heartbeat(lease):
                    await self._rush.turn()
                    known = taken or (await self._store.taken([lease]))[lease.incident_id]
                    with self._precedence.taken_up(new=_is_new(known)) as newcomer:
                        await self._advance(draft, known, newcomer)
            except LeaseLost as exc:
                log.warning("lease_lost", reason=str(exc))
                await asyncio.sleep(UNRECORDED)
            except Exception as exc:  # noqa: BLE001  the outermost loop: a defect must not stop the others
                await self._stumble(draft, exc)
            finally:
                await draft.end()
                self._saver.drop(str(lease.incident_id))

    @asynccontextmanager
    async def _heartbeat(self, lease: Lease) -> AsyncIterator[None]:
        driver = asyncio.current_task()
        assert driver is not None
        lost: list[LeaseLost] = []

        async def beat() -> None:
            while True:
                await asyncio.sleep(HEARTBEAT)
                try:
                    await self._store.renew(lease)
                except LeaseLost as exc:
                    lost.append(exc)
                    driver.cancel()
                    return
                except StoreUnavailable as exc:  # it may be back by the next beat, before the lease ends
                    log.warning("lease_not_renewed", error=str(exc))

        beating = asyncio.create_task(beat())
        try:
            yield
        except asyncio.CancelledError:
            if lost:
                driver.uncancel()
                raise lost[0] from None
            raise
        finally:
            beating.cancel()

    async def _advance(self, draft: Draft, taken: Taken, newcomer: Newcomer) -> None:
        draft.parts.append(Looked(newcomer, draft))
        await newcomer.step()
        record = taken.record
        thread = str(record.id)
        self._saver.take_up(thread, taken.checkpoint)
        finished = self._saver.values(thread).get("outcome") is not None
        if self._over(record):
            # An answer that was accepted a moment ago counts: whoever gave it was told so.
            record = await self._store.end_question(draft.lease)
        deps = self._make_deps(draft, record, taken.seen)
        afresh = await self._afresh(thread, record, deps) if record.answer == REOPENED else None
        given = afresh or self._next_input(thread, record)
        if isinstance(given, Skipped):
            await draft.settle(wake_at=given.until)
            return
        config: RunnableConfig = {
            "configurable": {"thread_id": thread},
            "recursion_limit": 60,
            "callbacks": self._callbacks,
        }
        if afresh or not finished:
            # The saver is in memory: `sync` only says that it is up to date before the next node begins.
            async for update in self._graph.astream(
                given, config, context=deps, stream_mode="updates", durability="sync"
            ):
                self._note(draft, update)
                if afresh and not self._saver.interrupts(thread):
                    await draft.flush(answer=None)  # it has begun again: an error later begins no other time
                    afresh = None
                await self._rush.turn()
                await newcomer.step()
        await self._rest(draft, record)

    def _over(self, record: IncidentRecord) -> bool:
        """Whether a question's time has come to its end, and nobody had answered when it was read."""
        asked = record.status is Status.WAITING_DECISION and record.answer is None
        return asked and (record.expires_at is None or self._clock() >= record.expires_at)

    async def _afresh(self, thread: str, record: IncidentRecord, deps: Deps) -> HealState | None:
        """What a reopened incident starts from; None when something under way must come to its end first."""
        values = self._saver.values(thread)
        if not values:
            return None
        begin: HealState = {**AFRESH, "incident": record.to_domain()}
        if values.get("outcome") is not None:
            return begin
        if values.get("applied") or values.get("undo") or values.get("release"):
            return None
        attempt = values.get("attempt", 0) + 1
        entries = await deps.ledger.entries(attempt=attempt)
        if any(entry.step in WRITTEN and deps.catalogue.get(entry.action.name).writes for entry in entries):
            return None
        if not entries:
            return begin
        await undo_attempt(
            attempt, airflow=deps.airflow, ledger=deps.ledger, catalogue=deps.catalogue, sleep=deps.sleep
        )
        return {**begin, "attempt": attempt}

    def _next_input(self, thread: str, record: IncidentRecord) -> Any:
        """The first input, the answer to an interrupt, or None to go on after a crash."""
        if not self._saver.values(thread):
            return {"incident": record.to_domain(), "attempt": record.attempt}
        interrupts = self._saver.interrupts(thread)
        if not interrupts:
            return None
        waiting = interrupts[0]
        if waiting.value.get("status") != Status.WAITING_DECISION.value:
            return Command(resume={waiting.id: {"woken_at": self._clock().isoformat()}})
        answer = record.answer
        if answer == REOPENED:  # it was given up while an answer was taken up: it is asked again
            answer = Answer(kind=AnswerKind.STALE, by="airmedic", message=AGAIN).model_dump(mode="json")
        if answer is None:
            if record.expires_at is not None and self._clock() < record.expires_at:
                return Skipped(until=record.expires_at)
            answer = Answer(kind=AnswerKind.EXPIRED, by="airmedic").model_dump(mode="json")
        return Command(resume={waiting.id: answer})

    def _note(self, draft: Draft, update: dict[str, Any]) -> None:
        for node, change in update.items():
            if node.startswith("__") or change is None:
                continue
            events = events_of(node, change)
            for event in events:
                log.info(event["name"], node=node)
            draft.add(events, columns_of(change))

    async def _rest(self, draft: Draft, record: IncidentRecord) -> None:
        """The graph stopped: it waits, or it ended."""
        thread = str(record.id)
        if interrupts := self._saver.interrupts(thread):
            await self._wait(draft, record, interrupts[0].value)
            return
        values = self._saver.values(thread)
        outcome: Outcome = values["outcome"]
        reason = values.get("reason", "")
        escalated = outcome in {Outcome.ESCALATED, Outcome.EXPIRED}
        ended: dict[str, Any] = {"status": Status.ESCALATED.value}
        if not escalated:
            ended = {"status": Status.CLOSED.value, "closed_at": self._clock(), "open_key": None}
        event = {"name": "ended", "data": {"outcome": outcome.value, "reason": reason}}
        notice = of_outcome(_as_found(record, draft.columns), outcome, reason)
        await draft.settle(
            wake_at=None,
            events=[event],
            notices=[notice] if notice is not None else [],
            # The row keeps what happened; the checkpoint was for going on.
            closed=not escalated,
            outcome=outcome.value,
            reason=reason,
            version=record.version + 1,
            question=None,
            answer=None,
            expires_at=None,
            failures=0,
            **ended,
        )
        log.info("ended", outcome=outcome.value, reason=reason)
        await self._tell(notice)

    async def _wait(self, draft: Draft, record: IncidentRecord, value: dict[str, Any]) -> None:
        until = datetime.fromisoformat(value["until"]) if "until" in value else None
        status = Status(value["status"])
        question = value.get("question")
        if question is None:
            noted = [{"name": "waiting", "data": {"reason": value["note"]}}] if "note" in value else []
            await draft.settle(
                wake_at=until, events=noted, suspended=True, status=status.value, answer=None, failures=0
            )
            return
        asked = {"name": "asked", "node": "human", "data": {"summary": question["summary"]}}
        notice = of_question(_as_found(record, draft.columns), question, until=until)
        await draft.settle(
            wake_at=until,
            events=[asked],
            notices=[notice],
            suspended=True,
            status=status.value,
            question=question,
            expires_at=until,
            version=record.version + 1,
            answer=None,
            failures=0,
        )
        await self._tell(notice)

    async def _tell(self, notice: Notice | None) -> None:
        """After the commit, and for this process only: people hear of it from the outbox."""
        if notice is not None:
            await self._notifier.tell(notice)

    async def _stumble(self, draft: Draft, exc: Exception) -> None:
        """Record the failure and come back later; after many in a row a person must look."""
        try:
            record = await self._store.incident(draft.lease.incident_id)
            known = isinstance(exc, AirmedicError)
            log.warning("step_failed", error=str(exc), kind=type(exc).__name__, exc_info=not known)
            failures = record.failures + 1
            told = _storable(str(exc)) if known else ""
            event = {
                "name": "step_failed",
                "level": "warning",
                "data": {"error": told or type(exc).__name__, "in_a_row": failures},
            }
            away = isinstance(exc, AirmedicError) and exc.retryable
            if failures >= (AWAY if away else GIVE_UP):
                last = f"{type(exc).__name__}: {told}" if told else type(exc).__name__
                reason = f"{failures} errors in a row, the last: {last}"
                notice = of_outcome(record, Outcome.ESCALATED, reason)
                await self._put_down(
                    draft,
                    wake_at=None,
                    events=[event],
                    notices=[notice] if notice is not None else [],
                    status=Status.ESCALATED.value,
                    outcome=Outcome.ESCALATED.value,
                    reason=reason,
                    version=record.version + 1,
                    question=None,
                    answer=None,
                    expires_at=None,
                )
                return
            pause = SELDOM if failures >= GIVE_UP else BACKOFF[min(failures, len(BACKOFF)) - 1]
            until = self._clock() + timedelta(seconds=pause)
            await self._put_down(draft, wake_at=until, events=[event], failures=failures)
        except AirmedicError as again:
            # Still leased to us and no longer in hand: it is claimed again when the database is back.
            log.error("stumble_unrecorded", error=str(again))
            await asyncio.sleep(UNRECORDED)

    async def _put_down(self, draft: Draft, **given: Any) -> None:
        """Settle with what the drive has found; without it when just that is what cannot be stored."""
        try:
            await draft.settle(**given)
        except AirmedicError:
            raise
        except Exception as exc:  # noqa: BLE001  still the outermost loop: it would come round for ever
            log.warning("draft_dropped", kind=type(exc).__name__)
            await self._store.settle(draft.lease, **given)


def _is_new(taken: Taken) -> bool:
    return taken.record.status is Status.OPEN and taken.checkpoint is None


def _storable(text: str) -> str:
    """Without what a database refuses: NUL, half characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _as_found(record: IncidentRecord, columns: dict[str, Any]) -> IncidentRecord:
    """The record with what this drive has found, as far as notices speak of it."""
    update: dict[str, Any] = {}
    if "severity" in columns:
        update["severity"] = Severity(columns["severity"])
    if columns.get("root_cause") is not None:
        update["root_cause"] = RootCause(columns["root_cause"])
    return record.model_copy(update=update)
