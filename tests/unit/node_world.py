"""One node alone: what it finds, or what it waits for. No runner, no store."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.runtime import Runtime
from langgraph.types import Command

from graph.checkpoint import checkpoint_serializer
from graph.domain import Answer, Connection, Incident, RootCause, TaskRef, digest
from graph.state import HealState
from nodes.deps import Control, Deps
from tests.factories import START as BEGAN
from tests.factories import Clock, make_task
from tests.unit.healing_world import ScriptedDiagnostician
from tests.unit.policy_cases import CATALOGUE, DEFAULT
from tools.airflow_memory import MemoryAirflow
from tools.ledger import MemoryLedger
from tools.policy import Counters


class Node(Protocol):
    """One of `nodes`."""

    def __call__(self, state: HealState, *, runtime: Runtime[Deps]) -> Awaitable[HealState]: ...


@dataclass
class KnownRecords:
    """What the store would say."""

    switches: Control = field(default_factory=Control)
    counted: Counters = field(default_factory=Counters)
    of_incident: tuple[TaskRef, ...] = ()
    found: dict[str, frozenset[RootCause | None]] = field(default_factory=dict)  #: causes, by run

    async def counters(self, task: TaskRef) -> Counters:
        return self.counted

    async def control(self) -> Control:
        return self.switches

    async def members(self, incident_id: int) -> tuple[TaskRef, ...]:
        return self.of_incident

    async def causes(self, task: TaskRef, runs: Sequence[str]) -> Mapping[str, frozenset[RootCause | None]]:
        return self.found

    async def last_good(self, dag_id: str) -> Mapping[str, Connection]:
        return {}


class Shelf:
    """An archive that keeps logs in memory."""

    def __init__(self) -> None:
        self.logs: dict[str, str] = {}

    async def put_log(self, text: str) -> str:
        self.logs[digest(text)] = text
        return digest(text)


@dataclass(frozen=True)
class Step:
    """One run of a node: its update, empty when it waits, and what it waits for."""

    found: HealState
    waits: dict[str, Any] | None


def make_deps(airflow: MemoryAirflow, clock: Clock, **given: Any) -> Deps:
    return Deps(
        **{
            "airflow": airflow,
            "ledger": MemoryLedger(1),
            "diagnostician": ScriptedDiagnostician(),
            "catalogue": CATALOGUE,
            "policy": DEFAULT,
            "archive": Shelf(),
            "records": KnownRecords(),
            "clock": clock,
            "sleep": clock.sleep,
            **given,
        }
    )


def make_incident(**given: Any) -> Incident:
    fields = {
        "id": 1,
        "airflow": "default",
        "task": make_task(),
        "try_number": 1,
        "opened_at": BEGAN,
    }
    return Incident(**{**fields, **given})


async def run_node(node: Node, state: HealState, deps: Deps, *, answer: Answer | None = None) -> Step:
    """Run it as the graph would; with an answer, once more when it has asked."""
    alone = StateGraph(HealState, context_schema=Deps)
    alone.add_node("node", node)
    alone.add_edge(START, "node")
    alone.add_edge("node", END)
    compiled = alone.compile(checkpointer=InMemorySaver(serde=checkpoint_serializer()))
    config: Any = {"configurable": {"thread_id": "1"}}
    step = await _once(compiled, state, config, deps)
    if answer is not None and step.waits is not None:
        step = await _once(compiled, Command(resume=answer.model_dump(mode="json")), config, deps)
    return step


async def _once(compiled: Any, given: Any, config: Any, deps: Deps) -> Step:
    found: HealState = {}
    waits: dict[str, Any] | None = None
    async for update in compiled.astream(given, config, context=deps, stream_mode="updates"):
        if (asked := update.get("__interrupt__")) is not None:
            waits = asked[0].value
        else:
            found = cast(HealState, update["node"] or {})
    return Step(found, waits)
