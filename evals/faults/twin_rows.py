"""Which faults the in-memory Airflow cannot show, and why."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

LIMIT = "the task's time limit is kept by Airflow's own task runner, in real seconds"

NOT_IN_MEMORY: Mapping[str, str] = MappingProxyType(
    {
        "F19": LIMIT,
        "F20": LIMIT,
        "F32": "logs are no files there that could be lost",
        "F33": "serialising an XCom is Airflow's own work",
        "F41": "there is no network between Airmedic and it that could be away",
        "F42": "it lives in Airmedic's process and would die with it",
        "F47": "nothing runs by the clock there",
        "F48": "its scheduler knows no trigger rules",
    }
)
