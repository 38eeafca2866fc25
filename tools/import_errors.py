"""DAG files that do not import, in the shape of a failed task: what an incident about one refers to."""

from __future__ import annotations

from pathlib import PurePath

from graph.domain import ImportFailure, TaskRef, TaskSnapshot, digest
from tools.gateway import AirflowGateway


def file_ref(failure: ImportFailure) -> TaskRef:
    """`dag_id` is the file's name (no DAG of it may exist yet), `task_id` the file, `run_id` the error."""
    name = PurePath(failure.filename).stem[:250] or "dag file"
    return TaskRef(
        dag_id=name, run_id=f"import:{digest(failure.stacktrace)}", task_id=failure.filename[:1000]
    )


def broken_file(ref: TaskRef) -> TaskSnapshot:
    """The file as a failed task instance."""
    return TaskSnapshot(task=ref, state="failed", operator="DAG file")


async def present(airflow: AirflowGateway, ref: TaskRef) -> ImportFailure | None:
    """The same error, when Airflow still has it."""
    failures = await airflow.import_failures()
    return next((one for one in failures if file_ref(one) == ref), None)
