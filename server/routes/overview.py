"""How things stand, the agent log, and figures over a window."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import JsonValue

from graph.domain import Door, Status
from server.access.entry import PulseDep, ServiceDep, ViewerDep
from server.intake import WATERMARK
from server.observe.pulse import AirflowPulse, Part
from server.overview import Overview
from server.problems import documented
from server.record import LogQuery
from server.routes.control import read_switches
from server.routes.incidents import LARGEST, PLAIN, Moment
from server.schemas import AgentEventOut, LogPage
from server.schemas_overview import (
    AirflowOut,
    FindingOut,
    HealthOut,
    NoticesOut,
    QueueOut,
    StatusOut,
    SummaryOut,
)
from server.streams import AT_ONCE, CONTENT, EventStream, LastEventId, followed

router = APIRouter(tags=["overview"])

WINDOWS = {
    "day": (timedelta(days=1), timedelta(hours=1)),
    "week": (timedelta(days=7), timedelta(hours=6)),
    "month": (timedelta(days=30), timedelta(days=1)),
}
Level = Literal["debug", "info", "warning", "error"]


def overview_of(request: Request) -> Overview:
    """What is remembered between two looks at the whole; made when first asked for."""
    known: Overview | None = getattr(request.app.state, "overview", None)
    if known is None:
        known = request.app.state.overview = Overview(request.app.state.service)
    return known


@router.get("/status", summary="Read how things stand", responses=documented(401, 403, 429, 503))
async def read_status(service: ServiceDep, pulse: PulseDep, _by: ViewerDep, request: Request) -> StatusOut:
    """Mode, health of every part, pipelines and their last runs, where incidents stand and how they ended."""
    store, settings, overview = service.store, service.settings, overview_of(request)
    counts = await store.status_counts()
    switches = await read_switches(service)
    seen = {door: _time(await store.setting(f"seen_{door.value}")) for door in Door if door is not Door.POLL}
    airflow = _airflow(await pulse.airflow())
    pipelines, rate = await overview.pipelines(ask=airflow.ok)
    return StatusOut(
        airflow_id=settings.airflow_id,
        environment=settings.environment,
        healing="shadow" if switches.shadow else "on",
        paused=switches.paused,
        policy=service.policy.digest,
        airflow=airflow,
        incidents=counts,
        outcomes=await store.outcomes(),
        open=sum(n for status, n in counts.items() if status not in {Status.CLOSED, Status.ESCALATED}),
        waiting_decision=counts.get(Status.WAITING_DECISION, 0),
        seen=seen,
        polled_until=_time(await store.setting(WATERMARK)),
        health=await _health(overview, pulse, airflow),
        pipelines=pipelines,
        success_rate=rate,
        queue=QueueOut.model_validate(await store.figures.queue(service.clock())),
        findings=[
            FindingOut.model_validate(one) for one in await service.watch.findings.listed(lasting=True)
        ],
        notices=NoticesOut.model_validate(await service.outbox.state()),
    )


async def _health(overview: Overview, pulse: PulseDep, airflow: AirflowOut) -> list[HealthOut]:
    parts = {part.name: part for part in await pulse.parts()}
    found = [_part("airflow", parts["airflow"])]
    for name, told in (
        ("scheduler", airflow.scheduler),
        ("triggerer", airflow.triggerer),
        ("dag_processor", airflow.dag_processor),
    ):
        state = "unknown" if not airflow.ok else "off" if told is None else "well" if told else "unwell"
        found.append(HealthOut.model_validate({"name": name, "state": state}))
    for name, part in (("agent", parts["driver"]), ("database", parts["database"])):
        found.append(_part(name, part))
    return [*found, await overview.model()]


def _part(name: str, part: Part) -> HealthOut:
    state = "unwell" if not part.ok else "degraded" if part.degraded else "well"
    return HealthOut.model_validate({"name": name, "state": state, "detail": part.detail})


def _airflow(pulse: AirflowPulse) -> AirflowOut:
    known = pulse.health.model_dump() if pulse.health is not None else {}
    return AirflowOut(ok=pulse.health is not None, detail=pulse.detail, asked_at=pulse.asked_at, **known)


def _time(value: JsonValue) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None


@router.get(
    "/logs",
    summary="Read or follow the agent log",
    response_model=LogPage,
    responses={
        200: {
            "description": "A page of lines; with `follow`, server-sent events",
            "content": CONTENT,
        },
        **documented(401, 403, 422, 429, 503),
    },
)
async def read_logs(
    service: ServiceDep,
    _by: ViewerDep,
    incident: Annotated[int | None, Query(ge=1, le=LARGEST)] = None,
    node: Annotated[str | None, Query(max_length=32, pattern=r"^[a-z_]+$", examples=["diagnose"])] = None,
    level: Level | None = None,
    since: Annotated[Moment | None, Query(description="at or after")] = None,
    until: Annotated[Moment | None, Query(description="before")] = None,
    text: Annotated[str, Query(max_length=200, pattern=PLAIN, description="what a line must hold")] = "",
    order: Annotated[Literal["oldest", "newest"], Query(description="which comes first")] = "oldest",
    cursor: Annotated[int, Query(ge=0, le=LARGEST, description="`next` of the page before")] = 0,
    after: Annotated[int, Query(ge=0, le=LARGEST, deprecated=True, description="as `cursor`")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    follow: Annotated[bool, Query(description="stay, and send each new line as it comes")] = False,
    last_event_id: LastEventId = None,
) -> LogPage | EventStream:
    """Every filter that is given must hold. With `follow` the answer is a stream that goes on from
    `Last-Event-ID`, else from `cursor`, else from now."""
    query = LogQuery(
        incident_id=incident, node=node, level=level, since=since, until=until, text=text,
        newest=order == "newest" and not follow,
    )  # fmt: skip
    store, place = service.store, cursor or after
    if not follow:
        items, more = await store.log_page(query, cursor=place, limit=limit)
        last = items[-1].id if items else place
        ended = 0 if query.newest else last
        return LogPage(items=[AgentEventOut.of(one) for one in items], next=more if more else ended)
    if last_event_id is not None:
        place = int(last_event_id)
    elif not place:
        place = await store.last_event()
    stream = followed(
        lambda seen: store.log_lines(query, after=seen, limit=AT_ONCE),
        after=place,
        lasting=service.settings.stream_limit,
    )
    return EventStream(stream)


@router.get(
    "/metrics/summary", summary="Read figures over a window", responses=documented(401, 403, 422, 429, 503)
)
async def read_summary(
    service: ServiceDep,
    _by: ViewerDep,
    request: Request,
    window: Literal["day", "week", "month"] = "day",
) -> SummaryOut:
    """Of the incidents opened in the window, and of the machine now. Series are in equal buckets."""
    length, step = WINDOWS[window]
    return await overview_of(request).summary(window, length=length, step=step)
