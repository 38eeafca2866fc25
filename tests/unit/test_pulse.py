"""Well, degraded, unwell: what the health of the parts is told from."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from graph.domain import AirflowHealth
from server.observe.pulse import SLOW_AIRFLOW, AirflowPulse

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("health", "seconds", "words"),
    [
        pytest.param(AirflowHealth(scheduler=True), 0.1, "", id="well"),
        pytest.param(AirflowHealth(), 0.1, "", id="parts that are not deployed are not missed"),
        pytest.param(None, None, "", id="no answer is unwell, not degraded"),
        pytest.param(
            AirflowHealth(scheduler=False, triggerer=False),
            0.1,
            "no heartbeat of scheduler, triggerer",
            id="it answers for parts that are silent",
        ),
        pytest.param(
            AirflowHealth(scheduler=True), SLOW_AIRFLOW + 1, "it took 3.0 s to answer", id="it answers slowly"
        ),
    ],
)
def test_an_airflow_that_answers_may_be_degraded(
    health: AirflowHealth | None, seconds: float | None, words: str
) -> None:
    assert AirflowPulse(NOW, health, seconds=seconds).degraded == words
