"""A log is read once when it ends as a whole one does, and otherwise until it grows no more."""

from __future__ import annotations

from typing import cast

import pytest

from graph.domain import TaskLog, TaskRef
from tests.factories import make_task
from tools.gateway import AirflowGateway
from tools.gathering import LOG_READS, settled_log

FAILED = "[t] ERROR - Task failed with exception\nValueError: no\n"
END = "[t] INFO - ::group::Post Execute\n[t] INFO - ::endgroup::\n"
OTHER_GROUP = "[t] INFO - ::group::Pre Execute\n[t] INFO - ::endgroup::\n"


class Growing:
    """An Airflow whose log is at each read as long as it has become; the last stays."""

    def __init__(self, *texts: str) -> None:
        self._texts = list(texts)
        self.reads = 0
        self.slept = 0.0

    async def log(self, task: TaskRef, try_number: int) -> TaskLog:
        self.reads += 1
        return TaskLog(text=self._texts.pop(0) if len(self._texts) > 1 else self._texts[0])

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds


@pytest.mark.parametrize(
    ("texts", "reads", "read"),
    [
        pytest.param([FAILED + END], 1, FAILED + END, id="whole at once"),
        pytest.param(["", FAILED, FAILED + END], 3, FAILED + END, id="whole after a while"),
        pytest.param([FAILED], 2, FAILED, id="two reads agree, as for a killed task"),
        pytest.param([OTHER_GROUP, OTHER_GROUP + FAILED], 3, OTHER_GROUP + FAILED, id="another group's end"),
        pytest.param([""], 1 + LOG_READS, "", id="none comes"),
    ],
)
async def test_a_log_is_read_until_it_is_whole(texts: list[str], reads: int, read: str) -> None:
    airflow = Growing(*texts)

    log = await settled_log(cast(AirflowGateway, airflow), make_task(), 1, airflow.sleep)

    assert (airflow.reads, log.text) == (reads, read)
    assert (airflow.slept == 0) is (reads == 1)
