"""What a row has to show beside its figures: policy's words, a ledger beside Airflow's own log, the world.

Pictures of the world are taken with the bench's own eyes and compared as canonical JSON, byte for byte.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

from pydantic import JsonValue

from evals.faults.play import Played
from evals.faults.stage import Arena
from graph.domain import Action, DagInfo, FixPlan, LedgerEntry, Remediation
from tools.policy import Question, decide, explain

Exhibit = Callable[[Arena, Played], Awaitable[dict[str, JsonValue]]]


async def exhibits_of(stage: Arena, played: Played) -> dict[str, JsonValue]:
    """What this row shows; nothing for most."""
    exhibit = EXHIBITS.get(played.row.id)
    return {} if exhibit is None or played.incident is None else await exhibit(stage, played)


async def _decided(stage: Arena, played: Played) -> dict[str, JsonValue]:
    """What policy said of the plan that was carried out."""
    incident = played.incident
    if incident is None or incident.plan is None or incident.decision is None:
        return {}
    told = f"{incident.task}\n{incident.plan.summary}\n{explain(incident.decision)}"
    return {f"policy_{incident.decision.verdict}": told}


async def _forbidden(stage: Arena, played: Played) -> dict[str, JsonValue]:
    """What policy says of a plan that suggests itself here and never helps: just once more."""
    incident = played.incident
    if incident is None or incident.diagnosis is None:
        return {}
    ref = incident.task
    target: dict[str, JsonValue] = {
        "dag_id": ref.dag_id,
        "run_id": ref.run_id,
        "tasks": [{"task_id": ref.task_id, "map_index": ref.map_index}],
    }
    again = FixPlan(
        remediation=Remediation.RETRY,
        actions=(Action(name="clear_task", target=target, args={"downstream": True}),),
        summary=f"clear {ref.task_id!r} and run it again, unchanged",
    )
    dag: DagInfo = await stage.service.airflow.dag(ref.dag_id)
    preview = await stage.service.catalogue.preview(stage.service.airflow, again)
    question = Question(
        diagnosis=incident.diagnosis,
        plan=again,
        task=await stage.service.airflow.task(ref),
        dag=dag,
        radius=preview.radius,
        reruns=preview.reruns,
        environment=stage.service.settings.environment,
        now=stage.service.clock(),
    )
    decision = decide(question, stage.service.policy, stage.service.catalogue)
    asked = "(asked by the bench: Airmedic itself offers no such plan)"
    return {f"policy_{decision.verdict}": f"{ref}\n{again.summary} {asked}\n{explain(decision)}"}


async def _written_once(stage: Arena, played: Played) -> dict[str, JsonValue]:
    """The ledger, and what Airflow itself wrote down about the same run."""
    if played.incident is None:
        return {}
    ref = played.incident.task
    logged = await stage.world.airflow.event_log(ref.dag_id, ref.run_id)
    tries = await stage.world.airflow.tries(ref.dag_id, ref.run_id, ref.task_id)
    return {
        "ledger": [_entry(one) for one in played.ledger],
        "airflow_event_log": [_named(one, ("when", "event", "owner", "task_id", "extra")) for one in logged],
        "tries": [_named(one, ("try_number", "state", "start_date", "end_date")) for one in tries],
    }


async def _before_and_after(stage: Arena, played: Played) -> dict[str, JsonValue]:
    """The world at each moment, and the before-images of the ledger."""
    return {
        "world": dict(stage.world.images),
        "ledger": [_entry(one) for one in played.ledger],
    }


def _entry(entry: LedgerEntry) -> dict[str, JsonValue]:
    return entry.model_dump(mode="json", exclude={"incident_id"})


def _named(found: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, JsonValue]:
    return {name: found.get(name) for name in names}


EXHIBITS: Mapping[str, Exhibit] = MappingProxyType(
    {
        "F01": _decided,
        "F07": _decided,
        "F26": _forbidden,
        "F35": _before_and_after,
        "F36": _before_and_after,
        "F42": _written_once,
    }
)
