"""The producer upstream of the demo pipeline: publishes the department reference that `fetch` reads."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

import employees_files as files
import employees_source as source
from airflow.sdk import dag, task
from airmedic_contract import Report, push_report

SOURCE = "employees_api"

log = logging.getLogger(__name__)


@task(retries=1, retry_delay=timedelta(seconds=3))
def publish_departments() -> int:
    """Write the reference whole or not at all."""
    with files.pid_file("publish_departments"):
        departments = source.get(source.base_url(SOURCE) + "/api/departments")["departments"]
        push_report(Report(rows_in=len(departments), rows_out=len(departments)))
        if not departments:
            raise ValueError("the source sent no departments")
        files.write(files.departments_file(), departments)
        log.info("published %d departments", len(departments))
        return len(departments)


@dag(
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    tags=["airmedic:rerun-safe"],
    doc_md=__doc__,
)
def employees_feed() -> None:
    """publish_departments."""
    publish_departments()


employees_feed()
