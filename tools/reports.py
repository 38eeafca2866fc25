"""Reads what a pipeline says of its own data: the XCom `airmedic_report` of its tasks."""

from __future__ import annotations

from pydantic import JsonValue, ValidationError

from graph.domain import DataReport, TaskRef
from tools.gateway import AirflowGateway

REPORT_KEY = "airmedic_report"


def parse_report(value: JsonValue) -> DataReport | None:
    """The report, or None when there is none or it has another shape: pipelines owe us nothing."""
    if not isinstance(value, dict):
        return None
    known = {name: value[name] for name in DataReport.model_fields if name in value}
    try:
        return DataReport.model_validate(known)
    except ValidationError:
        return None


async def read_report(airflow: AirflowGateway, task: TaskRef) -> DataReport | None:
    """What this task instance reported in its last try."""
    return parse_report(await airflow.xcom(task, REPORT_KEY))
