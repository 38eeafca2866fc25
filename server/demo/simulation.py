"""Plays a failure through the real graph on the in-memory Airflow, with a store and a clock of its own.

Nothing outside the process is reached: no Airflow, no model, nobody is told.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

import structlog
from pydantic import HttpUrl, JsonValue, SecretStr

from graph.domain import Answer, AnswerKind, Door, FailureId, Outcome, Role, Status, TaskRef
from graph.errors import DecisionConflict
from server.people.notifier import SilentNotifier
from server.record import IncidentDetail, IncidentRecord
from server.service import Service, open_service
from server.settings import Settings
from server.store_reads import ENDED
from tools.airflow_memory import MemoryAirflow, TaskSpec, Ticking, Try
from tools.diagnosis import Diagnostician
from tools.knowledge import KnowledgeBase, KnowledgeDiagnostician

TASK = TaskRef(dag_id="employees_daily", run_id="scheduled__2026-03-01T03:00:00+00:00", task_id="load")
SAFE = ("airmedic:rerun-safe",)
CONTRACT = "airmedic_contract_employees"
WATCH = timedelta(seconds=20)
TURNS = 60  # looks at the incident before the play is given up
PATIENCE = 30.0  # seconds of real time

ScenarioName = Literal[
    "source_down",
    "rate_limited",
    "deadlock",
    "new_column",
    "unsafe_to_rerun",
    "broken_code",
    "airflow_retries",
    "never_better",
]


def _report(**given: JsonValue) -> Mapping[str, JsonValue]:
    rows: dict[str, JsonValue] = {"rows_in": 120, "rows_out": 120, "rows_expected": 120, "satisfied": True}
    return {"airmedic_report": {**rows, **given}}


def _failing(error: str, *, xcom: Mapping[str, JsonValue] | None = None) -> Try:
    log = (
        "[2026-03-01T03:00:01Z] INFO - reading employees from the source\n"
        "[2026-03-01T03:00:02Z] ERROR - Task failed with exception\n"
        "Traceback (most recent call last):\n"
        '  File "/opt/airflow/dags/employees_daily.py", line 41, in load\n'
        f"{error}\n"
    )
    return Try(state="failed", log=log, xcom=xcom or {})


WELL = Try(xcom=_report())
REFUSED = _failing(
    "requests.exceptions.ConnectionError: HTTPConnectionPool(host='source.internal', port=80): Max retries "
    "exceeded with url: /api/employees (Caused by NewConnectionError('[Errno 111] Connection refused'))"
)
LIMITED = _failing(
    "requests.exceptions.HTTPError: 429 Client Error: Too Many Requests for url: http://source.internal/; "
    "Retry-After: 20"
)
DEADLOCK = _failing("psycopg2.errors.DeadlockDetected: deadlock detected")
BROKEN = _failing("AttributeError: 'NoneType' object has no attribute 'strip'")
NEW_COLUMN = _failing(
    "airmedic_contract.ContractViolation: employees: unexpected column 'nickname' (string)",
    xcom=_report(
        contract=CONTRACT,
        satisfied=False,
        rows_out=0,
        problems=[{"kind": "unexpected", "column": "nickname", "found": "string", "required": False}],
    ),
)


@dataclass(frozen=True)
class Scenario:
    """One failure: how the task's tries end, and how the incident ends when people approve."""

    title: str
    tries: tuple[Try, ...]
    expected: Outcome
    tags: tuple[str, ...] = SAFE
    retries: int = 0


SCENARIOS: dict[ScenarioName, Scenario] = {
    "source_down": Scenario("the source refuses connections for a while", (REFUSED, WELL), Outcome.HEALED),
    "rate_limited": Scenario("the source asks to slow down", (LIMITED, WELL), Outcome.HEALED),
    "deadlock": Scenario("two writers lock each other", (DEADLOCK, WELL), Outcome.HEALED),
    "new_column": Scenario(
        "the source has a new column",
        (NEW_COLUMN, WELL),
        Outcome.HEALED,
        (*SAFE, f"airmedic:contract={CONTRACT}"),
    ),
    "unsafe_to_rerun": Scenario(
        "a failure that would pass, in a task not known safe to run again",
        (REFUSED, WELL),
        Outcome.HEALED,
        (),
    ),
    "broken_code": Scenario("the DAG's code is wrong", (BROKEN,), Outcome.ESCALATED),
    "airflow_retries": Scenario(
        "Airflow's own retry mends it", (REFUSED, WELL), Outcome.SELF_RECOVERED, retries=1
    ),
    "never_better": Scenario("the source does not come back", (REFUSED,), Outcome.ESCALATED),
}


