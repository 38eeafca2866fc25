"""Airmedic whole, on the in-memory Airflow: what tests of the flow share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from graph.domain import Answer, AnswerKind, Diagnosis, Door, FailureId, Status, TaskRef
from server.people.notifier import SilentNotifier
from server.record import IncidentDetail, IncidentRecord
from server.service import Service, open_service
from server.settings import load_settings
from tests.factories import Clock, make_diagnosis
from tools.airflow_memory import MemoryAirflow
from tools.airflow_memory_state import TaskSpec, Try
from tools.diagnosis import Case, Diagnostician
from tools.knowledge import KnowledgeBase
from tools.memory import Remembering

REPORT: dict[str, JsonValue] = {
    "airmedic_report": {"rows_in": 10, "rows_out": 10, "rows_expected": 10, "satisfied": True}
}
FAIL = Try(state="failed", log="boom: connection refused")
GOOD = Try(xcom=REPORT)
TASK = TaskRef(dag_id="orders", run_id="manual__1", task_id="load")
SAFE = ("airmedic:rerun-safe",)


class ScriptedDiagnostician:
    """Answers with what it is given, the last answer again and again; remembers what it was asked."""

    def __init__(self, *answers: Diagnosis) -> None:
        self.answers = list(answers) or [make_diagnosis()]
        self.cases: list[Case] = []

    async def diagnose(self, case: Case) -> Diagnosis:
        self.cases.append(case)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


class Later:
    """A diagnostician that is put in place once the store is open."""

    def __init__(self, knowledge: Diagnostician) -> None:
        self.knowledge = knowledge

    async def diagnose(self, case: Case) -> Diagnosis:
        return await self.knowledge.diagnose(case)


class Ward:
    """A service on the twin, driven by hand and by a clock that moves when told."""

    def __init__(
        self, service: Service, airflow: MemoryAirflow, clock: Clock, doctor: ScriptedDiagnostician
    ) -> None:
        self.service = service
        self.airflow = airflow
        self.clock = clock
        self.doctor = doctor
        self.told: list[str] = []

    async def report(self, task: TaskRef = TASK, *, try_number: int = 1) -> None:
        """The listener tells of a failure, and Airmedic does what it can at once."""
        await self.tell(task, try_number=try_number)

    async def tell(self, task: TaskRef, *, try_number: int = 1, error: str = "refused") -> None:
        failure = FailureId(airflow="default", task=task, try_number=try_number)
        await self.service.store.accept([failure], door=Door.LISTENER, error=error)
        await self.go_on()

    async def go_on(self) -> None:
        """Admit, poll and drive until nothing is due."""
        await self.service.intake.admit()
        await self.service.runner.settle_all()

    async def pass_time(self, seconds: float) -> None:
        """Time goes by; what is due happens."""
        self.clock.forward(seconds)
        await self.service.intake.poll()
        await self.go_on()

    async def only(self) -> IncidentRecord:
        (record,) = await self.service.store.incidents()
        return record

    async def detail(self) -> IncidentDetail:
        return await self.service.store.detail((await self.only()).id)

    async def answer(self, kind: AnswerKind, **given: Any) -> None:
        """A person answers what is asked now."""
        record = await self.only()
        assert record.status is Status.WAITING_DECISION, record.status
        answer = Answer(kind=kind, by="ada", **given)
        await self.service.store.answer(record.id, version=record.version, answer=answer)
        await self.go_on()

    def writes(self, verb: str = "clear") -> int:
        return sum(write.verb == verb for write in self.airflow.writes)


def make_airflow(
    clock: Clock,
    *tries: Try,
    tags: tuple[str, ...] = SAFE,
    retries: int = 0,
    auto: bool = True,
    downstream: tuple[TaskSpec, ...] = (),
) -> MemoryAirflow:
    """One DAG `orders`: `load` behaves as told, try after try."""
    airflow = MemoryAirflow(clock=clock, auto=auto)
    after = tuple(one.task_id for one in downstream)
    load = TaskSpec("load", tries=tries or (FAIL, GOOD), retries=retries, downstream=after)
    airflow.add_dag("orders", [load, *downstream], tags=tags)
    return airflow


@asynccontextmanager
async def open_ward(
    tmp_path: Path,
    airflow: MemoryAirflow,
    clock: Clock,
    *answers: Diagnosis,
    database_url: str | None = None,
    memory: bool = False,
    knowledge: KnowledgeBase | None = None,
    **settings: Any,
) -> AsyncIterator[Ward]:
    """Healing on, nothing in the background."""
    given = {
        "airflow_url": "http://127.0.0.1:1",
        "airflow_token": "unused",
        "healing": "on",
        "watch_window": 20,
        "database_url": database_url or f"sqlite:///{tmp_path / 'ward.db'}",
        "log_file": None,
        **settings,
    }
    doctor = ScriptedDiagnostician(*answers)
    later = Later(doctor)
    async with open_service(
        load_settings({}, **given),
        airflow=airflow,
        diagnostician=later if memory else doctor,
        notifier=SilentNotifier(),
        clock=clock,
        sleep=clock.sleep,
        background=False,
        knowledge=knowledge,
    ) as service:
        later.knowledge = Remembering(doctor, service.store)
        yield Ward(service, airflow, clock, doctor)
