"""Finds runs that failed though none of their tasks did: their time was over, or somebody ended them.

No task tells of such a run, and Airflow skips what had not run. It is told, and nothing is done about it:
what was skipped may be wanted or not, which a person knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydantic import JsonValue

from graph.domain import RunSnapshot, Severity
from graph.errors import NotFound
from server.watch.findings import Finding, Findings, Sight
from server.watch.store import WatchStore
from tools.gateway import AirflowGateway

KIND = "run_failed"
BEFORE = timedelta(hours=1)  # what ended so long before the first look is told too
OVERLAP = timedelta(seconds=60)  # a look goes back so far again: clocks differ, and a listing has a moment
LOOKS = 10  # runs looked into in one round, and of those that were told as many
MOST = 100  # failed runs listed in one round
LASTS = timedelta(days=7)  # after which it is history
FAILED = frozenset({"failed", "upstream_failed", "up_for_retry"})


class RunWatch:
    """One round each time `scan` is called. Runs whose failing task is in hand need no look."""

    def __init__(
        self,
        *,
        memory: WatchStore,
        findings: Findings,
        airflow: AirflowGateway,
        airflow_id: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._memory = memory
        self._findings = findings
        self._airflow = airflow
        self._airflow_id = airflow_id
        self._clock = clock
        self._since = clock() - BEFORE
        #: Of those listed the ones that need no other look, and when they ended: each may fail again.
        self._known: set[tuple[str, str, datetime | None]] = set()

    def begin_anew(self) -> None:
        """Others had the watch for long, or nobody: what failed meanwhile is history."""
        self._since = max(self._since, self._clock() - BEFORE)

    async def scan(self) -> None:
        """Open what is found, close what is over."""
        now = self._clock()
        listed = await self._airflow.failed_runs_since(self._since - OVERLAP, limit=MOST)
        by_key = {(run.dag_id, run.run_id, run.end): run for run in listed}
        self._known &= by_key.keys()
        names = {(dag_id, run_id) for dag_id, run_id, _ in by_key.keys() - self._known}
        in_hand = await self._memory.in_hand(self._airflow_id, names)
        self._known |= {key for key in by_key if key[:2] in in_hand}
        fresh = [key for key in by_key if key not in self._known][:LOOKS]
        seen = [sight for key in fresh if (sight := await self._sight(by_key[key])) is not None]
        self._known.update(fresh)
        await self._sync(seen, now)
        if self._known >= by_key.keys():
            last = max((run.end for run in listed if run.end is not None), default=now)
            # A full page is gone on from where it ended: the overlap may hold more than a page.
            self._since = now if len(listed) < MOST else last + OVERLAP

    async def _sync(self, seen: Sequence[Sight], now: datetime) -> None:
        told = await self._findings.listed(lasting=True, kind=KIND, limit=1000)
        # Those not looked at the longest come first: every look moves them to the end.
        oldest = sorted(told, key=lambda one: one.seen_at)[:LOOKS]
        over = [one for one in oldest if await self._is_over(one, now)]
        still = [_again(one) for one in oldest if one not in over]
        await self._findings.sync(KIND, [*seen, *still], looked_at=[one.subject for one in over])

    async def _sight(self, run: RunSnapshot) -> Sight | None:
        tasks = await self._airflow.run_tasks(run.dag_id, run.run_id)
        states = Counter(one.state for one in tasks)
        if FAILED & set(states) or await self._made_good(run.dag_id, run.run_id):
            return None
        numbers: dict[str, JsonValue] = {"dag_id": run.dag_id, "run_id": run.run_id, **dict(states)}
        counted = ", ".join(f"{number} {state}" for state, number in states.most_common()) or "none at all"
        text = (
            f"run {run.run_id} of {run.dag_id} failed, and none of its tasks did: its dagrun_timeout was "
            f"over, or somebody ended it. Its tasks: {counted}. Nothing was run again"
        )
        subject = f"{run.dag_id} @ {run.run_id}"
        return Sight(
            kind=KIND, subject=subject, text=text, numbers=numbers, severity=Severity.HIGH, since=run.end
        )

    async def _is_over(self, finding: Finding, now: datetime) -> bool:
        if now - finding.since > LASTS:
            return True
        dag_id, run_id = str(finding.numbers.get("dag_id")), str(finding.numbers.get("run_id"))
        try:
            return await self._made_good(dag_id, run_id)
        except NotFound:
            return True  # the run, or its DAG, is gone

    async def _made_good(self, dag_id: str, run_id: str) -> bool:
        """Whether it failed no more, or a later run of the DAG did what it should have done."""
        run = await self._airflow.run(dag_id, run_id)
        if run.state != "failed":
            return True
        later = await self._airflow.recent_runs(dag_id, limit=LOOKS)
        return any(one.state == "success" and _after(one, run) for one in later)


def _after(one: RunSnapshot, run: RunSnapshot) -> bool:
    first, second = one.logical_date or one.start, run.logical_date or run.start
    return first is not None and second is not None and first > second


def _again(finding: Finding) -> Sight:
    numbers = dict(finding.numbers)
    return Sight(kind=KIND, subject=finding.subject, text=finding.text, numbers=numbers)
