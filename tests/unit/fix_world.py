"""A small Airflow with one failed task, plans on it, and a power cut at any await."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, cast

from pydantic import JsonValue

from graph.domain import Action, FixPlan, LedgerEntry, Remediation, Step, TaskRef
from graph.errors import StalePlan
from tests.factories import make_clear, make_task
from tools.actions import ActionCatalogue
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try
from tools.carry_out import carry_out, undo_attempt
from tools.gateway import AirflowGateway
from tools.ledger import ActionLedger, MemoryLedger

CONTRACT = "airmedic_contract_orders"
OLD: dict[str, Any] = {"version": 1, "columns": {"id": {"type": "integer", "required": True, "key": True}}}
NEW: dict[str, Any] = {**OLD, "columns": {**OLD["columns"], "note": {"type": "string", "required": False}}}
OLD_TEXT, NEW_TEXT = json.dumps(OLD), json.dumps(NEW, indent=2)
TASK = make_task()
CATALOGUE = ActionCatalogue.default(plugins=())


def make_airflow(*, auto: bool = False, tags: tuple[str, ...] = ("airmedic:rerun-safe",)) -> MemoryAirflow:
    """DAG `orders`: `load` failed on its first try and would now succeed, `report` waits for it."""
    airflow = MemoryAirflow()
    airflow.add_dag(
        "orders",
        [
            TaskSpec("load", (Try("failed", log="connection refused"), Try()), downstream=("report",)),
            TaskSpec("report"),
        ],
        tags=tags,
        source='Variable.get("orders_path"); BaseHook.get_connection("orders_db")',
    )
    airflow.add_dag("feed", [TaskSpec("publish")], tags=("airmedic:rerun-safe",))
    airflow.add_variable(CONTRACT, OLD_TEXT)
    airflow.add_connection("orders_db", "http", host="wrong.invalid", port=80)
    airflow.add_pool("orders_pool", 0)
    airflow.start("orders", "manual__1")
    return airflow


async def failed_airflow(*, auto: bool = False, **given: Any) -> MemoryAirflow:
    """The same, with the failure already there and the list of writes still empty."""
    airflow = make_airflow(**given)
    await airflow.settle()
    airflow.auto = auto
    assert airflow.writes == []
    return airflow


def set_contract(value: str = NEW_TEXT) -> Action:
    return Action(name="set_variable", target={"key": CONTRACT, "base": OLD_TEXT}, args={"value": value})


BASE: dict[str, JsonValue] = {"host": "wrong.invalid", "port": 80, "schema": None, "login": None}
SETTINGS: dict[str, Action] = {
    "contract": set_contract(),
    "new variable": Action(
        name="set_variable", target={"key": "orders_path", "base": None}, args={"value": "/api"}
    ),
    "connection": Action(
        name="patch_connection", target={"conn_id": "orders_db", "base": BASE}, args={"host": "db.example"}
    ),
    "pool": Action(name="set_pool_slots", target={"pool": "orders_pool", "base": 0}, args={"slots": 2}),
    "pause": Action(name="pause_dag", target={"dag_id": "feed"}),
    "note": Action(name="add_note", target=dict(TASK.model_dump()), args={"text": "looked at"}),
}
WRITE_VERBS = {
    "set_variable": "set_variable",
    "patch_connection": "patch_connection",
    "set_pool_slots": "set_pool_slots",
    "pause_dag": "set_paused",
    "add_note": "set_task_note",
    "clear_task": "clear",
    "trigger_dag": "trigger",
}


def make_fix(*actions: Action) -> FixPlan:
    return FixPlan(remediation=Remediation.ADAPT_SCHEMA, actions=actions, summary="mend it")


def clear() -> Action:
    return make_clear(TASK)


def verbs(airflow: MemoryAirflow) -> list[str]:
    return [write.verb for write in airflow.writes]


def settings_of(airflow: MemoryAirflow) -> dict[str, object]:
    """What Airflow stores of everything that the plans above can change."""
    return {
        "contract": airflow.stored_variable(CONTRACT),
        "path": airflow.stored_variable("orders_path"),
        "connection": dict(airflow._connections["orders_db"].fields),
        "pool": airflow._pools["orders_pool"].slots,
        "paused": airflow._dags["feed"].is_paused,
    }


class Crash(BaseException):
    """The process died here."""


@dataclass
class Fuse:
    """Blows at the n-th await of what it protects, before or after the effect."""

    at: int | None = None
    after_effect: bool = False
    calls: int = 0

    async def run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        number, self.calls = self.calls, self.calls + 1
        if number == self.at and not self.after_effect:
            raise Crash
        result = await call()
        if number == self.at:
            raise Crash
        return result


@dataclass
class Fused:
    """Every call of the wrapped object goes through the fuse."""

    inner: object
    fuse: Fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.inner, name)

        async def call(*args: Any, **given: Any) -> Any:
            return await self.fuse.run(lambda: method(*args, **given))

        return call


@dataclass
class Bench:
    """One incident: its Airflow, its ledger, and a fuse between us and both."""

    airflow: MemoryAirflow
    ledger: MemoryLedger = field(default_factory=lambda: MemoryLedger(7))
    slept: list[float] = field(default_factory=list)
    fuse: Fuse = field(default_factory=Fuse)
    watched: TaskRef = TASK

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def guard(self) -> None:
        """What the fix node asks: does the failure still stand as it was diagnosed?"""
        now = await self.gateway.task(self.watched)
        if (now.state, now.try_number) != ("failed", 1):
            raise StalePlan(f"the task is {now.state} on try {now.try_number}")

    @property
    def gateway(self) -> AirflowGateway:
        return cast(AirflowGateway, Fused(self.airflow, self.fuse))

    @property
    def fused_ledger(self) -> ActionLedger:
        return cast(ActionLedger, Fused(self.ledger, self.fuse))

    async def apply(self, plan: FixPlan, attempt: int = 1) -> tuple[LedgerEntry, ...]:
        return await carry_out(
            plan,
            attempt=attempt,
            airflow=self.gateway,
            ledger=self.fused_ledger,
            catalogue=CATALOGUE,
            guard=self.guard,
            sleep=self.sleep,
        )

    async def undo(self, attempt: int = 1) -> tuple[LedgerEntry, ...]:
        return await undo_attempt(
            attempt,
            airflow=self.gateway,
            ledger=self.fused_ledger,
            catalogue=CATALOGUE,
            sleep=self.sleep,
        )

    async def steps(self, attempt: int = 1) -> list[Step]:
        return [entry.step for entry in await self.ledger.entries(attempt=attempt)]
