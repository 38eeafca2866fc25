"""Makes domain objects with everything filled in; a test names only what it is about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from graph.domain import (
    Action,
    Diagnosis,
    EvidenceLine,
    FailureId,
    FixPlan,
    Remediation,
    RootCause,
    TaskRef,
    TaskSnapshot,
)

START = datetime(2026, 3, 1, 3, 0, tzinfo=UTC)


class Clock:
    """A clock that moves only when told."""

    def __init__(self, now: datetime = START) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        """A sleep that takes no time but on this clock."""
        self.forward(seconds)


def make_task(**given: Any) -> TaskRef:
    return TaskRef(**{"dag_id": "orders", "run_id": "manual__1", "task_id": "load", **given})


def make_failure(try_number: int = 1, **given: Any) -> FailureId:
    return FailureId(airflow="default", task=make_task(**given), try_number=try_number)


def make_snapshot(**given: Any) -> TaskSnapshot:
    task = given.pop("task", None) or make_task()
    return TaskSnapshot(
        **{"task": task, "state": "failed", "try_number": 1, "max_tries": 0, "end": START, **given}
    )


def make_diagnosis(**given: Any) -> Diagnosis:
    return Diagnosis(
        **{
            "root_cause": RootCause.NETWORK_UNREACHABLE,
            "transient": True,
            "confidence": 0.95,
            "remediation": Remediation.RETRY,
            "evidence": (EvidenceLine(line=3, text="connection refused"),),
            "summary": "the source refused the connection",
            **given,
        }
    )


def make_plan(*actions: Action, **given: Any) -> FixPlan:
    return FixPlan(
        **{
            "remediation": Remediation.RETRY,
            "actions": actions or (make_clear(),),
            "summary": "clear the task",
            **given,
        }
    )


def make_clear(task: TaskRef | None = None) -> Action:
    ref = task or make_task()
    target = {
        "dag_id": ref.dag_id,
        "run_id": ref.run_id,
        "tasks": [{"task_id": ref.task_id, "map_index": ref.map_index}],
    }
    return Action(name="clear_task", target=target, args={"downstream": True})
