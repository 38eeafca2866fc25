"""The demo pipeline: employees from an HTTP source into a warehouse table, held to a contract.

Connections `employees_api` (http) and `airmedic_warehouse` (SQLite file in `host`), Variables
`airmedic_contract_employees` and `employees_source_path`, pool `employees_pool`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from datetime import datetime, timedelta, timezone

import employees_files as files
import employees_source as source
import employees_sql as sql
from airflow.sdk import BaseHook, Variable, dag, get_current_context, task
from airmedic_contract import Contract, Report, apply_timeout, push_report

CONTRACT = "airmedic_contract_employees"
SOURCE = "employees_api"
WAREHOUSE = "airmedic_warehouse"
POOL = "employees_pool"
LOCK_WAIT = 3  # seconds
RETRY_ONCE = {"retries": 1, "retry_delay": timedelta(seconds=3)}

log = logging.getLogger(__name__)


def _run_file(name: str):
    return files.run_file(get_current_context()["run_id"], name)


@task(pre_execute=apply_timeout, **RETRY_ONCE)
def fetch() -> int:
    """All rows of the source, and the department reference, as they are now."""
    with files.pid_file("fetch"):
        departments = files.read(files.departments_file())
        rows, total = source.employees(SOURCE, Variable.get("employees_source_path"))
        push_report(Report(rows_in=len(rows), rows_out=len(rows), rows_expected=total))
        if len(rows) != total:
            raise ValueError(f"the source declares {total} rows and sent {len(rows)}")
        files.write(_run_file("fetched"), {"rows": rows, "departments": departments, "total": total})
        log.info("fetched %d rows", len(rows))
        return len(rows)


@task
def validate() -> int:
    """Hold the rows to the contract; set aside what it allows to set aside."""
    with files.pid_file("validate"):
        fetched = files.read(_run_file("fetched"))
        result = Contract.load(CONTRACT).check(fetched["rows"])
        result.report.rows_expected = fetched["total"]
        push_report(result.report)
        files.write(_run_file("quarantined"), result.quarantined)
        rows = result.rows_or_raise()
        files.write(_run_file("validated"), rows)
        log.info("%d rows keep the contract, %d set aside", len(rows), len(result.quarantined))
        return len(rows)


@task(retries=0)
def transform() -> int:
    """One warehouse row per valid row."""
    # Imported here: a broken module is this task's failure, not the whole file's.
    from employees_transform import transform as to_warehouse

    with files.pid_file("transform"):
        validated = files.read(_run_file("validated"))
        rows = to_warehouse(validated, files.read(_run_file("fetched"))["departments"])
        push_report(Report(rows_in=len(validated), rows_out=len(rows), rows_expected=len(validated)))
        files.write(_run_file("transformed"), rows)
        return len(rows)


@task(pool=POOL, **RETRY_ONCE)
def load() -> int:
    """All rows of this run in one transaction: loading again replaces them, a kill leaves none."""
    with files.pid_file("load"):
        run_id = get_current_context()["run_id"]
        rows = [{**row, "run_id": run_id} for row in files.read(_run_file("transformed"))]
        size = Contract.load(CONTRACT).batch_size
        warehouse = sqlite3.connect(BaseHook.get_connection(WAREHOUSE).host, timeout=LOCK_WAIT)
        try:
            with warehouse:
                warehouse.execute(sql.CREATE)
                warehouse.execute(sql.DELETE_RUN, (run_id,))
                for start in range(0, len(rows), size):
                    warehouse.executemany(sql.INSERT, rows[start : start + size])
                    log.info("wrote rows %d to %d", start + 1, min(start + size, len(rows)))
                    time.sleep(files.load_pause())
            (found,) = warehouse.execute(sql.COUNT_RUN, (run_id,)).fetchone()
        finally:
            warehouse.close()
        expected = files.read(_run_file("fetched"))["total"]
        aside = len(files.read(_run_file("quarantined")))
        report = Report(
            contract=CONTRACT, satisfied=True, rows_in=len(rows), rows_out=found, rows_expected=expected
        )
        report.rows_quarantined = aside
        push_report(report)
        return found


@dag(
    schedule=os.environ.get("AIRMEDIC_DEMO_SCHEDULE") or None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["airmedic:rerun-safe", "airmedic:upstream=employees_feed", f"airmedic:contract={CONTRACT}"],
    doc_md=__doc__,
)
def self_healing_pipeline() -> None:
    """fetch, validate, transform, load."""
    fetch() >> validate() >> transform() >> load()


self_healing_pipeline()
