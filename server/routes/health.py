"""For load balancers and orchestrators: is the process alive, can it do its work."""

from __future__ import annotations

from fastapi import APIRouter, Response

from server.access import PulseDep
from server.schemas import AliveOut, PartOut, ReadyOut

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def alive() -> AliveOut:
    """The process answers."""
    return AliveOut()


@router.get("/readyz", responses={503: {"model": ReadyOut, "description": "What is wrong"}})
async def ready(pulse: PulseDep, response: Response) -> ReadyOut:
    """Database, Airflow and driver are well; 503 with what is wrong when they are not."""
    parts = await pulse.parts()
    well = all(part.ok for part in parts)
    if not well:
        response.status_code = 503
        response.headers["retry-after"] = "5"
    return ReadyOut(ready=well, parts=[PartOut.model_validate(part) for part in parts])
