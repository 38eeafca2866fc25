"""Keeps a DAG's Connections as they were when a run of it last succeeded, so that a change can be seen later.

Only what is not secret is kept. Which Connections a DAG uses is read from its own source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import JsonValue

from graph.domain import Connection, TaskSnapshot
from graph.errors import AirflowRefused
from server.store import IncidentStore
from tools.gateway import AirflowGateway
from tools.situation import named_in

AGAIN = timedelta(minutes=5)  # between two snapshots of one DAG


def _key(dag_id: str) -> str:
    return f"connections:{dag_id}"


async def take_snapshots(
    store: IncidentStore, airflow: AirflowGateway, moved: Sequence[TaskSnapshot], *, now: datetime
) -> None:
    """Look at the runs whose tasks just succeeded; keep the Connections of those that succeeded whole."""
    runs = {(one.task.dag_id, one.task.run_id) for one in moved if one.state == "success"}
    for dag_id, run_id in sorted(runs):
        known = await store.setting(_key(dag_id))
        taken = known.get("taken_at") if isinstance(known, dict) else None
        if isinstance(taken, str) and datetime.fromisoformat(taken) + AGAIN > now:
            continue
        try:
            if (await airflow.run(dag_id, run_id)).state != "success":
                continue
            source = await airflow.dag_source(dag_id)
            used = [one for one in await airflow.connections() if named_in(source, one.conn_id)]
        except AirflowRefused:
            continue  # a DAG we may not read has no snapshot
        kept: JsonValue = {one.conn_id: one.model_dump(mode="json") for one in used if not one.extra_masked}
        await store.remember(_key(dag_id), {"taken_at": now.isoformat(), "connections": kept})


async def read_snapshots(store: IncidentStore, dag_id: str) -> Mapping[str, Connection]:
    """The kept Connections of a DAG by id; empty when no run has succeeded under our eyes."""
    known = await store.setting(_key(dag_id))
    kept = known.get("connections") if isinstance(known, dict) else None
    if not isinstance(kept, dict):
        return {}
    return {name: Connection.model_validate(value) for name, value in kept.items()}
