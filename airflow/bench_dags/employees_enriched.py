"""For the fault bench only: a run that is worth having without its optional enrichment."""

from __future__ import annotations

import sqlite3
from datetime import datetime, timezone

import employees_files as files
import employees_source as source
from airflow.sdk import BaseHook, dag, get_current_context, task
from airmedic_contract import Report, push_report

CREATE = "CREATE TABLE IF NOT EXISTS enriched (run_id TEXT NOT NULL, id INTEGER NOT NULL, rating TEXT)"


def _file(name: str):
    return files.run_file(get_current_context()["run_id"], name)


@task(retries=0)
def collect() -> int:
    """All rows of the source."""
    rows, total = source.employees("employees_api", "/api/employees")
    push_report(Report(rows_in=len(rows), rows_out=len(rows), rows_expected=total))
    files.write(_file("collected"), rows)
    return len(rows)


@task(retries=0)
def enrich() -> int:
    """What another service says of them; the DAG's tag allows to go without."""
    ratings = source.get(source.base_url("ratings_api") + "/api/departments")["departments"]
    files.write(_file("ratings"), ratings)
    push_report(Report(rows_in=len(ratings), rows_out=len(ratings)))
    return len(ratings)


@task(retries=0, trigger_rule="none_failed")
def publish() -> int:
    """All rows once, with the rating where there is one."""
    run_id = get_current_context()["run_id"]
    rows, known = files.read(_file("collected")), _file("ratings").exists()
    warehouse = sqlite3.connect(BaseHook.get_connection("airmedic_warehouse").host)
    try:
        with warehouse:
            warehouse.execute(CREATE)
            warehouse.execute("DELETE FROM enriched WHERE run_id = ?", (run_id,))
            warehouse.executemany(
                "INSERT INTO enriched VALUES (?, ?, ?)",
                [(run_id, row["id"], "rated" if known else None) for row in rows],
            )
    finally:
        warehouse.close()
    push_report(Report(rows_in=len(rows), rows_out=len(rows), rows_expected=len(rows)))
    return len(rows)


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["airmedic:rerun-safe", "airmedic:skippable=enrich"],
    doc_md=__doc__,
)
def employees_enriched() -> None:
    """collect, enrich, publish."""
    collect() >> enrich() >> publish()


employees_enriched()
