"""Finds runs that were due and were never made.

Airflow lists its DAGs with the time at which each one's next run is due; that costs one request for a hundred
DAGs, a few pages in each round. Only a DAG whose time has come, or whose schedule is paused, is looked at
itself, a few in each round, and ever more seldom while nothing comes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from graph.domain import RUNNING_STATES, DagInfo, Door, FailureId, IncidentKind, RunSnapshot
from graph.errors import AirflowRefused, NotFound
from server.store import IncidentStore
from server.watch.store import Suspect, WatchStore
from tools.gateway import AirflowGateway
from tools.missed import AUTOMATED, MOST, as_now, missing_since, schedule_ref

log = structlog.get_logger("watch")

PAGES = 10  # of 100 DAGs in one round; more DAGs than that take turns
LOOKS = 5  # DAGs looked at in one round, two requests each
WITHDRAWN = 5  # questions compared with Airflow in one round
RUNS = 25  # of a DAG, newest first
PAUSED_MISSES = 2  # intervals: a pause over one run is how people deploy
PAUSED_LONG = timedelta(hours=12)  # one missed run of a seldom DAG counts after that
OLD, OLD_MISSES = timedelta(days=7), 10  # so long and so often: it is meant to stand still
SOON, SELDOM, NEVER_SOON = timedelta(seconds=10), timedelta(minutes=30), timedelta(hours=6)


class ScheduleWatch:
    """One round each time `scan` is called."""

    def __init__(
        self,
        *,
        store: IncidentStore,
        memory: WatchStore,
        airflow: AirflowGateway,
        airflow_id: str,
        late_after: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._memory = memory
        self._airflow = airflow
        self._airflow_id = airflow_id
        self._late_after = late_after
        self._clock = clock
        self._offset = 0

    async def scan(self, *, scheduler_well: bool) -> int:
        """Look at some pages of DAGs and at some suspects; how many new gaps were found.

        While the scheduler is down no DAG that runs is suspected: that is one trouble, not hundreds.
        """
        suspects = await self._memory.suspects()
        noted = self._note(suspects, await self._listed())
        await self._memory.put_suspects(noted)
        known = {**suspects, **{one.dag_id: one for one in noted}}
        due = [one for one in known.values() if one.check_at <= self._clock()]
        if not scheduler_well:
            due = [one for one in due if one.paused]
        found = 0
        for suspect in sorted(due, key=lambda one: one.check_at)[:LOOKS]:
            found += await self._examine(suspect)
        await self._withdraw_filled()
        return found

    async def _listed(self) -> list[DagInfo]:
        listed: list[DagInfo] = []
        for _ in range(PAGES):
            page = await self._airflow.dags(offset=self._offset, limit=100)
            listed += page
            if len(page) < 100:
                self._offset = 0
                break
            self._offset += 100
        return listed

    def _note(self, suspects: dict[str, Suspect], listed: Sequence[DagInfo]) -> list[Suspect]:
        """New suspects, and known ones whose pause began or ended."""
        now = self._clock()
        noted = []
        for dag in listed:
            known = suspects.get(dag.dag_id)
            if known is not None:
                if known.paused is not dag.is_paused:
                    noted.append(known.model_copy(update={"paused": dag.is_paused, "check_at": now}))
                continue
            if not dag.periodic or dag.next_run is None:
                continue
            # The first look at a paused DAG comes with its first missed run, at another once that is late.
            check_at = dag.next_run if dag.is_paused else dag.next_run + self._late_after
            if dag.is_paused or check_at <= now:
                noted.append(
                    Suspect(dag_id=dag.dag_id, due=dag.next_run, paused=dag.is_paused, check_at=check_at)
                )
        return noted

    async def _examine(self, suspect: Suspect) -> int:
        now = self._clock()
        try:
            dag = await self._airflow.dag(suspect.dag_id)
            runs = await self._airflow.recent_runs(suspect.dag_id, limit=RUNS)
            since = _last_before(runs, suspect.due)
            if since is None:
                await self._later(suspect, NEVER_SOON, "it has not run by its schedule before")
                return 0
            every = await missing_since(self._airflow, suspect.dag_id, since)
            missing = [one for one in every if one > since]
        except NotFound:
            await self._memory.put_suspects([], gone=[suspect.dag_id])
            return 0
        except AirflowRefused as exc:
            await self._later(suspect, NEVER_SOON, f"Airflow does not say what is missing: {exc}")
            return 0
        late = dag.next_run is not None and dag.next_run + self._late_after <= now
        goes_on = not dag.is_paused and not late
        if goes_on and missing:
            # What comes after its newest run is the scheduler's to make, and not late yet.
            missing = [one for one in missing if one < _newest(runs)]
            if not missing:
                await self._later(suspect, SOON, "the scheduler is about to go on")
                return 0
        if not missing:
            if goes_on:
                await self._memory.put_suspects([], gone=[suspect.dag_id])
            else:
                await self._later(suspect, self._pause(suspect, now), "nothing is missing yet")
            return 0
        if why_not := await self._excused(suspect, dag, runs, missing, now):
            pause = NEVER_SOON if len(missing) > MOST else self._pause(suspect, now)
            await self._later(suspect, pause, why_not)
            return 0
        return await self._report(suspect, missing, goes_on=goes_on)

    async def _excused(
        self,
        suspect: Suspect,
        dag: DagInfo,
        runs: Sequence[RunSnapshot],
        missing: Sequence[datetime],
        now: datetime,
    ) -> str:
        """Why what is missing is nobody's trouble, or not yet."""
        if len(missing) > MOST or (len(missing) > OLD_MISSES and now - suspect.due > OLD):
            return f"{len(missing)} runs are missing: it is meant to stand still"
        if dag.is_paused:
            if len(missing) < PAUSED_MISSES and now - suspect.due < PAUSED_LONG:
                return "paused, and one run is missing so far"
            if await self._memory.paused_by_us(suspect.dag_id):
                return "paused by Airmedic, as approved"
            return ""
        busy = [one for one in runs if one.run_type != "backfill" and one.state in RUNNING_STATES]
        if busy and all(one > _newest(runs) for one in missing):
            return f"late: it still works on {busy[0].run_id}"
        return ""

    async def _report(self, suspect: Suspect, missing: Sequence[datetime], *, goes_on: bool) -> int:
        ref = schedule_ref(suspect.dag_id, missing[0])
        failure = FailureId(
            airflow=self._airflow_id, task=ref, try_number=0, kind=IncidentKind.MISSED_SCHEDULE
        )
        new = await self._store.accept([failure], door=Door.POLL)
        if new:
            log.info("schedule_missed", dag_id=suspect.dag_id, runs=len(missing))
        told = f"{len(missing)} runs are missing since {missing[0].isoformat()}"
        if goes_on:
            # What is missing is in the incident now; what is missed from here on is another gap.
            await self._memory.put_suspects([], gone=[suspect.dag_id])
        else:
            await self._later(suspect, self._pause(suspect, self._clock()), told)
        return new

    async def _later(self, suspect: Suspect, pause: timedelta, reason: str) -> None:
        changed = suspect.model_copy(update={"check_at": self._clock() + pause, "reason": reason})
        await self._memory.put_suspects([changed])

    def _pause(self, suspect: Suspect, now: datetime) -> timedelta:
        """Ever more seldom the longer it lasts."""
        return min(max((now - suspect.due) / 4, SOON), SELDOM)

    async def _withdraw_filled(self) -> None:
        """Questions about runs that somebody made meanwhile."""
        asked = await self._store.asking(kind=IncidentKind.MISSED_SCHEDULE)
        for record in sorted(asked, key=lambda one: one.updated_at)[:WITHDRAWN]:
            try:
                now = await as_now(self._airflow, record.task)
            except AirflowRefused:
                continue
            if now.state == "made":
                reason = "the missing runs exist now"
                await self._store.withdraw(record.id, version=record.version, reason=reason)


def _last_before(runs: Sequence[RunSnapshot], due: datetime) -> datetime | None:
    """The newest interval that schedule or backfill had begun before the first one that may be missing."""
    made = [
        one.logical_date
        for one in runs
        if one.run_type in AUTOMATED and one.logical_date and (one.start is None or one.start < due)
    ]
    return max((date for date in made if date < due), default=None)


def _newest(runs: Sequence[RunSnapshot]) -> datetime:
    dates = [one.logical_date for one in runs if one.logical_date and one.run_type in AUTOMATED]
    return max(dates)
