"""A real Airflow 3 behind `tools.gateway`, through its REST API v2.

Two things the API does not give and callers should know: `TaskSnapshot.updated` is the newest of the times
that are shown (the real one can only be filtered by), and Airflow answers "nothing" rather than 409 when a
clear limited to failed tasks names one that is running; here both are `Conflict`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import JsonValue

from graph.domain import (
    ACTIVE_STATES,
    STARTED_STATES,
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
from graph.errors import AirflowUnreachable, Conflict, NotFound
from tools import airflow_translate as translate
from tools.airflow_auth import PasswordLogin, StaticToken, TokenSource
from tools.airflow_http import AirflowHttp, Call, Query
from tools.redaction import redact, redact_json

AT_ONCE = 50  # tasks of runs that one request names
PAGE = 100  # Airflow's own maximum unless configured
MOST_CONNECTIONS = 1000
LOG_PAGES = 100

RUN = "/dags/{dag_id}/dagRuns/{run_id}"
TASK = RUN + "/taskInstances/{task_id}/{map_index}"
ALL_TASKS = "/dags/~/dagRuns/~/taskInstances"


def utc_now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def open_airflow(
    url: str,
    *,
    token: str | None = None,
    username: str | None = None,
    password: str | None = None,
    verify: bool | str = True,
    timeout: float = 10.0,  # noqa: ASYNC109 - of each request
    clock: Callable[[], datetime] = utc_now,
) -> AsyncIterator[AirflowRest]:
    """The gateway to the Airflow at `url` (without `/api/v2`), by token or by user name and password.

    `verify` may be the path of a CA file; `timeout` is in seconds, for connecting and for each read.
    """
    async with httpx.AsyncClient(base_url=url.rstrip("/"), verify=verify, timeout=timeout) as login:
        source: TokenSource = (
            StaticToken(token)
            if token is not None
            else PasswordLogin(login, username=username or "", password=password or "", clock=clock)
        )
        gateway = AirflowRest(AirflowHttp(url, source, verify=verify, timeout=timeout))
        try:
            yield gateway
        finally:
            await gateway.aclose()


def _names(task: TaskRef) -> dict[str, str]:
    return {name: str(value) for name, value in task.model_dump().items()}


def _get(action: str, path: str, names: dict[str, str] | None = None, query: Query = ()) -> Call:
    return Call(f"read {action}", "GET", path, names or {}, query)


def _mask(*fields: str) -> Query:
    return [("update_mask", field) for field in fields]


class AirflowRest:
    """`AirflowGateway` for Airflow 3."""

    def __init__(self, http: AirflowHttp) -> None:
        self._http = http
        self._ask = http.ask

    # --- reading ---

    async def health(self) -> AirflowHealth:
        version = await self._ask(_get("Airflow's version", "/version"), lambda found: str(found["version"]))
        call = _get("Airflow's health", "/monitor/health")
        return await self._ask(call, lambda found: translate.health(found, version))

    async def task(self, task: TaskRef) -> TaskSnapshot:
        return await self._ask(_get(str(task), TASK, _names(task)), translate.task_snapshot)

    async def tasks(self, refs: Sequence[TaskRef]) -> tuple[TaskSnapshot, ...]:
        wanted = set(refs)
        rows = sorted({(one.dag_id, one.run_id, one.task_id) for one in refs})
        found: dict[TaskRef, TaskSnapshot] = {}
        for start in range(0, len(rows), AT_ONCE):
            for one in await self._matching(rows[start : start + AT_ONCE]):
                if one.task in wanted:
                    found[one.task] = one
        return tuple(found.values())

    async def _matching(self, rows: Sequence[tuple[str, str, str]]) -> list[TaskSnapshot]:
        """Every task instance of these DAGs, runs and tasks: Airflow takes three lists, not their pairs."""
        dags, runs, tasks = (sorted(set(names)) for names in zip(*rows, strict=True))
        lists = {"dag_ids": dags, "dag_run_ids": runs, "task_ids": tasks, "order_by": "id"}
        found: list[TaskSnapshot] = []
        while True:
            body = {**lists, "page_limit": PAGE, "page_offset": len(found)}
            call = Call("read task instances", "POST", ALL_TASKS + "/list", {}, body=body)
            page = await self._ask(call, translate.listed("task_instances", translate.task_snapshot))
            found.extend(page)
            if len(page) < PAGE:
                return found

    async def tries(self, task: TaskRef) -> tuple[TaskSnapshot, ...]:
        call = _get(f"the tries of {task}", TASK + "/tries", _names(task))
        return await self._ask(call, translate.tries)

    async def run(self, dag_id: str, run_id: str) -> RunSnapshot:
        call = _get(f"run {run_id!r}", RUN, {"dag_id": dag_id, "run_id": run_id})
        return await self._ask(call, translate.run_snapshot)

    async def run_tasks(self, dag_id: str, run_id: str) -> tuple[TaskSnapshot, ...]:
        names = {"dag_id": dag_id, "run_id": run_id}
        call = _get(f"the tasks of run {run_id!r}", RUN + "/taskInstances", names, [("order_by", "id")])
        return await self._pages(call)

    async def recent_runs(self, dag_id: str, *, limit: int = 10) -> tuple[RunSnapshot, ...]:
        query = [("order_by", "-run_after"), ("limit", str(limit))]
        call = _get(f"runs of {dag_id!r}", "/dags/{dag_id}/dagRuns", {"dag_id": dag_id}, query)
        return await self._ask(call, translate.listed("dag_runs", translate.run_snapshot))

    async def history(self, dag_id: str, task_id: str, *, limit: int = 20) -> tuple[TaskSnapshot, ...]:
        path, query = (
            "/dags/{dag_id}/dagRuns/~/taskInstances",
            [("task_id", task_id), ("order_by", "-run_after")],
        )
        call = _get(f"the history of {dag_id}.{task_id}", path, {"dag_id": dag_id}, query)
        return await self._pages(call, limit=limit)

    async def failures_since(self, since: datetime, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        query = [("state", "failed"), ("end_date_gte", since.isoformat()), ("order_by", "end_date")]
        found = await self._pages(_get("failures", ALL_TASKS, query=query), limit=limit)
        return translate.oldest_first(found)

    async def failed_runs_since(self, since: datetime, *, limit: int = 100) -> tuple[RunSnapshot, ...]:
        query = [("state", "failed"), ("end_date_gte", since.isoformat())]
        query += [("order_by", "end_date"), ("limit", str(limit))]
        call = _get("failed runs", "/dags/~/dagRuns", query=query)
        return await self._ask(call, translate.listed("dag_runs", translate.run_snapshot))

    async def runs_in(self, state: str, *, dag_id: str = "", limit: int = 100) -> tuple[RunSnapshot, ...]:
        query = [("state", state), ("order_by", "run_after"), ("limit", str(limit))]
        call = _get(f"runs that are {state}", "/dags/{dag_id}/dagRuns", {"dag_id": dag_id or "~"}, query)
        return await self._ask(call, translate.listed("dag_runs", translate.run_snapshot))

    async def at_work(self, dag_id: str) -> bool:
        query = [*(("state", state) for state in sorted(ACTIVE_STATES)), ("limit", "1")]
        path = "/dags/{dag_id}/dagRuns/~/taskInstances"
        call = _get(f"tasks of {dag_id!r} at work", path, {"dag_id": dag_id}, query)
        return await self._ask(call, lambda found: bool(found["task_instances"]))

    async def updates_since(self, since: datetime, *, limit: int = 1000) -> tuple[TaskSnapshot, ...]:
        query = [("updated_at_gte", since.isoformat()), ("order_by", "id")]
        found = await self._pages(_get("updates", ALL_TASKS, query=query), limit=limit)
        return translate.oldest_first(found)

    async def waiting_tasks(self, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        query = [("state", "scheduled"), ("state", "queued"), ("order_by", "id")]
        found = await self._pages(_get("waiting tasks", ALL_TASKS, query=query), limit=limit)
        return translate.oldest_first(found)

    async def running_tasks(self, *, limit: int = 500) -> tuple[TaskSnapshot, ...]:
        query = [*(("state", state) for state in sorted(STARTED_STATES)), ("order_by", "start_date")]
        return await self._pages(_get("running tasks", ALL_TASKS, query=query), limit=limit)

    async def _pages(self, call: Call, *, limit: int = 10_000) -> tuple[TaskSnapshot, ...]:
        """Task instances over as many pages as it takes, by cursor: none is seen twice or missed."""
        found: list[TaskSnapshot] = []
        cursor: str | None = ""
        while cursor is not None and len(found) < limit:
            size = str(min(PAGE, limit - len(found)))
            asked = replace(call, query=[*call.query, ("limit", size), ("cursor", cursor)])
            page, cursor = await self._ask(asked, translate.task_page)
            found.extend(page)
        return tuple(found)

    async def log(self, task: TaskRef, try_number: int) -> TaskLog:
        path = RUN + "/taskInstances/{task_id}/logs/{try_number}"
        names = {**_names(task), "try_number": str(try_number)}
        query = [("full_content", "true"), ("map_index", names.pop("map_index"))]
        call = _get(f"the log of {task}", path, names, query)
        content: list[JsonValue] = []
        after: str | None = ""
        # A running task has a further page for ever: an empty one ends the reading.
        for page in range(LOG_PAGES):
            asked = replace(call, query=[*query, ("token", after)]) if after else call
            try:
                more, after = await self._ask(asked, translate.log_page)
            except NotFound:
                return TaskLog(text="")
            more = translate.without_sources(more) if page else more
            content.extend(more)
            if after is None or not more:
                break
        size = translate.size_of(content)
        return await self._http.run(lambda: translate.task_log(content, complete=after is None), size=size)

    async def xcom(self, task: TaskRef, key: str) -> JsonValue:
        path = RUN + "/taskInstances/{task_id}/xcomEntries/{key}"
        names = {**_names(task), "key": key}
        query = [("map_index", names.pop("map_index")), ("stringify", "false")]
        call = _get(f"XCom {key!r} of {task}", path, names, query)
        try:
            return await self._ask(call, lambda found: redact_json(found["value"]))
        except NotFound:
            return None

    async def dag(self, dag_id: str) -> DagInfo:
        names, query = {"dag_id": dag_id}, [("order_by", "-version_number"), ("limit", "1")]
        call = _get(f"DAG {dag_id!r}", "/dags/{dag_id}", names)
        versions = _get(f"versions of DAG {dag_id!r}", "/dags/{dag_id}/dagVersions", names, query)
        found, latest = await asyncio.gather(
            self._ask(call, lambda found: translate.dag_info(found, None)),
            self._ask(versions, translate.latest_version),
        )
        return found.model_copy(update={"latest_version": latest})

    async def dags(self, *, offset: int = 0, limit: int = PAGE) -> tuple[DagInfo, ...]:
        query = [("order_by", "dag_id"), ("offset", str(offset)), ("limit", str(min(limit, PAGE)))]
        call = _get("DAGs", "/dags", query=query)
        return await self._ask(call, translate.listed("dags", lambda one: translate.dag_info(one, None)))

    async def dag_tasks(self, dag_id: str) -> tuple[TaskInfo, ...]:
        call = _get(f"tasks of {dag_id!r}", "/dags/{dag_id}/tasks", {"dag_id": dag_id})
        return await self._ask(call, translate.listed("tasks", translate.task_info))

    async def dag_source(self, dag_id: str) -> str:
        call = _get(f"the source of {dag_id!r}", "/dagSources/{dag_id}", {"dag_id": dag_id})
        text = await self._ask(call, lambda found: str(found["content"] or ""))
        return await self._http.run(lambda: redact(text), size=len(text))

    async def variable(self, key: str) -> Variable:
        call = _get(f"variable {key!r}", "/variables/{key}", {"key": key})
        return await self._ask(call, translate.variable)

    async def connection(self, conn_id: str) -> Connection:
        call = _get(f"connection {conn_id!r}", "/connections/{conn_id}", {"conn_id": conn_id})
        return await self._ask(call, translate.connection)

    async def connections(self) -> tuple[Connection, ...]:
        found: list[Connection] = []
        while len(found) < MOST_CONNECTIONS:
            query = [("limit", str(PAGE)), ("offset", str(len(found))), ("order_by", "conn_id")]
            call = _get("connections", "/connections", query=query)
            page = await self._ask(call, translate.listed("connections", translate.connection))
            found.extend(page)
            if len(page) < PAGE:
                break
        return tuple(found)

    async def pool(self, name: str) -> Pool:
        return await self._ask(_get(f"pool {name!r}", "/pools/{name}", {"name": name}), translate.pool)

    async def pools(self) -> tuple[Pool, ...]:
        call = _get("pools", "/pools", query=[("limit", str(PAGE)), ("order_by", "name")])
        return await self._ask(call, translate.listed("pools", translate.pool))

    async def import_failures(self) -> tuple[ImportFailure, ...]:
        call = _get("import errors", "/importErrors", query=[("limit", str(PAGE))])
        return await self._ask(call, translate.listed("import_errors", translate.import_failure))

    async def lost_heartbeat(self, task: TaskRef, try_number: int) -> str:
        query = [("dag_id", task.dag_id), ("run_id", task.run_id), ("task_id", task.task_id), ("limit", "1")]
        query += [("map_index", str(task.map_index)), ("try_number", str(try_number))]
        query += [("event", translate.NO_HEARTBEAT)]
        call = _get("the event log", "/eventLogs", query=query)
        found = await self._ask(call, lambda page: [one["extra"] for one in page["event_logs"]])
        return redact(str(found[0] or translate.NO_HEARTBEAT)) if found else ""

    async def clear_count(self, task: TaskRef) -> int:
        query = [("dag_id", task.dag_id), ("run_id", task.run_id), ("limit", str(PAGE))]
        query += [("included_events", event) for event in translate.CLEARS]
        call = _get("the event log", "/eventLogs")
        count = seen = 0
        while True:
            asked = replace(call, query=[*query, ("offset", str(seen))])
            page = await self._ask(asked, lambda found: list(found["event_logs"]))
            count += sum(translate.names_task(event, task) for event in page)
            seen += len(page)
            if len(page) < PAGE:
                return count

    # --- writing ---

    async def _change(
        self,
        action: str,
        method: str,
        path: str,
        names: dict[str, str],
        body: dict[str, Any] | None = None,
        query: Query = (),
    ) -> None:
        """A write whose answer says nothing new."""
        await self._ask(Call(action, method, path, names, query, body, write=True), lambda found: None)

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
        action, path = f"clear tasks of run {run_id!r}", "/dags/{dag_id}/clearTaskInstances"
        body: dict[str, Any] = {
            "dry_run": dry_run,
            "dag_run_id": run_id,
            "task_ids": [[task.task_id, task.map_index] for task in tasks],
            "include_downstream": downstream,
            "only_failed": only_failed,
            "reset_dag_runs": True,
            "prevent_running_task": True,
            "run_on_latest_version": latest_version,
            "note": note or None,
        }
        call = Call(action, "POST", path, {"dag_id": dag_id}, body=body, write=not dry_run)
        try:
            cleared = await self._ask(call, translate.listed("task_instances", translate.task_ref))
        except AirflowUnreachable as exc:
            # Airflow answers 500 to a task that was removed from the DAG, or renamed, since it ran.
            if dry_run and (gone := await self._not_in_dag(dag_id, tasks)):
                raise NotFound(f"{action}: DAG {dag_id!r} has no task {', '.join(gone)} any more") from exc
            raise
        if not cleared and not dry_run:
            raise Conflict(f"{action}: none of them can be cleared as they are now")
        return cleared

    async def _not_in_dag(self, dag_id: str, tasks: Sequence[TaskRef]) -> list[str]:
        known = {one.task_id for one in await self.dag_tasks(dag_id)}
        return sorted({repr(one.task_id) for one in tasks if one.task_id not in known})

    async def set_task_note(self, task: TaskRef, note: str) -> None:
        await self._change(f"note on {task}", "PATCH", TASK, _names(task), {"note": note}, _mask("note"))

    async def mark_task(self, task: TaskRef, state: str, *, note: str = "") -> None:
        body = {"new_state": state, **({"note": note} if note else {})}
        await self._change(f"mark {task} {state}", "PATCH", TASK, _names(task), body)

    async def set_variable(self, key: str, value: str, *, description: str | None = None) -> None:
        action = f"set variable {key!r}"
        translate.refuse_masked(action, value)
        body = {"key": key, "value": value, "description": description}
        mask = _mask("value") if description is None else _mask("value", "description")
        try:
            await self._change(action, "PATCH", "/variables/{key}", {"key": key}, body, mask)
        except NotFound:
            await self._change(action, "POST", "/variables", {}, body)

    async def delete_variable(self, key: str) -> None:
        await self._change(f"delete variable {key!r}", "DELETE", "/variables/{key}", {"key": key})

    async def patch_connection(self, conn_id: str, fields: dict[str, JsonValue]) -> None:
        action = f"change connection {conn_id!r}"
        translate.refuse_other_fields(action, fields)
        translate.refuse_masked(action, *fields.values())
        present = await self.connection(conn_id)
        body = {**fields, "connection_id": conn_id, "conn_type": present.conn_type}
        path, names = "/connections/{conn_id}", {"conn_id": conn_id}
        await self._change(action, "PATCH", path, names, body, _mask(*fields))

    async def set_pool_slots(self, name: str, slots: int) -> None:
        present = await self.pool(name)
        body = {"pool": name, "slots": slots, "include_deferred": present.include_deferred}
        await self._change(
            f"resize pool {name!r}", "PATCH", "/pools/{name}", {"name": name}, body, _mask("slots")
        )

    async def set_paused(self, dag_id: str, *, paused: bool) -> None:
        action = f"{'pause' if paused else 'unpause'} {dag_id!r}"
        body, names = {"is_paused": paused}, {"dag_id": dag_id}
        await self._change(action, "PATCH", "/dags/{dag_id}", names, body, _mask("is_paused"))

    async def trigger(
        self, dag_id: str, *, run_id: str, conf: dict[str, JsonValue] | None = None, note: str = ""
    ) -> RunSnapshot:
        action, path = f"trigger {dag_id!r} as {run_id!r}", "/dags/{dag_id}/dagRuns"
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf or {}, "note": note or None}
        call = Call(action, "POST", path, {"dag_id": dag_id}, body=body, write=True)
        return await self._ask(call, translate.run_snapshot)

    async def backfill(
        self, dag_id: str, *, since: datetime, until: datetime | None, dry_run: bool
    ) -> tuple[str, ...]:
        end = until or utc_now()
        action, dates = f"backfill {dag_id!r}", {"from_date": since.isoformat(), "to_date": end.isoformat()}
        body = {"dag_id": dag_id, **dates, "reprocess_behavior": "none"}
        preview = Call(action, "POST", "/backfills/dry_run", {}, body=body)
        missing = await self._ask(preview, translate.missing_runs)
        if missing and not dry_run:
            await self._change(action, "POST", "/backfills", {}, body)
        return missing

    async def aclose(self) -> None:
        await self._http.aclose()
