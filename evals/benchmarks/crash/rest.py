"""Any `AirflowGateway` as Airflow 3's REST API v2, as far as `tools.airflow_rest` asks: the way back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from itertools import product
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from graph.domain import Connection, DagInfo, Pool, RunSnapshot, TaskInfo, TaskRef, TaskSnapshot
from graph.errors import AirflowRefused, Conflict, InvalidRequest, NotFound
from tools.airflow_translate import NO_HEARTBEAT
from tools.gateway import AirflowGateway

API = "/api/v2/"
Json = dict[str, Any]
Query = Mapping[str, list[str]]
Answer = tuple[int, Any]
Handler = Callable[[list[str], Query, Json], Awaitable[Any]]


class RestDoor:
    """Routes requests to a gateway and spells its answers as Airflow does."""

    def __init__(self, airflow: AirflowGateway) -> None:
        self._airflow = airflow
        self._routes: list[tuple[str, str, Handler]] = [
            ("GET", "version", self._version),
            ("GET", "monitor/health", self._health),
            ("GET", "dags", self._dags),
            ("GET", "dags/~/dagRuns/~/taskInstances", self._every_task),
            ("POST", "dags/~/dagRuns/~/taskInstances/list", self._listed),
            ("GET", "dags/*/dagRuns/~/taskInstances", self._history),
            ("GET", "dags/*/dagRuns/*/taskInstances", self._run_tasks),
            ("GET", "dags/*/dagRuns/*/taskInstances/*/logs/*", self._log),
            ("GET", "dags/*/dagRuns/*/taskInstances/*/xcomEntries/*", self._xcom),
            ("GET", "dags/*/dagRuns/*/taskInstances/*/*/tries", self._tries),
            ("GET", "dags/*/dagRuns/*/taskInstances/*/*", self._task),
            ("PATCH", "dags/*/dagRuns/*/taskInstances/*/*", self._patch_task),
            ("GET", "dags/*/dagRuns", self._runs),
            ("GET", "dags/*/dagRuns/*", self._run),
            ("GET", "dags/*/dagVersions", self._versions),
            ("GET", "dags/*/tasks", self._tasks),
            ("POST", "dags/*/clearTaskInstances", self._clear),
            ("GET", "dags/*", self._dag),
            ("GET", "dagSources/*", self._source),
            ("GET", "variables/*", self._variable),
            ("GET", "connections", self._connections),
            ("GET", "connections/*", self._connection),
            ("GET", "pools", self._pools),
            ("GET", "pools/*", self._pool),
            ("GET", "importErrors", self._imports),
            ("GET", "eventLogs", self._events),
        ]

    async def answer(self, method: str, target: str, body: Json) -> Answer:
        """Status and JSON."""
        parts = urlsplit(target)
        steps = [unquote(one) for one in parts.path.removeprefix(API).split("/")]
        query = parse_qs(parts.query)
        for verb, pattern, handler in self._routes:
            wanted = pattern.split("/")
            if verb == method and len(wanted) == len(steps) and _fits(wanted, steps):
                names = [step for want, step in zip(wanted, steps, strict=True) if want == "*"]
                return await _answered(handler(names, query, body))
        return 404, {"detail": f"no route for {method} {parts.path}"}

    # --- reading ---

    async def _version(self, _names: list[str], _query: Query, _body: Json) -> Json:
        return {"version": (await self._airflow.health()).version}

    async def _health(self, _names: list[str], _query: Query, _body: Json) -> Json:
        found = await self._airflow.health()
        parts = ("metadatabase", "scheduler", "triggerer", "dag_processor")
        words = {True: "healthy", False: "unhealthy", None: None}
        return {name: {"status": words[getattr(found, name)]} for name in parts}

    async def _dags(self, _names: list[str], query: Query, _body: Json) -> Json:
        offset, limit = int(_one(query, "offset", "0")), int(_one(query, "limit", "100"))
        found = await self._airflow.dags(offset=offset, limit=limit)
        return {"dags": [_dag(one) for one in found], "total_entries": len(found)}

    async def _every_task(self, _names: list[str], query: Query, _body: Json) -> Json:
        states = query.get("state", [])
        if "failed" in states:
            since = datetime.fromisoformat(_one(query, "end_date_gte"))
            return _page(await self._airflow.failures_since(since))
        if "running" in states:
            return _page(await self._airflow.running_tasks())
        if states:
            return _page(await self._airflow.waiting_tasks())
        since = datetime.fromisoformat(_one(query, "updated_at_gte"))
        return _page(await self._airflow.updates_since(since))

    async def _listed(self, _names: list[str], _query: Query, body: Json) -> Json:
        lists = (body["dag_ids"], body["dag_run_ids"], body["task_ids"])
        found = await self._airflow.tasks([_ref([*one, -1]) for one in product(*lists)])
        start = body["page_offset"]
        return _page(found[start : start + body["page_limit"]])

    async def _history(self, names: list[str], query: Query, _body: Json) -> Json:
        if "state" in query:  # whether any is at work: only the number is looked at
            return {"task_instances": [{}] if await self._airflow.at_work(names[0]) else []}
        return _page(await self._airflow.history(names[0], _one(query, "task_id")))

    async def _run_tasks(self, names: list[str], _query: Query, _body: Json) -> Json:
        return _page(await self._airflow.run_tasks(names[0], names[1]))

    async def _log(self, names: list[str], query: Query, _body: Json) -> Json:
        task = _ref([*names[:3], _one(query, "map_index", "-1")])
        found = await self._airflow.log(task, int(names[3]))
        # Of a try that still runs there is always a further page.
        token = None if found.complete else "more"
        return {"content": [] if "token" in query else found.text.splitlines(), "continuation_token": token}

    async def _xcom(self, names: list[str], query: Query, _body: Json) -> Json:
        task = _ref([*names[:3], _one(query, "map_index", "-1")])
        value = await self._airflow.xcom(task, names[3])
        if value is None:
            raise NotFound(f"XCom {names[3]!r} not found")
        return {"key": names[3], "value": value}

    async def _tries(self, names: list[str], _query: Query, _body: Json) -> Json:
        return _page(await self._airflow.tries(_ref(names)))

    async def _task(self, names: list[str], _query: Query, _body: Json) -> Json:
        return _task(await self._airflow.task(_ref(names)))

    async def _runs(self, names: list[str], query: Query, _body: Json) -> Json:
        limit, dag_id = int(_one(query, "limit", "100")), names[0].replace("~", "")
        if "end_date_gte" in query:
            since = datetime.fromisoformat(_one(query, "end_date_gte"))
            found = await self._airflow.failed_runs_since(since)
        elif "state" in query:
            found = await self._airflow.runs_in(_one(query, "state"), dag_id=dag_id, limit=limit)
        else:
            found = await self._airflow.recent_runs(dag_id, limit=limit)
        return {"dag_runs": [_run(one) for one in found]}

    async def _run(self, names: list[str], _query: Query, _body: Json) -> Json:
        return _run(await self._airflow.run(names[0], names[1]))

    async def _versions(self, names: list[str], _query: Query, _body: Json) -> Json:
        latest = (await self._airflow.dag(names[0])).latest_version
        return {"dag_versions": [] if latest is None else [{"version_number": latest}]}

    async def _tasks(self, names: list[str], _query: Query, _body: Json) -> Json:
        return {"tasks": [_task_info(one) for one in await self._airflow.dag_tasks(names[0])]}

    async def _dag(self, names: list[str], _query: Query, _body: Json) -> Json:
        return _dag(await self._airflow.dag(names[0]))

    async def _source(self, names: list[str], _query: Query, _body: Json) -> Json:
        return {"content": await self._airflow.dag_source(names[0])}

    async def _variable(self, names: list[str], _query: Query, _body: Json) -> Json:
        return (await self._airflow.variable(names[0])).model_dump(include={"key", "value", "description"})

    async def _connections(self, _names: list[str], query: Query, _body: Json) -> Json:
        found = await self._airflow.connections() if _one(query, "offset", "0") == "0" else ()
        return {"connections": [_connection(one) for one in found]}

    async def _connection(self, names: list[str], _query: Query, _body: Json) -> Json:
        return _connection(await self._airflow.connection(names[0]))

    async def _pools(self, _names: list[str], _query: Query, _body: Json) -> Json:
        return {"pools": [_pool(one) for one in await self._airflow.pools()]}

    async def _pool(self, names: list[str], _query: Query, _body: Json) -> Json:
        return _pool(await self._airflow.pool(names[0]))

    async def _imports(self, _names: list[str], _query: Query, _body: Json) -> Json:
        found = await self._airflow.import_failures()
        rows = [
            {"filename": one.filename, "stack_trace": one.stacktrace, "timestamp": _time(one.seen)}
            for one in found
        ]
        return {"import_errors": rows}

    async def _events(self, _names: list[str], query: Query, _body: Json) -> Json:
        if _one(query, "event") != NO_HEARTBEAT:
            raise NotFound("of the event log only lost heartbeats are told here")
        task = _ref([_one(query, name) for name in ("dag_id", "run_id", "task_id", "map_index")])
        note = await self._airflow.lost_heartbeat(task, int(_one(query, "try_number")))
        return {"event_logs": [{"extra": note}] if note else []}

    # --- writing ---

    async def _clear(self, names: list[str], _query: Query, body: Json) -> Json:
        run_id = body["dag_run_id"]
        tasks = [_ref([names[0], run_id, task_id, index]) for task_id, index in body["task_ids"]]
        cleared = await self._airflow.clear(
            names[0],
            run_id,
            tasks,
            dry_run=body["dry_run"],
            downstream=body["include_downstream"],
            only_failed=body["only_failed"],
            latest_version=body["run_on_latest_version"],
            note=body["note"] or "",
        )
        return {"task_instances": [_named(one) for one in cleared]}

    async def _patch_task(self, names: list[str], _query: Query, body: Json) -> Json:
        task = _ref(names)
        if "new_state" in body:
            await self._airflow.mark_task(task, body["new_state"], note=body.get("note", ""))
        else:
            await self._airflow.set_task_note(task, body["note"])
        return {"task_instances": []}


async def _answered(asked: Awaitable[Any]) -> Answer:
    """Airflow's words for what went wrong."""
    try:
        return 200, await asked
    except NotFound as exc:
        return 404, {"detail": str(exc)}
    except Conflict as exc:
        return 409, {"detail": str(exc)}
    except (InvalidRequest, AirflowRefused) as exc:
        return 422, {"detail": str(exc)}


