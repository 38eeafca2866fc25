"""What a bench needs of its own Airflow: settings put in place, runs started, states and logs read.

Not Airmedic's gateway on purpose: what judges Airmedic does not see the world through it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any

import httpx

from graph.errors import AirmedicError

POLL = 0.3  # seconds
TIMEOUT = 60.0  # seconds a request: on a busy machine an answer comes late
TRIES = 5  # of a write, when Airflow itself stumbles
MOVING = frozenset({"running", "restarting"})
ENDED_WITHIN = 60.0  # seconds until the processes of a run that was ended are gone
FINAL = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


class BenchFailed(AirmedicError):
    """The bench's Airflow did not do what an injection needs; says nothing about Airmedic."""


class AirflowAdmin:
    """Plain REST calls with the administrator's token."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def put_variable(self, key: str, value: str) -> None:
        """Create the Variable or replace its value."""
        await self._upsert("variables", key, {"key": key, "value": value})

    async def variable(self, key: str) -> str | None:
        """Its value; None when there is none."""
        found = await self._get(f"variables/{key}")
        return None if found is None else str(found["value"])

    async def put_connection(self, conn_id: str, fields: Mapping[str, Any]) -> None:
        """Create the Connection or replace these fields."""
        await self._upsert("connections", conn_id, {"connection_id": conn_id, **fields})

    async def put_pool(self, name: str, slots: int) -> None:
        """Create the pool or set its size."""
        body = {"name": name, "slots": slots, "include_deferred": False}
        await self._upsert("pools", name, body)

    async def delete(self, kind: str, key: str) -> None:
        """Remove a Variable, Connection or pool; fine when it is gone already."""
        answer = await self._write("DELETE", f"{kind}/{key}")
        if answer.status_code != httpx.codes.NOT_FOUND:
            _checked(answer)

    async def unpause(self, dag_id: str) -> None:
        """Let its runs start."""
        _checked(await self._write("PATCH", f"dags/{dag_id}", {"is_paused": False}))

    async def pause(self, dag_id: str) -> None:
        """Hold new runs of the DAG."""
        _checked(await self._write("PATCH", f"dags/{dag_id}", {"is_paused": True}))

    async def trigger(self, dag_id: str, run_id: str) -> None:
        """Start a run under this id."""
        body = {"dag_run_id": run_id, "logical_date": None}
        _checked(await self._write("POST", f"dags/{dag_id}/dagRuns", body))

    async def run_state(self, dag_id: str, run_id: str) -> str:
        """The run's state."""
        return str((await self._found(f"dags/{dag_id}/dagRuns/{run_id}"))["state"])

    async def clear(self, dag_id: str, run_id: str, tasks: Sequence[str]) -> None:
        """Run tasks again, with all that comes after them, whatever their state."""
        body = {
            "dry_run": False,
            "only_failed": False,
            "dag_run_id": run_id,
            "task_ids": list(tasks),
            "include_downstream": True,
        }
        _checked(await self._write("POST", f"dags/{dag_id}/clearTaskInstances", body))

    async def mark(self, dag_id: str, run_id: str, task_id: str, state: str) -> None:
        """Set a task instance's state by hand."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"
        _checked(await self._write("PATCH", path, {"new_state": state}))

    async def runs(self, dag_id: str, **query: Any) -> list[dict[str, Any]]:
        """Its runs as Airflow describes them; none when there is no such DAG."""
        found = await self._get(f"dags/{dag_id}/dagRuns", params={"limit": 100, **query})
        return [] if found is None else list(found["dag_runs"])

    async def end_active_runs(self, dag_id: str) -> None:
        """Mark what still runs as failed, so that one fault does not reach into the next."""
        for run in await self.runs(dag_id, state=["queued", "running"]):
            path = f"dags/{dag_id}/dagRuns/{run['dag_run_id']}"
            _checked(await self._write("PATCH", path, {"state": "failed"}))
            # A process that dies later would be told of as a failure of the next fault.
            await self._wait_still(dag_id, str(run["dag_run_id"]))

    async def _wait_still(self, dag_id: str, run_id: str) -> None:
        async def state() -> str:
            listed = await self._found(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=1000")
            return "moving" if any(one["state"] in MOVING for one in listed["task_instances"]) else "still"

        await _wait(f"run {run_id!r}", state, {"still"}, ENDED_WITHIN)

    async def delete_runs(self, dag_id: str) -> None:
        """Forget every run of a DAG."""
        for run in await self.runs(dag_id):
            _checked(await self._write("DELETE", f"dags/{dag_id}/dagRuns/{run['dag_run_id']}"))

    async def event_log(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """Airflow's own audit log of one run, oldest first, whoever did it."""
        query = {"dag_id": dag_id, "run_id": run_id, "order_by": "id", "limit": 1000}
        return list((await self._found("eventLogs", query))["event_logs"])

    async def stored(self, kind: str, key: str) -> dict[str, Any] | None:
        """A Variable, Connection, pool or DAG as Airflow shows it; None when there is none."""
        return await self._get(f"{kind}/{key}")

    async def writes_of(self, user: str, *, since: datetime) -> list[dict[str, Any]]:
        """What Airflow's own audit log says this user changed, oldest first."""
        query: dict[str, Any] = {"owner": user, "after": since.isoformat(), "order_by": "id", "limit": 1000}
        listed = _checked(await self._client.get("/api/v2/eventLogs", params=query)).json()["event_logs"]
        return [one for one in listed if not one["event"].startswith("get_")]

    async def wait_import_error(self, filename: str, *, within: float) -> None:
        """Wait until a DAG file of this name is reported as broken."""

        async def state() -> str:
            listed = _checked(await self._client.get("/api/v2/importErrors")).json()["import_errors"]
            return "broken" if any(one["filename"].endswith(filename) for one in listed) else "fine"

        await _wait(f"file {filename!r}", state, {"broken"}, within)

    async def wait_tag(self, dag_id: str, tag: str, *, within: float) -> None:
        """Wait until Airflow has read the DAG with this tag."""

        async def state() -> str:
            found = await self._get(f"dags/{dag_id}")
            # One whose file did not import is still shown, as it was, but has no runs any more.
            if found is None or found["is_stale"]:
                return "absent, as the DAG is"
            return tag if any(one["name"] == tag for one in found["tags"]) else "absent"

        await _wait(f"tag {tag!r} of {dag_id!r}", state, {tag}, within)

    async def paused(self, dag_id: str) -> bool:
        """Whether new runs of the DAG are held."""
        return bool((await self._found(f"dags/{dag_id}"))["is_paused"])

    async def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        """The task instance as Airflow describes it."""
        return await self._found(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")

    async def tries(self, dag_id: str, run_id: str, task_id: str) -> list[dict[str, Any]]:
        """All its tries, oldest first."""
        found = await self._found(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/tries")
        return sorted(found["task_instances"], key=lambda one: int(one["try_number"]))

    async def log(self, dag_id: str, run_id: str, task_id: str, try_number: int) -> list[Any]:
        """A try's log in Airflow's structured form."""
        url = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{try_number}"
        found = await self._get(url, params={"full_content": True})
        return [] if found is None else list(found["content"])

    async def xcom(self, dag_id: str, run_id: str, task_id: str, key: str) -> Any:
        """A pushed value; None when there is none."""
        url = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}"
        found = await self._get(url, params={"deserialize": True})
        return None if found is None else found["value"]

    async def wait_task(
        self, dag_id: str, run_id: str, task_id: str, states: Collection[str], *, within: float
    ) -> str:
        """Wait until the task instance is in one of these states; which one."""

        async def state() -> str:
            return str((await self.task(dag_id, run_id, task_id))["state"])

        return await _wait(f"task {task_id!r}", state, states, within)

    async def wait_run(self, dag_id: str, run_id: str, *, within: float) -> str:
        """Wait until the run has ended; how."""

        async def state() -> str:
            return await self.run_state(dag_id, run_id)

        return await _wait(f"run {run_id!r}", state, FINAL, within)

    async def _upsert(self, kind: str, key: str, body: Mapping[str, Any]) -> None:
        answer = await self._write("POST", kind, body)
        if answer.status_code == httpx.codes.CONFLICT:
            answer = await self._write("PATCH", f"{kind}/{key}", body)
        _checked(answer)

    async def _write(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> httpx.Response:
        """Airflow's answer; asked again while its SQLite file is locked: nothing was done then."""
        answer = await self._client.request(method, f"/api/v2/{path}", json=body)
        for _ in range(TRIES - 1):
            if not answer.is_server_error:
                break
            await asyncio.sleep(1)
            answer = await self._client.request(method, f"/api/v2/{path}", json=body)
        return answer

    async def _get(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        headers = {"Accept": "application/json"}
        answer = await self._client.get(f"/api/v2/{path}", params=params, headers=headers)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        return dict(_checked(answer).json())

    async def _found(self, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        found = await self._get(path, params)
        if found is None:
            raise BenchFailed(f"Airflow has no {path}")
        return found


@asynccontextmanager
async def open_admin(url: str, username: str, password: str) -> AsyncIterator[AirflowAdmin]:
    """Log in; the token lasts longer than any bench."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False) as client:
        login = {"username": username, "password": password}
        token = _checked(await client.post("/auth/token", json=login)).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        yield AirflowAdmin(client)


async def wait_until(what: str, holds: Callable[[], Awaitable[bool]], *, within: float) -> None:
    """Return as soon as it holds; else `BenchFailed`."""

    async def state() -> str:
        return "so" if await holds() else "not so"

    await _wait(what, state, {"so"}, within)


async def _wait(
    what: str, read: Callable[[], Awaitable[str]], states: Collection[str], seconds: float
) -> str:
    seen = "not known"
    try:
        async with asyncio.timeout(seconds):
            while True:
                # On a busy machine an answer may come too late: the next one will do.
                with suppress(httpx.TransportError):
                    seen = await read()
                if seen in states:
                    return seen
                await asyncio.sleep(POLL)
    except TimeoutError as exc:
        wanted = ", ".join(sorted(states))
        raise BenchFailed(f"{what} is {seen} after {seconds:.0f} s, not {wanted}") from exc


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        request = answer.request
        raise BenchFailed(
            f"{request.method} {request.url.path}: HTTP {answer.status_code} {answer.text[:300]}"
        )
    return answer
