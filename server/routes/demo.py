"""Only in the demo: play a failure through the real graph, with nothing real touched."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import ConfigDict, Field

from graph.domain import DomainType
from server.access.entry import OperatorDep, ServiceDep
from server.answers import BodyType
from server.demo.simulation import SCENARIOS, ScenarioName, simulate
from server.problems import documented
from server.schemas import AnswerBody, IncidentDetailOut
from server.timeline import Moment, timeline_of

router = APIRouter(tags=["demo"])


class SimulateIn(BodyType):
    """Which failure to play, and what a person says when asked."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"failure": "source_down"}, {"failure": "unsafe_to_rerun", "approve": False}]
        }
    )

    failure: ScenarioName
    approve: Annotated[bool, Field(description="what the person answers, should policy ask one")] = True


class ScenarioOut(AnswerBody):
    """One failure that can be played."""

    name: ScenarioName
    title: str
    expected: str = Field(description="how it ends when policy's questions are approved")


class Write(DomainType):
    """One write to the in-memory Airflow."""

    verb: str
    target: str


class SimulateOut(AnswerBody):
    """How it went, on the in-memory Airflow and in a store of its own that is gone by now."""

    failure: ScenarioName
    title: str
    incident: IncidentDetailOut
    timeline: list[Moment]
    writes: list[Write] = Field(description="what was written to the in-memory Airflow")
    seconds: float = Field(description="how long it took on the simulation's clock")


def _lock(request: Request) -> asyncio.Lock:
    """One simulation at a time: each opens a store of its own."""
    known: asyncio.Lock | None = getattr(request.app.state, "simulating", None)
    if known is None:
        known = request.app.state.simulating = asyncio.Lock()
    return known


@router.get("/simulate", summary="List the failures to play", responses=documented(401, 403, 429))
async def list_scenarios(_by: OperatorDep) -> list[ScenarioOut]:
    """What `POST /api/simulate` can play."""
    return [
        ScenarioOut(name=name, title=one.title, expected=one.expected.value)
        for name, one in SCENARIOS.items()
    ]


@router.post(
    "/simulate",
    summary="Play a failure",
    responses=documented(400, 401, 403, 408, 413, 415, 422, 429, 503),
)
async def play_failure(
    body: SimulateIn, service: ServiceDep, by: OperatorDep, request: Request
) -> SimulateOut:
    """The real graph, policy and ledger on an in-memory Airflow: no Airflow, no store of yours is touched."""
    async with _lock(request):
        played = await simulate(body.failure, approve=body.approve, by=by.name, settings=service.settings)
    return SimulateOut(
        failure=body.failure,
        title=SCENARIOS[body.failure].title,
        incident=IncidentDetailOut.of_detail(played.detail),
        timeline=timeline_of(played.detail),
        writes=[Write(verb=verb, target=target) for verb, target in played.writes],
        seconds=played.seconds,
    )
