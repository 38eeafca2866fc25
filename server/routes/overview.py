"""How things stand, and the agent log."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import JsonValue

from graph.domain import Door, Status
from server.access import PulseDep, ServiceDep
from server.intake import WATERMARK
from server.problems import documented
from server.pulse import AirflowPulse
from server.routes.control import read_switches
from server.routes.incidents import LARGEST
from server.schemas import AgentEventOut, AirflowOut, LogPage, StatusOut

router = APIRouter(tags=["overview"])


@router.get("/status", responses=documented(401, 503))
async def read_status(service: ServiceDep, pulse: PulseDep) -> StatusOut:
    """Mode, Airflow's health, how many incidents stand where and how they ended."""
    store, settings = service.store, service.settings
    counts = await store.status_counts()
    switches = await read_switches(service)
    seen = {door: _time(await store.setting(f"seen_{door.value}")) for door in Door if door is not Door.POLL}
    return StatusOut(
        airflow_id=settings.airflow_id,
        environment=settings.environment,
        healing="shadow" if switches.shadow else "on",
        paused=switches.paused,
        policy=service.policy.digest,
        airflow=_airflow(await pulse.airflow()),
        incidents=counts,
        outcomes=await store.outcomes(),
        open=sum(n for status, n in counts.items() if status not in {Status.CLOSED, Status.ESCALATED}),
        waiting_decision=counts.get(Status.WAITING_DECISION, 0),
        seen=seen,
        polled_until=_time(await store.setting(WATERMARK)),
    )


def _airflow(pulse: AirflowPulse) -> AirflowOut:
    known = pulse.health.model_dump() if pulse.health is not None else {}
    return AirflowOut(ok=pulse.health is not None, detail=pulse.detail, asked_at=pulse.asked_at, **known)


def _time(value: JsonValue) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


@router.get("/logs", responses=documented(401, 422, 503))
async def read_logs(
    service: ServiceDep,
    incident: Annotated[int | None, Query(ge=1, le=LARGEST)] = None,
    node: Annotated[str | None, Query(max_length=32, pattern=r"^[a-z_]+$")] = None,
    level: Literal["debug", "info", "warning", "error"] | None = None,
    after: Annotated[int, Query(ge=0, le=LARGEST, description="`next` of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> LogPage:
    """The agent log in order."""
    found = await service.store.events(incident_id=incident, node=node, level=level, after=after, limit=limit)
    return LogPage(items=[AgentEventOut.of(event) for event in found], next=found[-1].id if found else after)
