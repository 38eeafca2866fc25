"""What counts as healed, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from graph.domain import ColumnProblem, DataReport, Outcome, TaskInfo, TaskSnapshot
from tests.factories import make_snapshot, make_task
from tools.verification import World, downstream_of, judge

GOOD = DataReport(rows_in=120, rows_out=120, rows_expected=120, satisfied=True)
USUAL = (118, 119, 120, 121, 122)


def after(task_id: str, state: str) -> TaskSnapshot:
    return make_snapshot(task=make_task(task_id=task_id), state=state)


def world(**given: Any) -> World:
    green = make_snapshot(state="success", try_number=2)
    return World(**{"task": green, "reports": {"load": GOOD}, **given})


@pytest.mark.parametrize(
    ("given", "outcome"),
    [
        pytest.param({}, Outcome.HEALED, id="green on a new try, and the data agree"),
        pytest.param({"task": make_snapshot(state="running", try_number=2)}, None, id="still running"),
        pytest.param({"task": make_snapshot(state="success", try_number=1)}, None, id="no new try yet"),
        pytest.param(
            {"task": make_snapshot(state="failed", try_number=2)}, Outcome.NOT_HEALED, id="failed again"
        ),
        pytest.param({"downstream": (after("report", "running"),)}, None, id="what comes after still runs"),
        pytest.param(
            {"downstream": (after("report", "skipped"),)}, Outcome.HEALED, id="a skip holds nothing back"
        ),
        pytest.param({"reports": {}}, Outcome.RECOVERED_UNVERIFIED, id="nothing known of the data"),
        pytest.param(
            {"reports": {"load": DataReport(rows_out=5)}},
            Outcome.RECOVERED_UNVERIFIED,
            id="rows, and nothing to compare them with",
        ),
        pytest.param(
            {"reports": {"load": GOOD.model_copy(update={"rows_out": 60})}},
            Outcome.NOT_HEALED,
            id="green with half the rows is not healed",
        ),
        pytest.param(
            {
                "reports": {
                    "load": GOOD.model_copy(
                        update={
                            "satisfied": False,
                            "problems": (ColumnProblem(kind="missing", column="email"),),
                        }
                    )
                }
            },
            Outcome.NOT_HEALED,
            id="the contract is not satisfied",
        ),
        pytest.param(
            {
                "reports": {
                    "load": DataReport(
                        rows_out=110, rows_quarantined=10, quarantine_limit=6, rows_expected=120
                    )
                }
            },
            Outcome.NOT_HEALED,
            id="too much was set aside",
        ),
        pytest.param(
            {
                "reports": {
                    "load": DataReport(
                        rows_out=117, rows_quarantined=3, quarantine_limit=6, rows_expected=120
                    )
                }
            },
            Outcome.HEALED,
            id="rows set aside within the limit are accounted for",
        ),
    ],
)
def test_the_outcome(given: dict[str, Any], outcome: Outcome | None) -> None:
    assert judge(world(**given), try_before=1, changed_settings=False).outcome is outcome


@pytest.mark.parametrize(
    ("changed_settings", "outcome"),
    [
        pytest.param(True, Outcome.NOT_HEALED, id="our change may have broken the next task"),
        pytest.param(False, Outcome.RECOVERED_UNVERIFIED, id="a plain re-run cannot have"),
    ],
)
def test_a_failure_after_the_healed_task(changed_settings: bool, outcome: Outcome) -> None:
    held = world(downstream=(after("report", "failed"),))
    assert judge(held, try_before=1, changed_settings=changed_settings).outcome is outcome


@pytest.mark.parametrize(
    ("rows", "declared", "healed"),
    [
        pytest.param(121, None, True, id="inside the task's own band"),
        pytest.param(90, None, False, id="far outside it"),
        pytest.param(90, 90, True, id="outside, and the source declared just that"),
    ],
)
def test_rows_are_judged_by_the_tasks_own_past(rows: int, declared: int | None, healed: bool) -> None:
    report = DataReport(rows_out=rows, rows_expected=declared)
    found = judge(
        world(reports={"load": report}, past_rows={"load": USUAL}), try_before=1, changed_settings=False
    )
    assert (found.outcome is Outcome.HEALED) is healed


def test_downstream_goes_all_the_way() -> None:
    tasks = [
        TaskInfo(task_id="a", downstream=("b", "c")),
        TaskInfo(task_id="b", downstream=("d",)),
        TaskInfo(task_id="c", downstream=("d",)),
        TaskInfo(task_id="d"),
    ]
    assert downstream_of("a", tasks) == {"b", "c", "d"}
    assert downstream_of("d", tasks) == frozenset()
