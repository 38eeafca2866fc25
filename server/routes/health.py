"""For load balancers and orchestrators: is the process alive, can it do its work."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from server.access.entry import PulseDep, ViewerDep
from server.observe.metrics import TEXT, Metrics
from server.problems import documented
from server.schemas import AliveOut, PartOut, ReadyOut

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> AliveOut:
    """The process answers."""
    return AliveOut()


@router.get("/readyz", responses={503: {"model": ReadyOut, "description": "What is wrong"}})
async def ready(pulse: PulseDep, response: Response) -> ReadyOut:
    """Database, Airflow, background jobs, disk and backlog are well; 503 with what is wrong if not.

    What is `degraded` works, and needs somebody to look.
    """
    parts = await pulse.parts()
    well = all(part.ok for part in parts)
    if not well:
        response.status_code = 503
        response.headers["retry-after"] = "5"
    return ReadyOut(ready=well, parts=[PartOut.model_validate(part) for part in parts])


@router.get(
    "/metrics",
    summary="Read metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"description": "Prometheus text", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **documented(401, 403, 421),
    },
)
async def read_metrics(request: Request, _by: ViewerDep) -> Response:
    """Counters of the whole installation, gauges of this process. For Prometheus with a viewer's token."""
    metrics: Metrics = request.app.state.metrics
    return Response(await metrics.render(), media_type=TEXT)