@dataclass(frozen=True)
class Played:
    """What was left when it had ended."""

    detail: IncidentDetail
    writes: tuple[tuple[str, str], ...]
    seconds: float


async def simulate(name: ScenarioName, *, approve: bool, by: str, settings: Settings) -> Played:
    """Play it to its end. The policy and the knowledge are those of `settings`."""
    scenario = SCENARIOS[name]
    clock = Ticking(datetime(2026, 3, 1, 3, 0, tzinfo=UTC))
    airflow = _airflow(scenario, clock)
    with tempfile.TemporaryDirectory(prefix="airmedic-simulation-") as folder:
        async with asyncio.timeout(PATIENCE):
            with structlog.contextvars.bound_contextvars(simulation=name):
                async with open_service(
                    _own(settings, Path(folder)),
                    airflow=airflow,
                    diagnostician=_diagnostician(settings),
                    notifier=SilentNotifier(),
                    clock=clock,
                    sleep=_sleep_on(clock),
                    background=False,
                ) as service:
                    return await _play(service, airflow, clock, approve=approve, by=by)


def _own(settings: Settings, folder: Path) -> Settings:
    """Settings of its own, built from defaults: nothing of the environment, no addresses, no secrets."""
    return Settings.model_construct(
        airflow_url=HttpUrl("http://127.0.0.1:1"),
        airflow_token=SecretStr("none"),
        healing="on",
        policy=settings.policy,
        knowledge=settings.knowledge,
        environment="demo",
        watch_window=WATCH,
        database_url=f"sqlite:///{folder / 'simulation.db'}",
        log_file=None,
        console=False,
    )


def _diagnostician(settings: Settings) -> Diagnostician:
    return KnowledgeDiagnostician(KnowledgeBase.load(settings.knowledge))


def _sleep_on(clock: Ticking) -> Callable[[float], Awaitable[None]]:
    async def sleep(seconds: float) -> None:
        clock.advance(seconds)

    return sleep


def _airflow(scenario: Scenario, clock: Ticking) -> MemoryAirflow:
    airflow = MemoryAirflow(clock=clock, auto=True)
    load = TaskSpec("load", scenario.tries, downstream=("publish",), retries=scenario.retries)
    airflow.add_dag(TASK.dag_id, [load, TaskSpec("publish", (WELL,))], tags=scenario.tags)
    columns = {"id": {"type": "integer", "required": True, "key": True}}
    airflow.add_variable(CONTRACT, json.dumps({"version": 1, "columns": columns}))
    airflow.start(TASK.dag_id, TASK.run_id, run_type="scheduled")
    return airflow


async def _play(
    service: Service, airflow: MemoryAirflow, clock: Ticking, *, approve: bool, by: str
) -> Played:
    began = clock()
    await airflow.settle(retries=False)
    failure = FailureId(airflow=service.settings.airflow_id, task=TASK, try_number=1)
    await service.store.accept([failure], door=Door.LISTENER)
    for _ in range(TURNS):
        await service.intake.admit()
        await service.runner.settle_all()
        record = (await service.store.incidents())[0]
        if record.status in ENDED:
            break
        if record.status is Status.WAITING_DECISION:
            await _answer(service, record, approve=approve, by=by)
            continue
        wake = record.wake_at or clock()
        clock.advance(max(1.0, (wake - clock()).total_seconds()))
        await airflow.settle()
        await service.intake.poll()
    detail = await service.store.detail((await service.store.incidents())[-1].id)
    writes = tuple((one.verb, _target(one.args)) for one in airflow.writes)
    return Played(detail=detail, writes=writes, seconds=(clock() - began).total_seconds())


async def _answer(service: Service, record: IncidentRecord, *, approve: bool, by: str) -> None:
    """What was chosen at the start; a plan that still lacks an argument can only be rejected."""
    ready = record.plan is not None and not service.catalogue.missing(record.plan)
    kind = AnswerKind.APPROVE if approve and ready else AnswerKind.REJECT
    plan_id = record.plan.id if record.plan is not None else ""
    answer = Answer(kind=kind, by=by, plan_id=plan_id, role=Role.ADMIN)
    try:
        await service.store.answer(record.id, version=record.version, answer=answer)
    except DecisionConflict:
        # The question ran out while the clock moved: the next turn sees what came of it.
        await service.runner.settle_all()


def _target(args: Mapping[str, JsonValue]) -> str:
    named = ("key", "conn_id", "name", "dag_id")
    return next((str(args[one]) for one in named if one in args), "")
