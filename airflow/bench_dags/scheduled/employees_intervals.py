"""For the fault bench only: runs by the clock, one row for each interval it has loaded.

Not beside the others from the start: a DAG with a schedule would run through every other fault.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime, timezone

import employees_source as source
from airflow.sdk import BaseHook, dag, get_current_context, task
from airmedic_contract import Report, push_report

EVERY = os.environ.get("AIRMEDIC_DEMO_EVERY") or "* * * * * */15"  # the sixth field counts seconds
CREATE = "CREATE TABLE IF NOT EXISTS intervals (interval TEXT NOT NULL, run_id TEXT NOT NULL, rows INTEGER)"


@task(retries=0)
def load() -> int:
    """How many employees there were; loading an interval twice leaves two rows."""
    context = get_current_context()
    total = source.get(source.base_url("employees_api") + "/api/employees", limit=1, offset=0)["total"]
    warehouse = sqlite3.connect(BaseHook.get_connection("airmedic_warehouse").host, timeout=10)
    interval = context["logical_date"].astimezone(timezone.utc).isoformat()
    try:
        with warehouse:
            warehouse.execute(CREATE)
            warehouse.execute("INSERT INTO intervals VALUES (?, ?, ?)", (interval, context["run_id"], total))
    finally:
        warehouse.close()
    push_report(Report(rows_in=total, rows_out=total, rows_expected=total))
    return total


@dag(
    schedule=EVERY,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    tags=["airmedic:rerun-safe"],
    doc_md=__doc__,
)
def employees_intervals() -> None:
    """load."""
    load()


employees_intervals()
