"""What a row asks beyond cause, action, outcome and rows: looked at while the fault is in."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from types import MappingProxyType

from evals.faults.airflow_admin import wait_until
from evals.faults.catalogue import FaultRow
from evals.faults.stage import Arena
from evals.faults.steps import RETRY_AFTER
from evals.faults.world import CONTRACT, GOOD_CONTRACT, PIPELINE
from graph.domain import DiagnosedBy, Status, Step, Verdict
from server.record import AgentEvent, IncidentDetail

ASKED_WITHIN = 60.0  # seconds from a second run's start to the question

Check = Callable[[Arena, str, IncidentDetail], Awaitable[list[str]]]


async def more_to_say(stage: Arena, row: FaultRow, run_id: str, detail: IncidentDetail | None) -> list[str]:
    """Objections of the row's own checks."""
    check = CHECKS.get(row.id)
    return [] if check is None or detail is None else await check(stage, run_id, detail)


async def _no_call_inside_the_wait(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """After Airflow's own tries nobody calls the source until it may be called again."""
    ended = detail.incident.failed_at
    calls = [seen.at for seen in stage.world.source.state.requests if ended is None or seen.at > ended]
    early = [at for at in calls if ended is not None and at < ended + timedelta(seconds=RETRY_AFTER - 1)]
    return [f"{len(early)} calls inside the wait the source asked for"] if early else []


async def _never_before_the_person(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """The retry comes after the approval."""
    approved = next((event.at for event in detail.events if event.name == "approved"), None)
    first = min((entry.sent_at for entry in detail.ledger if entry.sent_at), default=None)
    early = first is not None and (approved is None or first < approved)
    return ["retried before the person had renewed the credentials"] if early else []


async def _names_upstream(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """The handed-over words point at the task that made nothing."""
    words = " ".join([*detail.incident.checklist, _summary(detail)])
    return [] if "fetch" in words else ["does not name the upstream task that made nothing"]


async def _names_the_line(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """File and line of the error in the user's own code."""
    found = detail.incident.diagnosis
    place = found.location if found else None
    right = place is not None and place.file.endswith("employees_transform.py") and place.line > 0
    return [] if right else [f"names {place} instead of the line that raised"]


async def _from_memory(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """Answered from memory, without a call of a model."""
    found = detail.incident.diagnosis
    if found is None or found.by is not DiagnosedBy.MEMORY:
        return [f"diagnosed by {found.by if found else None}, not from memory"]
    return ["asked the model"] if found.cost is not None and found.cost.calls else []


async def _first_plan_gone(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """The first plan's edit was taken back, and only the second one's stands."""
    wrong = []
    first = [entry for entry in detail.ledger if entry.attempt == 1 and entry.action.name == "set_variable"]
    if [entry.step for entry in first] != [Step.UNDONE]:
        wrong.append("the first plan's edit was not taken back")
    if detail.incident.attempt != 2:
        wrong.append(f"{detail.incident.attempt} plans were applied, not two")
    columns = json.loads(await stage.world.airflow.variable(CONTRACT) or "{}").get("columns", {})
    expected = {**GOOD_CONTRACT["columns"]["email"], "source": "email_address"}
    images = stage.world.images
    if images.get("question 2") != images["before"]:
        wrong.append("the first plan left something in the world")
    if any(entry.before != first[0].before for entry in detail.ledger if entry.action.name == "set_variable"):
        wrong.append("the second plan found another contract than the first one")
    await stage.world.picture("after")
    if columns.get("email") != expected:
        wrong.append("the contract is not what the second plan alone makes of it")
    return wrong


async def _world_as_before(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """Several plans were tried, and nothing of them is left, byte for byte."""
    contract = json.loads(await stage.world.airflow.variable(CONTRACT) or "{}")
    wrong = [] if contract == GOOD_CONTRACT else ["the contract is not as before"]
    if await stage.world.picture("after") != stage.world.images["before"]:
        wrong.append("the world is not as before")
    if detail.incident.attempt < 2:
        wrong.append("only one plan was tried")
    return wrong


async def _breaker_opens(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """All is as before, and the same failure once more is asked about by an open breaker, untouched."""
    wrong = await _world_as_before(stage, run_id, detail)
    if not any(_decided(event) == Verdict.AUTO for event in detail.events):
        wrong.append("the breaker was open before anything had failed")
    store = stage.service.store
    again = await stage.world.trigger("f36_again")

    async def planned() -> bool:
        known = [one for one in await store.incidents() if one.task.run_id == again]
        return any(one.plan is not None and one.status is not Status.OPEN for one in known)

    await wait_until("the second failure's plan", planned, within=ASKED_WITHIN)
    (second,) = [one for one in await store.incidents() if one.task.run_id == again]
    asked = await store.detail(second.id)
    decision = asked.incident.decision
    if decision is None or decision.rule != "circuit breaker" or decision.verdict is not Verdict.ASK:
        told = f"{decision.verdict} by {decision.rule!r}" if decision else "nothing"
        wrong.append(f"the breaker did not open: policy said {told}")
    if asked.incident.status is not Status.WAITING_DECISION or asked.ledger:
        wrong.append("something was done although the breaker is open")
    return wrong


def _decided(event: AgentEvent) -> object:
    return event.data.get("verdict") if event.name == "decided" and isinstance(event.data, dict) else None


async def _cleared_once(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """Airflow's own tries and one more: the clear came through exactly once."""
    tries = await stage.world.airflow.tries(PIPELINE, run_id, "fetch")
    states = [one["state"] for one in tries]
    return [] if states == ["failed", "failed", "success"] else [f"the task's tries are {states}"]


async def _paused(stage: Arena, run_id: str, detail: IncidentDetail) -> list[str]:
    """As approved."""
    return [] if await stage.world.airflow.paused(PIPELINE) else ["the DAG is not paused"]


def _summary(detail: IncidentDetail) -> str:
    found = detail.incident.diagnosis
    return found.summary if found else ""


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "F04": _no_call_inside_the_wait,
        "F05": _never_before_the_person,
        "F16": _names_upstream,
        "F26": _names_the_line,
        "F35": _first_plan_gone,
        "F36": _breaker_opens,
        "F41": _cleared_once,
        "F42": _cleared_once,
        "F45": _from_memory,
        "F46": _paused,
    }
)
