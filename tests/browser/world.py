"""The pipelines that the browser tests and the screenshots break: how they fail, and what Airflow shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime

from pydantic import JsonValue

from evals.faults.world import CONTRACT, GOOD_CONTRACT
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try

SAFE = "airmedic:rerun-safe"
ATTACK = (
    "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>[a](javascript:1)"
)
RENAMED = "employees_daily"
UNSAFE = "orders_hourly"
BROKEN = "payroll_export"
LIMITED = "exchange_rates"
LOCKED = "ledger_sync"


def failing(error: str, *, file: str = "load.py", xcom: Mapping[str, JsonValue] | None = None) -> Try:
    """A try that ends with this exception, in a log as Airflow writes them."""
    log = (
        "[2026-03-01T03:00:01Z] INFO - Dependencies all met for dep_context=non-requeueable deps\n"
        "[2026-03-01T03:00:01Z] INFO - Starting attempt 1 of 1\n"
        "[2026-03-01T03:00:02Z] INFO - reading from the source\n"
        "[2026-03-01T03:00:04Z] ERROR - Task failed with exception\n"
        "Traceback (most recent call last):\n"
        f'  File "/opt/airflow/dags/{file}", line 41, in load\n'
        "    rows = client.read(day)\n"
        f"{error}\n"
        "[2026-03-01T03:00:04Z] INFO - Marking task as FAILED\n"
    )
    return Try(state="failed", log=log, xcom=xcom or {})


def well(rows: int = 120) -> Try:
    """A try that ends well and says so of its data."""
    report: dict[str, JsonValue] = {
        "rows_in": rows,
        "rows_out": rows,
        "rows_expected": rows,
        "satisfied": True,
    }
    return Try(xcom={"airmedic_report": report})


RENAME = failing(
    "airmedic_contract.ContractViolation: employees: required column 'email' is missing; "
    "unexpected column 'email_address' (string)",
    file="employees_daily.py",
    xcom={
        "airmedic_report": {
            "contract": CONTRACT,
            "satisfied": False,
            "rows_in": 120,
            "rows_out": 0,
            "problems": [
                {"kind": "missing", "column": "email", "expected": "string", "required": True},
                {"kind": "unexpected", "column": "email_address", "found": "string", "required": False},
            ],
        }
    },
)
REFUSED = failing(
    "requests.exceptions.ConnectionError: HTTPConnectionPool(host='source.internal', port=80): Max retries "
    "exceeded with url: /api/orders (Caused by NewConnectionError('[Errno 111] Connection refused'))"
)
TOO_MANY = failing(
    "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: http://rates.internal/; "
    "Retry-After: 1"
)
DEADLOCK = failing("psycopg2.errors.DeadlockDetected: deadlock detected")
NO_STRIP = failing("AttributeError: 'NoneType' object has no attribute 'strip'", file="payroll_export.py")
HOSTILE = failing(f"ValueError: {ATTACK}")


def make_airflow(clock: Callable[[], datetime], *, hostile: bool = True) -> MemoryAirflow:
    """Five pipelines and one with a hostile name; each run fails in its own way, and then would succeed."""
    airflow = MemoryAirflow(clock=clock, auto=True)
    airflow.add_variable(CONTRACT, json.dumps(GOOD_CONTRACT, indent=2))

    def add(dag_id: str, *tries: Try, tags: tuple[str, ...] = (SAFE,)) -> None:
        load = TaskSpec("load", tries, downstream=("publish",))
        airflow.add_dag(dag_id, [load, TaskSpec("publish", (well(),))], tags=tags)

    add(RENAMED, RENAME, well(), tags=(SAFE, f"airmedic:contract={CONTRACT}"))
    add(UNSAFE, REFUSED, well(), tags=())
    add(BROKEN, NO_STRIP)
    add(LIMITED, TOO_MANY, well())
    add(LOCKED, DEADLOCK, well())
    if hostile:
        add(ATTACK, HOSTILE, well(), tags=())
    return airflow
