"""The Airflow verbs that healing needs, and no others.

`tools.airflow_rest` speaks to a real Airflow 3, `tools.airflow_memory` is its in-memory twin;
`tests/contract/` holds both to the same behaviour. Every text they return is redacted already.

Errors (all of `graph.errors`): `AirflowUnreachable` (no answer, 5xx, HTML instead of JSON; reads are retried
inside), `NotAuthenticated` (401 after one fresh token), `NotPermitted` (403), `NotFound` (404), `Conflict`
(409), `InvalidRequest` (400, 422), and for writes only `AirflowDoubt`: the request may have arrived and its
answer was lost. A write that certainly never left (connection refused, name not resolved) raises
`AirflowUnreachable`. Writes are never retried inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from pydantic import JsonValue

from graph.domain import (
    AirflowHealth,
    Connection,
    DagInfo,
    ImportFailure,
    Pool,
    RunSnapshot,
    TaskInfo,
    TaskLog,
    TaskRef,
    TaskSnapshot,
    Variable,
)

TEARDOWN = "all_done_setup_success"  #: the trigger rule of every teardown, and of nothing else


class AirflowGateway(Protocol):
    """One Airflow installation."""

    # --- reading ---

    async def health(self) -> AirflowHealth:
        """Version and component health."""

    async def task(self, task: TaskRef) -> TaskSnapshot:
        """The task instance as it is now."""

    async def tasks(self, refs: Sequence[TaskRef]) -> tuple[TaskSnapshot, ...]:
        """Those of these task instances that exist, of any DAGs and runs, a page of them in one request."""

    async def tries(self, task: TaskRef) -> tuple[TaskSnapshot, ...]:
        """Every try of it, oldest first, the present one last."""

    async def run(self, dag_id: str, run_id: str) -> RunSnapshot:
        """One DAG run."""

    async def run_tasks(self, dag_id: str, run_id: str) -> tuple[TaskSnapshot, ...]:
        """All task instances of one DAG run."""

    async def recent_runs(self, dag_id: str, *, limit: int = 10) -> tuple[RunSnapshot, ...]:
        """The DAG's last runs, newest first."""

    async def history(self, dag_id: str, task_id: str, *, limit: int = 20) -> tuple[TaskSnapshot, ...]:
        """The task's last instances over all runs, newest first."""

    async def failures_since(self, since: datetime, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        """Task instances in state `failed` that ended at or after `since`, oldest first, over all DAGs."""

    async def failed_runs_since(self, since: datetime, *, limit: int = 100) -> tuple[RunSnapshot, ...]:
        """DAG runs in state `failed` that ended at or after `since`, the oldest first, over all DAGs."""

    async def runs_in(self, state: str, *, dag_id: str = "", limit: int = 100) -> tuple[RunSnapshot, ...]:
        """DAG runs in this state, of one DAG or of all, the earliest due first."""

    async def at_work(self, dag_id: str) -> bool:
        """Whether any task instance of the DAG runs, waits for a worker, or will go on by itself."""

    async def updates_since(self, since: datetime, *, limit: int = 1000) -> tuple[TaskSnapshot, ...]:
        """Task instances that changed at or after `since`, oldest first, over all DAGs, in one request."""

    async def waiting_tasks(self, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        """Task instances that are scheduled or queued and have not started, over all DAGs."""

    async def running_tasks(self, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        """Task instances that run or are deferred, over all DAGs, those that began first at the front."""

    async def log(self, task: TaskRef, try_number: int) -> TaskLog:
        """One try's log, whole. Empty text when Airflow has none."""

    async def lost_heartbeat(self, task: TaskRef, try_number: int) -> str:
        """What Airflow noted when it ended this try for want of a heartbeat; empty when it did not."""

    async def xcom(self, task: TaskRef, key: str) -> JsonValue:
        """The value pushed under `key`; None when there is none."""

    async def dag(self, dag_id: str) -> DagInfo:
        """A DAG's settings and tags."""

    async def dags(self, *, offset: int = 0, limit: int = 100) -> tuple[DagInfo, ...]:
        """One page of all DAGs by id, without `latest_version`; 100 at most."""

    async def dag_tasks(self, dag_id: str) -> tuple[TaskInfo, ...]:
        """The DAG's tasks, with who comes after whom."""

    async def dag_source(self, dag_id: str) -> str:
        """The DAG file's text in its latest version."""

    async def variable(self, key: str) -> Variable:
        """An Airflow Variable; `masked` when Airflow hid any of it."""

    async def connection(self, conn_id: str) -> Connection:
        """A Connection; never its password."""

    async def connections(self) -> tuple[Connection, ...]:
        """All Connections (1,000 at most); never a password."""

    async def pool(self, name: str) -> Pool:
        """A pool and how full it is."""

    async def pools(self) -> tuple[Pool, ...]:
        """All pools by name (100 at most), each with how full it is."""

    async def import_failures(self) -> tuple[ImportFailure, ...]:
        """DAG files that do not import."""

    async def clear_count(self, task: TaskRef) -> int:
        """How often this task instance was cleared, by Airflow's own event log."""

    # --- writing ---

    async def clear(
        self,
        dag_id: str,
        run_id: str,
        tasks: Sequence[TaskRef],
        *,
        dry_run: bool,
        downstream: bool = True,
        only_failed: bool = True,
        latest_version: bool = False,
        note: str = "",
    ) -> tuple[TaskRef, ...]:
        """Clear exactly these task instances (all of one run) and, with `downstream`, what they hold back.

        Returns what is (or, with `dry_run`, would be) cleared. `Conflict` when one of them is running.
        `note` is set on the cleared instances (1,000 characters at most).
        """

    async def set_task_note(self, task: TaskRef, note: str) -> None:
        """Replace the task instance's note."""

    async def mark_task(self, task: TaskRef, state: str, *, note: str = "") -> None:
        """Set a task instance to `success`, `failed` or `skipped`."""

    async def set_variable(self, key: str, value: str, *, description: str | None = None) -> None:
        """Create the Variable or replace its value."""

    async def delete_variable(self, key: str) -> None:
        """Remove a Variable (undo of a creation)."""

    async def patch_connection(self, conn_id: str, fields: dict[str, JsonValue]) -> None:
        """Change these fields of a Connection (`host`, `port`, `schema`, `login`, `extra`), leave the rest.

        Never a password; `ActionRefused` when `fields` names one.
        """

    async def set_pool_slots(self, name: str, slots: int) -> None:
        """Change a pool's size."""

    async def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or unpause a DAG."""

    async def trigger(
        self, dag_id: str, *, run_id: str, conf: dict[str, JsonValue] | None = None, note: str = ""
    ) -> RunSnapshot:
        """Start a run under a chosen id; `Conflict` when that id exists (so asking twice starts one)."""

    async def backfill(
        self, dag_id: str, *, since: datetime, until: datetime | None, dry_run: bool
    ) -> tuple[str, ...]:
        """Create the missing runs of an interval; returns their logical dates (ISO), none made when dry.

        Without `until` as far as intervals have ended by now.
        """

    async def aclose(self) -> None:
        """Release connections."""
