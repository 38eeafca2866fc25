"""Labelled failures: one JSON object a line. Labels, structured log and task instance may be missing."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from graph.domain import Remediation, RootCause, TaskLog, TaskRef, TaskSnapshot
from graph.errors import AirmedicError
from tools.diagnosis import Case
from tools.redaction import redact, redact_json


class CasesInvalid(AirmedicError):
    """A file of cases cannot be used; the message names the line."""


class TaskInstance(BaseModel):
    """What Airflow's REST API tells of the task; unknown fields are dropped."""

    model_config = ConfigDict(extra="ignore")

    dag_id: str
    task_id: str
    dag_run_id: str = ""
    map_index: int = -1
    try_number: int = 0
    max_tries: int = 0
    state: str | None = "failed"
    operator: str | None = ""
    pool: str | None = "default_pool"
    queue: str | None = ""
    hostname: str | None = ""
    start_date: datetime | None = None
    end_date: datetime | None = None
    duration: float | None = None

    def snapshot(self) -> TaskSnapshot:
        """The same as a domain type."""
        return TaskSnapshot(
            task=TaskRef(
                dag_id=self.dag_id, run_id=self.dag_run_id, task_id=self.task_id, map_index=self.map_index
            ),
            state=self.state or "none",
            try_number=self.try_number,
            max_tries=self.max_tries,
            operator=self.operator or "",
            pool=self.pool or "default_pool",
            queue=self.queue or "",
            hostname=self.hostname or "",
            start=self.start_date,
            end=self.end_date,
            duration=self.duration,
        )


class EvalCase(BaseModel):
    """One failure, with labels where somebody set them."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    id: str
    log: str = ""
    log_content: tuple[dict[str, JsonValue], ...] | None = ()
    task_instance: TaskInstance | None = None
    root_cause: RootCause | None = None
    alt_root_cause: RootCause | None = None
    transient: bool | None = None
    remediation: Remediation | None = None
    difficulty: str = ""
    decisive: str | None = Field(default=None, description="a part of the log that decides")

    @property
    def labelled(self) -> bool:
        """True when it can be scored."""
        return self.root_cause is not None

    def to_case(self) -> Case:
        """What a diagnostician gets: redacted, without the labels."""
        content = tuple(_object(redact_json(event)) for event in self.log_content or ())
        log = TaskLog(text=redact(self.log), content=content)
        return Case(log=log, task=self.task_instance.snapshot() if self.task_instance else None)


def _object(value: JsonValue) -> dict[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def read_cases(path: Path) -> list[EvalCase]:
    """All cases of a file, in order."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise CasesInvalid(f"{path}: cannot be read: {exc}") from exc
    cases: list[EvalCase] = []
    lines: dict[str, int] = {}
    # Not splitlines(): a JSON string may hold U+2028 as it is.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        case = _parse(line, path, number)
        if case.id in lines:
            raise CasesInvalid(f"{path}, line {number}: id {case.id!r} is also on line {lines[case.id]}")
        lines[case.id] = number
        cases.append(case)
    if not cases:
        raise CasesInvalid(f"{path}: holds no case")
    return cases


def _parse(line: str, path: Path, number: int) -> EvalCase:
    try:
        return EvalCase.model_validate(json.loads(line))
    except json.JSONDecodeError as exc:
        raise CasesInvalid(f"{path}, line {number}: not JSON: {exc.msg}") from exc
    except ValidationError as exc:
        problem = exc.errors()[0]
        place = ".".join(str(part) for part in problem["loc"]) or "the object"
        raise CasesInvalid(f"{path}, line {number}: {place}: {problem['msg']}") from exc