def _fits(wanted: list[str], steps: list[str]) -> bool:
    return all(want in {"*", step} for want, step in zip(wanted, steps, strict=True))


def _one(query: Query, name: str, missing: str = "") -> str:
    return query.get(name, [missing])[0]


def _ref(names: list[Any]) -> TaskRef:
    return TaskRef(dag_id=names[0], run_id=names[1], task_id=names[2], map_index=int(names[3]))


def _time(value: datetime | None) -> str | None:
    return None if value is None else value.isoformat()


def _named(task: TaskRef) -> Json:
    return {
        "dag_id": task.dag_id,
        "dag_run_id": task.run_id,
        "task_id": task.task_id,
        "map_index": task.map_index,
    }


def _task(one: TaskSnapshot) -> Json:
    return {
        **_named(one.task),
        **one.model_dump(include={"try_number", "max_tries", "pool", "duration"}),
        **one.model_dump(include={"operator", "queue", "hostname", "note"}),
        "state": None if one.state == "none" else one.state,
        "start_date": _time(one.start),
        "end_date": _time(one.end),
        "queued_when": None,
        "scheduled_when": _time(one.updated) if one.start is None else None,
        "dag_version": None if one.dag_version is None else {"version_number": one.dag_version},
    }


def _page(found: Iterable[TaskSnapshot]) -> Json:
    return {"task_instances": [_task(one) for one in found], "next_cursor": None}


