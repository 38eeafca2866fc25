"""For the fault bench only: many mapped task instances that read one source and write one warehouse."""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime, timezone

import employees_source as source
from airflow.sdk import BaseHook, dag, get_current_context, task
from airmedic_contract import Report, push_report

SHARDS = int(os.environ.get("AIRMEDIC_DEMO_SHARDS") or 200)
LOCK_WAIT = 30  # seconds
CREATE = "CREATE TABLE IF NOT EXISTS shards (run_id TEXT NOT NULL, shard INTEGER NOT NULL, name TEXT)"


@task(retries=0)
def pull(shard: int) -> None:
    """One employee into the warehouse, in place of what this shard wrote before."""
    run_id = get_current_context()["run_id"]
    page = source.get(source.base_url("employees_api") + "/api/employees", limit=1, offset=shard % 100)
    name = page["employees"][0]["name"]
    warehouse = sqlite3.connect(BaseHook.get_connection("airmedic_warehouse").host, timeout=LOCK_WAIT)
    try:
        with warehouse:
            warehouse.execute(CREATE)
            warehouse.execute("INSERT INTO shards VALUES (?, ?, ?)", (run_id, shard, name))
    finally:
        warehouse.close()
    push_report(Report(rows_in=1, rows_out=1, rows_expected=1))


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["airmedic:rerun-safe"],
    doc_md=__doc__,
)
def employees_shards() -> None:
    """pull, once for each shard."""
    pull.expand(shard=list(range(SHARDS)))


employees_shards()
