"""Three doors, one identity: the listener, the webhook and the poll all end in the same occurrence."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta

import structlog
from pydantic import JsonValue

from graph.domain import (
    STARTED_STATES,
    Door,
    FailureId,
    ImportFailure,
    IncidentKind,
    TaskRef,
    TaskSnapshot,
)
from graph.errors import (
    AirflowRefused,
    AirmedicError,
    EventInvalid,
    LeaseLost,
    NotFound,
    StoreUnavailable,
)
from server.correlation import CauseLook
from server.drift import STEP
from server.driving import Taker
from server.events import TaskEvent
from server.fold_new import Folding, Sorted
from server.record import IncidentRecord, Occurrence
from server.rush import Rush
from server.snapshots import take_snapshots
from server.store import LONGEST_PAUSE, IncidentStore
from tools.correlation import Cause
from tools.gateway import AirflowGateway
from tools.import_errors import broken_file, file_ref
from tools.missed import missed_schedule

log = structlog.get_logger("intake")

AT_ONCE = 16  # occurrences that Airflow is asked about at the same time
PAGE = 500  # occurrences that are looked at together
FAILURES = 500  # that Airflow is asked for at a time
PAGES = 20  # of them in one poll: the next one goes on behind
REST = timedelta(seconds=0.25)  # before an Airflow that did not answer is asked about the next ones
NOTED = timedelta(seconds=2)  # between two notes that a door is used
HEAD_START = timedelta(seconds=3)  # the listener's, before the poll counts a failure as missed by it
OVERLAP = timedelta(seconds=60)  # the poll looks back so far again; identity removes the repeats
PATIENCE = timedelta(hours=1)  # a claimed failure that Airflow denies so long is dropped
CHECKS = 30  # after so many the pause between two has long been the longest
FAILING = frozenset({"failed", "up_for_retry"})
WAITING = frozenset({"scheduled", "queued"})
WATERMARK = "poll_watermark"
FLOOR = "poll_floor"  # the first poll ever: what failed before is not ours

Learner = Callable[[Sequence[TaskSnapshot]], Awaitable[None]]
Opener = Callable[[Occurrence, int], None]


class Intake:
    """Turns deliveries and Airflow's own lists into occurrences, and confirmed occurrences into incidents."""

    def __init__(
        self,
        *,
        store: IncidentStore,
        airflow: AirflowGateway,
        airflow_id: str,
        stuck_after: timedelta,
        ring: Callable[[], None],
        clock: Callable[[], datetime],
        look: CauseLook | None = None,
        rush: Rush | None = None,
        taker: Callable[[], Taker | None] = lambda: None,
    ) -> None:
        """`taker`: who drives what is opened now, when somebody has a hand free."""
        self._store = store
        self._taker = taker
        self._airflow = airflow
        self._airflow_id = airflow_id
        self._stuck_after = stuck_after
        self._ring = ring
        self._clock = clock
        self._rush = rush or Rush()
        self._folding = Folding(store, look, clock=clock) if look is not None else None
        self._seen: dict[TaskRef, tuple[str, int]] = {}
        self._noted: dict[Door, datetime] = {}
        self._away = False
        self._rest_until = datetime.min.replace(tzinfo=UTC)
        self.learners: list[Learner] = []  #: shown every task instance that moved
        self.bell = asyncio.Event()  #: rung when there is something to admit
        self.openers: list[Opener] = []  #: told of every occurrence that an incident takes up

    async def deliver(self, event: TaskEvent, *, door: Door, delivery: str | None = None) -> bool:
        """Store what a delivery tells, committed on return; whether it was new. Raises `EventInvalid`."""
        if event.airflow != self._airflow_id:
            raise EventInvalid(
                f"this server looks after the Airflow {self._airflow_id!r} (AIRMEDIC_AIRFLOW_ID)"
            )
        if event.event == "dag_import_error":
            return False
        failure = event.failure()
        self._rush.note()
        if event.event == "task_instance_recovered":
            await self._store.wake({(failure.task.dag_id, failure.task.run_id)})
            self._ring()
            return False
        new = await self._store.accept([failure], door=door, error=event.error, delivery=delivery)
        self.bell.set()
        try:
            if event.dropped and new:
                data = {"number": event.dropped, "door": door.value}
                await self._store.add_event("events_dropped", node="intake", level="warning", data=data)
            if not self._just_noted(door):
                await self._note_seen(door)
        except StoreUnavailable as exc:  # what was accepted is committed: its sender is told so
            log.warning("delivery_not_noted", door=door.value, dropped=event.dropped, error=str(exc))
        return bool(new)

    async def admit(self) -> int:
        """Give failures of a known cause to its incident, and ask Airflow about the others."""
        opened = 0
        while found := await self._store.new_occurrences(limit=(page := self._rush.at_once(PAGE))):
            await self._rush.turn()
            sorted_out = await self._sorted_out(found)
            opened += sorted_out.folded
            if sorted_out.to_ask and not self._rests():
                opened += await self._ask_about(sorted_out.to_ask)
            elif not sorted_out.folded:
                break  # Airflow was away a moment ago
            if len(found) < page and not sorted_out.held:
                break
        if self._folding is not None:
            await self._folding.tell()
        if opened:
            self._ring()
        return opened

    def _rests(self) -> bool:
        """Airflow was away a moment ago. A moment of a clock that was put back since is over."""
        now = self._clock()
        return now < self._rest_until <= now + REST

    async def _sorted_out(self, found: list[Occurrence]) -> Sorted:
        if self._folding is None:
            return Sorted(to_ask=[(one, None) for one in found])
        return await self._folding.sort_out(found)

    async def _ask_about(self, waiting: Sequence[tuple[Occurrence, Cause | None]]) -> int:
        """A few at the same time; what is opened together is committed together."""
        opened = 0
        start = 0
        while some := waiting[start : start + self._rush.at_once(AT_ONCE)]:
            start += len(some)
            await self._rush.turn()
            opened += sum(await asyncio.gather(*(self._admit_one(one, cause) for one, cause in some)))
            if self._away:  # the others can wait too
                self._rest_until = self._clock() + REST
                break
        return opened

    async def _admit_one(self, occurrence: Occurrence, cause: Cause | None) -> int:
        if occurrence.kind is IncidentKind.IMPORT_ERROR:
            return await self._open(occurrence, broken_file(occurrence.task))
        if occurrence.kind is IncidentKind.MISSED_SCHEDULE:
            # Whether it is still so is the first thing that the incident's own run asks.
            return await self._open(occurrence, missed_schedule(occurrence.task, paused=False))
        try:
            snapshot = await self._airflow.task(occurrence.task)
        except NotFound:
            await self._store.reject_occurrence(occurrence.id, "Airflow knows no such task instance")
            log.info("event_rejected", dag_id=occurrence.task.dag_id, reason="unknown task instance")
            return 0
        except AirmedicError as exc:
            await self._postpone(occurrence)  # however long it takes: what was accepted is not lost
            self._away = not isinstance(exc, AirflowRefused)
            return 0
        self._away = False
        return await self._weigh(occurrence, snapshot, cause)

    def _just_noted(self, door: Door) -> bool:
        """When a door last brought something is known to the second or so: not a write for each event."""
        noted = self._noted.get(door)
        return noted is not None and abs(self._clock() - noted) < NOTED

    async def _note_seen(self, door: Door) -> None:
        now = self._noted[door] = self._clock()
        await self._store.remember(f"seen_{door.value}", now.isoformat())

    async def _weigh(self, occurrence: Occurrence, snapshot: TaskSnapshot, cause: Cause | None) -> int:
        if occurrence.kind is IncidentKind.STUCK:
            if snapshot.state not in WAITING:
                await self._store.reject_occurrence(occurrence.id, f"the task is {snapshot.state} now")
                return 0
            return await self._open(occurrence, snapshot)
        same_try = snapshot.try_number == occurrence.try_number
        if occurrence.kind is IncidentKind.STUCK_RUNNING:
            if snapshot.state not in STARTED_STATES or not same_try:
                await self._store.reject_occurrence(occurrence.id, f"the task is {snapshot.state} now")
                return 0
            return await self._open(occurrence, snapshot)
        if snapshot.try_number < occurrence.try_number:
            await self._store.reject_occurrence(occurrence.id, f"Airflow is at try {snapshot.try_number}")
            return 0
        if same_try and snapshot.final and snapshot.state not in FAILING:
            await self._store.reject_occurrence(occurrence.id, f"Airflow says the task is {snapshot.state}")
            return 0
        if same_try and snapshot.state not in FAILING:
            # The listener fires before Airflow commits the state.
            if self._clock() - occurrence.received_at > PATIENCE:
                told = f"not confirmed within {PATIENCE}: Airflow still says {snapshot.state}"
                await self._store.reject_occurrence(occurrence.id, told)
            else:
                await self._postpone(occurrence)
            return 0
        return await self._open(occurrence, snapshot, cause)

    async def _open(self, occurrence: Occurrence, snapshot: TaskSnapshot, cause: Cause | None = None) -> int:
        task = occurrence.task
        data: dict[str, JsonValue] = {
            "door": occurrence.door.value,
            "kind": occurrence.kind.value,
            "try_number": occurrence.try_number,
            "state": snapshot.state,
            "failed_at": snapshot.end.isoformat() if snapshot.end else None,
        }
        try:
            incident_id, created = await self._store.open_incident(
                occurrence, snapshot, data=data, cause=cause, taker=self._taker()
            )
        except LeaseLost as exc:  # we were stopped meanwhile, and the duty is another's
            log.info("event_taken_up", reason=str(exc))
            return 0
        for tell in self.openers:
            tell(occurrence, incident_id)
        name = "opened" if created else "joined"
        log.info(name, incident_id=incident_id, dag_id=task.dag_id, task_id=task.task_id, door=data["door"])
        return 1

    async def _postpone(self, occurrence: Occurrence) -> None:
        longest = LONGEST_PAUSE.total_seconds()
        pause = min(0.25 * 1.3 ** min(occurrence.checks, CHECKS), longest)
        until = self._clock() + timedelta(seconds=pause)
        await self._store.postpone_occurrence(occurrence, until=until)
        asyncio.get_running_loop().call_later(pause, self.bell.set)

    async def poll(self) -> None:
        """Ask Airflow what failed, moved, waits or does not import: four requests, or a few more."""
        now = self._clock()
        floor = await self._time(FLOOR, now)
        mark = await self._time(WATERMARK, now)
        ahead = mark > now + timedelta(seconds=STEP)
        if ahead or await self._store.sleeps_by_another_clock():  # put back, perhaps while nobody ran
            self._rest_until, mark = now, min(mark, now)
            await self._store.wake_sleepers()
            self.bell.set()
            self._ring()
        since = mark - OVERLAP
        found, until = await self._failed(max(floor, since), now)
        found += await self._stuck(await self._airflow.waiting_tasks(), now)
        found += self._broken(await self._airflow.import_failures())
        if found and (missed := await self._store.accept(found, door=Door.POLL)):
            log.info("poll_found", failures=missed)
            self.bell.set()
            self._ring()
        await self._wake_moved(await self._airflow.updates_since(since))
        await self._store.remember(WATERMARK, min(now, until + OVERLAP).isoformat())

    async def _failed(self, since: datetime, now: datetime) -> tuple[list[FailureId], datetime]:
        """What failed, oldest first, and up to when that is all: one poll does not read a whole storm."""
        found: list[FailureId] = []
        ripe, limit = now - HEAD_START, FAILURES
        for _ in range(PAGES):
            page = await self._airflow.failures_since(since, limit=limit)
            found += [
                FailureId(airflow=self._airflow_id, task=one.task, try_number=one.try_number)
                for one in page
                if one.end is None or one.end <= ripe
            ]
            if len(page) < limit:
                return found, now
            last = max((one.end for one in page if one.end is not None), default=since)
            # So many at the same moment: only a longer page shows what comes behind them.
            since, limit = (last, FAILURES) if last > since else (since, 4 * limit)
        return found, min(since, ripe)

    async def _stuck(self, waiting: Sequence[TaskSnapshot], now: datetime) -> list[FailureId]:
        """Task instances that have been due for too long, and not because their pool is busy with others."""
        late = [one for one in waiting if one.updated and one.updated + self._stuck_after <= now]
        held = {name for name in sorted({one.pool for one in late}) if not await self._could_start(name)}
        return [
            FailureId(
                airflow=self._airflow_id,
                task=one.task,
                try_number=one.try_number,
                kind=IncidentKind.STUCK,
            )
            for one in late
            if one.pool not in held
        ]

    async def _could_start(self, name: str) -> bool:
        """Whether others are not the reason for the wait: the pool has room, or will never have any."""
        try:
            pool = await self._airflow.pool(name)
        except NotFound:
            return True  # a name that is no pool's: Airflow never starts the task, and says so to nobody
        return pool.slots == 0 or pool.occupied < pool.slots

    def _broken(self, failures: Sequence[ImportFailure]) -> list[FailureId]:
        """DAG files that do not import; another error in the same file is another occurrence."""
        return [
            FailureId(
                airflow=self._airflow_id,
                task=file_ref(one),
                try_number=0,
                kind=IncidentKind.IMPORT_ERROR,
            )
            for one in failures
        ]

    async def _time(self, key: str, missing: datetime) -> datetime:
        known = await self._store.setting(key)
        if isinstance(known, str):
            return datetime.fromisoformat(known)
        await self._store.remember(key, missing.isoformat())
        return missing

    async def _wake_moved(self, listed: tuple[TaskSnapshot, ...]) -> None:
        now = {one.task: one for one in listed}
        before, self._seen = self._seen, {one.task: (one.state, one.try_number) for one in listed}
        moved = {ref for ref, seen in self._seen.items() if before.get(ref) != seen}
        if not moved:
            return
        for learn in self.learners:
            await learn([now[ref] for ref in moved])
        await take_snapshots(self._store, self._airflow, [now[ref] for ref in moved], now=self._clock())
        if await self._store.wake({(ref.dag_id, ref.run_id) for ref in moved}):
            self._ring()
        for record in await self._store.asking(runs={(ref.dag_id, ref.run_id) for ref in now}):
            if (present := now.get(record.task)) is not None:
                await self._withdraw_if_moved(record, present)

    async def _withdraw_if_moved(self, record: IncidentRecord, present: TaskSnapshot) -> None:
        if isinstance(record.question, dict) and record.question.get("rule") == "members":
            return  # it is about others: this one is well by now
        if (present.state, present.try_number) == ("failed", record.try_number):
            return
        reason = f"the task is {present.state} on try {present.try_number} now"
        await self._store.withdraw(record.id, version=record.version, reason=reason)
        self._ring()
