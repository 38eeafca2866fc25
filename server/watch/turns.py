"""Finds runs that wait for a turn that never comes: the runs before them in line wait for them in turn.

Seen where tasks depend on the past: a run that failed is cleared and queues up behind the later ones, which
take every active run that the DAG may have and go on only when the cleared one has succeeded. Nothing fails,
so no task tells of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from datetime import datetime, timedelta

from graph.domain import Severity
from server.watch.findings import Findings, Sight
from tools.durations import in_words
from tools.gateway import AirflowGateway

KIND = "runs_deadlocked"
MOST = 100  # queued runs listed in one round
LOOKS = 5  # DAGs looked into in one round
SEEN_SO = 3  # of them at most those that were seen so before, as long as others wait for their look
NAMED = 3  # runs that are told by their ids


class TurnWatch:
    """One round each time `scan` is called."""

    def __init__(
        self,
        *,
        findings: Findings,
        airflow: AirflowGateway,
        stuck_after: timedelta,
        clock: Callable[[], datetime],
    ) -> None:
        self._findings = findings
        self._airflow = airflow
        self._stuck_after = stuck_after
        self._clock = clock
        self._since: dict[str, datetime] = {}  # by DAG: when it was first seen so
        self._line: list[str] = []  # DAGs with queued runs, the one not looked into the longest first

    def begin_anew(self) -> None:
        """Others had the watch for long, or nobody: how long something has lasted is not known."""
        self._since = {}

    async def scan(self, *, scheduler_well: bool) -> None:
        """Open what has lasted, close what is over. Without a scheduler nothing has its turn: no news."""
        if not scheduler_well:
            return
        now = self._clock()
        listed = await self._airflow.runs_in("queued", limit=MOST)
        queued = Counter(run.dag_id for run in listed)
        chosen = self._choose(queued)
        found = {dag_id: ahead for dag_id in chosen if (ahead := await self._ahead(dag_id))}
        unseen = {dag_id: since for dag_id, since in self._since.items() if dag_id in queued.keys() - chosen}
        self._since = unseen | {dag_id: self._since.get(dag_id, now) for dag_id in found}
        told = await self._findings.listed(lasting=True, kind=KIND, limit=1000)
        looked_at = {
            *chosen,
            *(one.subject for one in told if len(listed) < MOST and one.subject not in queued),
        }
        seen = [
            _sight(dag_id, queued[dag_id], ahead, self._since[dag_id], now)
            for dag_id, ahead in found.items()
            if now - self._since[dag_id] >= self._stuck_after
        ]
        await self._findings.sync(KIND, seen, looked_at=looked_at - found.keys())

    def _choose(self, queued: Collection[str]) -> list[str]:
        """Whose turn it is to be looked into; those that were seen so before come first."""
        waiting = [dag_id for dag_id in self._line if dag_id in queued]
        waiting += sorted(set(queued) - set(waiting))
        first = [dag_id for dag_id in waiting if dag_id in self._since][:SEEN_SO]
        chosen = [*first, *(dag_id for dag_id in waiting if dag_id not in first)][:LOOKS]
        self._line = [dag_id for dag_id in waiting if dag_id not in chosen] + chosen
        return chosen

    async def _ahead(self, dag_id: str) -> tuple[str, ...]:
        """The running runs of the DAG when none of them has anything to do; else none."""
        if (await self._airflow.dag(dag_id)).is_paused or await self._airflow.at_work(dag_id):
            return ()
        return tuple(run.run_id for run in await self._airflow.runs_in("running", dag_id=dag_id))


def _sight(dag_id: str, waiting: int, ahead: tuple[str, ...], since: datetime, now: datetime) -> Sight:
    named = ", ".join(ahead[:NAMED]) + (f" and {len(ahead) - NAMED} more" if len(ahead) > NAMED else "")
    text = (
        f"{waiting} queued runs of {dag_id} wait for their turn behind {len(ahead)} running ones ({named}), "
        f"and in those nothing has been at work for {in_words((now - since).total_seconds())}: with "
        f"depends_on_past they wait for an earlier run. If that one is queued, raise max_active_runs of the "
        f"DAG, or end one of the running runs and clear it afterwards; if it failed, they wait for its repair"
    )
    return Sight(
        kind=KIND,
        subject=dag_id,
        text=text,
        numbers={"dag_id": dag_id, "queued": waiting, "running": len(ahead)},
        severity=Severity.HIGH,
        since=since,
    )
