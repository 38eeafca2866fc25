"""How much a failure matters."""

from __future__ import annotations

import pytest

from graph.domain import DagInfo, Severity
from tests.factories import make_snapshot
from tools.triage import triage


@pytest.mark.parametrize(
    ("tags", "held_back", "recent", "severity", "intervene"),
    [
        pytest.param((), 1, 0, Severity.HIGH, True, id="a final failure is high"),
        pytest.param((), 5, 0, Severity.CRITICAL, True, id="many wait for it"),
        pytest.param((), 0, 6, Severity.CRITICAL, True, id="it fails again and again"),
        pytest.param(("airmedic:ignore",), 1, 0, Severity.HIGH, False, id="suppressed by its owner"),
        pytest.param(("airmedic:ignore",), 9, 0, Severity.CRITICAL, True, id="critical is never suppressed"),
        pytest.param(("airmedic:severity=low",), 9, 9, Severity.LOW, False, id="low is recorded only"),
        pytest.param(("airmedic:severity=medium",), 0, 1, Severity.MEDIUM, False, id="medium, no pattern"),
        pytest.param(("airmedic:severity=medium",), 0, 3, Severity.MEDIUM, True, id="medium with a pattern"),
        pytest.param(("airmedic:severity=odd",), 0, 0, Severity.HIGH, True, id="an unknown word is ignored"),
    ],
)
def test_severity(
    tags: tuple[str, ...], held_back: int, recent: int, severity: Severity, intervene: bool
) -> None:
    found = triage(
        make_snapshot(),
        dag=DagInfo(dag_id="orders", tags=tags),
        history=[make_snapshot()] * recent,
        held_back=held_back,
    )
    assert (found.severity, found.intervene) == (severity, intervene)
