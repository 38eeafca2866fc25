"""Incidents: the list, everything about one, its timeline, its events as they come, its log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Path, Query, Response
from fastapi.responses import PlainTextResponse
from pydantic import AfterValidator, AwareDatetime

from graph.domain import Outcome, RootCause, Severity, Status
from server.access.entry import ServiceDep, ViewerDep
from server.listing import COUNTED, IncidentQuery
from server.problems import documented
from server.schemas import IncidentDetailOut, IncidentOut, IncidentPage
from server.streams import AT_ONCE, CONTENT, EventStream, LastEventId, followed
from server.timeline import TimelineOut, timeline_of

router = APIRouter(prefix="/incidents", tags=["incidents"])

LARGEST = 2**63 - 1
EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(9000, 1, 1, tzinfo=UTC)
LINES_HEADER = "x-log-lines"

PLAIN = r"^[^\x00]*$"
NoNul = Annotated[str, Query(min_length=1, max_length=1000, pattern=r"^[^\x00]+$")]
IncidentId = Annotated[int, Path(ge=1, le=LARGEST)]
Name = Annotated[list[NoNul], Query(max_length=20)]
Words = Annotated[
    str,
    Query(
        max_length=200,
        pattern=PLAIN,
        description="words of names, cause, reason and summary; the last may be the beginning of one",
        examples=["orders connection ref"],
    ),
]
Sort = Annotated[
    Literal["newest", "oldest", "updated"], Query(description="a search (`q`) is not sorted by update")
]
Cursor = Annotated[
    str | None, Query(pattern=r"^[0-9]{1,18}(-[0-9]{1,18})?$", description="`next` of the page before")
]


def in_our_time(value: datetime) -> datetime:
    """Only moments that every database can hold and a few hours can be taken from."""
    if not EARLIEST <= value <= LATEST:
        raise ValueError("must be between the years 1971 and 9000")
    return value


Moment = Annotated[AwareDatetime, AfterValidator(in_our_time)]


def etag(version: int) -> str:
    """An incident's version as the header spells it; `If-Match` takes it back."""
    return f'"{version}"'


@router.get("", summary="List and search incidents", responses=documented(401, 403, 422, 429, 503))
async def list_incidents(
    service: ServiceDep,
    _by: ViewerDep,
    q: Words = "",
    status: Annotated[list[Status], Query(max_length=10)] = [],  # noqa: B006  FastAPI copies it
    outcome: Annotated[list[Outcome], Query(max_length=10)] = [],  # noqa: B006
    severity: Annotated[list[Severity], Query(max_length=10)] = [],  # noqa: B006
    cause: Annotated[list[RootCause], Query(max_length=30)] = [],  # noqa: B006
    dag_id: Name = [],  # noqa: B006
    task_id: Name = [],  # noqa: B006
    operator: Name = [],  # noqa: B006
    since: Annotated[Moment | None, Query(description="opened at or after")] = None,
    until: Annotated[Moment | None, Query(description="opened before")] = None,
    sort: Sort = "newest",
    cursor: Cursor = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    count: Annotated[bool, Query(description="say how many match, up to 1000")] = False,
) -> IncidentPage:
    """Every filter that is given must hold; a filter given several times holds when one value does."""
    query = IncidentQuery(
        text=q,
        statuses=tuple(status),
        outcomes=tuple(outcome),
        severities=tuple(severity),
        causes=tuple(cause),
        dags=tuple(dag_id),
        tasks=tuple(task_id),
        operators=tuple(operator),
        since=since,
        until=until,
        sort=sort,
    )
    found = await service.store.listing.page(query, cursor=cursor, limit=limit)
    number = await service.store.listing.count(query) if count else None
    return IncidentPage(
        items=[IncidentOut.of(line) for line in found.items],
        next=found.next,
        count=None if number is None else min(number, COUNTED),
        more=number is not None and number > COUNTED,
    )


@router.get("/{incident_id}", summary="Read one incident", responses=documented(401, 403, 404, 422, 429, 503))
async def read_incident(
    incident_id: IncidentId, service: ServiceDep, _by: ViewerDep, response: Response
) -> IncidentDetailOut:
    """Everything about one incident. The `ETag` is its version."""
    detail = await service.store.detail(incident_id)
    response.headers["etag"] = etag(detail.incident.version)
    return IncidentDetailOut.of_detail(detail)


@router.get(
    "/{incident_id}/timeline",
    summary="Read what happened, in order",
    responses=documented(401, 403, 404, 422, 429, 503),
)
async def read_timeline(
    incident_id: IncidentId,
    service: ServiceDep,
    _by: ViewerDep,
    cursor: Annotated[int, Query(ge=0, le=1_000_000, description="`next` of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> TimelineOut:
    """Occurrences, the agent's steps, writes to Airflow, people's answers and feedback, oldest first."""
    moments = timeline_of(await service.store.detail(incident_id))
    page = moments[cursor : cursor + limit]
    end = cursor + len(page)
    return TimelineOut(items=page, next=end if end < len(moments) else None)


@router.get(
    "/{incident_id}/events",
    summary="Follow an incident",
    response_class=EventStream,
    responses={
        200: {"content": CONTENT, "description": "Server-sent events"},
        **documented(401, 403, 404, 422, 429, 503),
    },
)
async def follow_incident(
    incident_id: IncidentId,
    service: ServiceDep,
    _by: ViewerDep,
    last_event_id: LastEventId = None,
) -> EventStream:
    """Its agent log from the beginning, or after `Last-Event-ID`, and each new line as it comes.

    The name of an event is that of the line, its data is the line as `GET /api/logs` gives it.
    """
    await service.store.incident(incident_id)
    store = service.store
    stream = followed(
        lambda after: store.events(incident_id=incident_id, after=after, limit=AT_ONCE),
        after=int(last_event_id or 0),
        lasting=service.settings.stream_limit,
    )
    return EventStream(stream)


@router.get(
    "/{incident_id}/log",
    summary="Read the failed try's log",
    response_class=PlainTextResponse,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "description": "The redacted log",
            "headers": {LINES_HEADER: {"schema": {"type": "integer"}, "description": "lines of the whole"}},
        },
        **documented(401, 403, 404, 422, 429, 503),
    },
)
async def read_log(
    incident_id: IncidentId,
    service: ServiceDep,
    _by: ViewerDep,
    first: Annotated[int, Query(ge=1, le=10**9, description="number of the first line")] = 1,
    lines: Annotated[int | None, Query(ge=1, le=10**6, description="how many; all without it")] = None,
) -> PlainTextResponse:
    """As it was stored: redacted. `first` and `lines` choose a range."""
    record = await service.store.incident(incident_id)
    text = await service.store.get_log(record.log) if record.log is not None else None
    if text is None:
        raise HTTPException(404, f"incident {incident_id} has no stored log")
    cut = text.splitlines(keepends=True)
    chosen = cut[first - 1 :] if lines is None else cut[first - 1 : first - 1 + lines]
    return PlainTextResponse("".join(chosen), headers={LINES_HEADER: str(len(cut))})
