"""Incidents: the list, everything about one, its log."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi.responses import PlainTextResponse

from graph.domain import Status
from server.access import ServiceDep
from server.problems import documented
from server.schemas import IncidentDetailOut, IncidentOut, IncidentPage

router = APIRouter(prefix="/incidents", tags=["incidents"])

LARGEST = 2**63 - 1
IncidentId = Annotated[int, Path(ge=1, le=LARGEST)]
Name = Annotated[str | None, Query(max_length=250, pattern=r"^[^\x00]+$")]
Cursor = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="`next` of the page before")]


def etag(version: int) -> str:
    """An incident's version as the header spells it; `If-Match` takes it back."""
    return f'"{version}"'


@router.get("", responses=documented(401, 422, 503))
async def list_incidents(
    service: ServiceDep,
    status: Annotated[list[Status], Query(max_length=10)] = [],  # noqa: B006  FastAPI copies it
    dag_id: Name = None,
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
) -> IncidentPage:
    """Incidents, newest first."""
    before = int(cursor) if cursor is not None else None
    found = await service.store.incidents(statuses=status, dag_id=dag_id, before=before, limit=limit + 1)
    page = found[:limit]
    more = str(page[-1].id) if len(found) > limit else None
    return IncidentPage(items=[IncidentOut.of(record) for record in page], next=more)


@router.get("/{incident_id}", responses=documented(401, 404, 422, 503))
async def read_incident(
    incident_id: IncidentId, service: ServiceDep, response: Response
) -> IncidentDetailOut:
    """Everything about one incident. The `ETag` is its version."""
    detail = await service.store.detail(incident_id)
    response.headers["etag"] = etag(detail.incident.version)
    return IncidentDetailOut.of_detail(detail)


@router.get("/{incident_id}/log", response_class=PlainTextResponse, responses=documented(401, 404, 422, 503))
async def read_log(incident_id: IncidentId, service: ServiceDep) -> PlainTextResponse:
    """The failed try's log as it was stored: redacted."""
    record = await service.store.incident(incident_id)
    text = await service.store.get_log(record.log) if record.log is not None else None
    if text is None:
        raise HTTPException(404, f"incident {incident_id} has no stored log")
    return PlainTextResponse(text)