def _run(one: RunSnapshot) -> Json:
    return {
        **one.model_dump(include={"dag_id", "state", "run_type", "conf", "note"}),
        "dag_run_id": one.run_id,
        "logical_date": _time(one.logical_date),
        "start_date": _time(one.start),
        "end_date": _time(one.end),
    }


def _dag(one: DagInfo) -> Json:
    return {
        **one.model_dump(include={"dag_id", "is_paused", "owners", "fileloc", "has_import_errors"}),
        "tags": [{"name": name} for name in one.tags],
        "next_dagrun_run_after": _time(one.next_run),
        "timetable_periodic": one.periodic,
    }


def _task_info(one: TaskInfo) -> Json:
    return {
        **one.model_dump(include={"task_id", "retries", "pool"}),
        "downstream_task_ids": list(one.downstream),
        "operator_name": one.operator,
    }


def _connection(one: Connection) -> Json:
    return {
        **one.model_dump(include={"conn_type", "host", "login", "port", "extra", "description"}),
        "connection_id": one.conn_id,
        "schema": one.schema_name,
    }


def _pool(one: Pool) -> Json:
    return {
        **one.model_dump(include={"name", "slots", "description", "include_deferred"}),
        "occupied_slots": one.occupied,
        "queued_slots": one.queued,
        "scheduled_slots": one.scheduled,
    }
