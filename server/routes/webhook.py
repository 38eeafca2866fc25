"""The door for the listener plugin, failure callbacks and other tools."""

from __future__ import annotations

from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, JsonValue

from graph.domain import Door
from graph.errors import EventInvalid, NotAuthentic
from server.access.entry import webhook_secrets
from server.events import TaskEvent, check_signature, parse_event
from server.problems import documented
from server.schemas import EventAccepted
from server.service import Service

log = structlog.get_logger("webhook")

router = APIRouter(tags=["webhook"])

BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": TaskEvent.model_json_schema(),
            "examples": {
                "failure": {
                    "summary": "a task instance failed",
                    "value": {
                        "event": "task_instance_failed",
                        "dag_id": "orders",
                        "run_id": "scheduled__2026-03-01T03:00:00+00:00",
                        "task_id": "load",
                        "try_number": 1,
                        "error": "ConnectionError: connection refused",
                    },
                }
            },
        }
    },
}
SIGNATURE: list[dict[str, Any]] = [
    {
        "name": name,
        "in": "header",
        "required": False,
        "schema": {"type": "string"},
        "description": "Standard Webhooks; required when the server has a secret",
    }
    for name in ("webhook-id", "webhook-timestamp", "webhook-signature")
]


class Stamp(BaseModel):
    """The plugin (and its callback) stamps what it sends; other tools need not."""

    sent_at: JsonValue = None


def _door(body: bytes) -> Door:
    return Door.LISTENER if Stamp.model_validate_json(body).sent_at is not None else Door.WEBHOOK


@router.post(
    "/webhook",
    status_code=202,
    summary="Take an event",
    responses=documented(400, 401, 403, 408, 413, 415, 421, 422, 429, 503),
    openapi_extra={"requestBody": BODY, "parameters": SIGNATURE},
)
async def receive_event(request: Request) -> Response:
    """Take an event. It is committed before the answer; a repeat is answered the same and stores nothing."""
    service: Service = request.app.state.service  # no dependency: those are resolved anew for each event
    body = await request.body()
    delivery = _authenticate(request, body, service)
    event = _without_nul(parse_event(body))
    accepted = await service.intake.deliver(event, door=_door(body), delivery=delivery)
    # Written out at once: FastAPI would look at every field of it again.
    answer = EventAccepted(accepted=accepted, event=event.event).model_dump_json()
    return Response(answer, status_code=202, media_type="application/json")


def _authenticate(request: Request, body: bytes, service: Service) -> str | None:
    """The delivery's id; None when it carries none, which only an unsigned one may."""
    secrets = webhook_secrets(service.settings)
    if not secrets:
        given = request.headers.get("webhook-id", "")
        return given if 0 < len(given) <= 200 and given.isprintable() else None
    try:
        return check_signature(request.headers, body, secrets=secrets, now=service.clock())
    except NotAuthentic as exc:
        log.warning("delivery_refused", reason=str(exc), address=request.client and request.client.host)
        raise


def _without_nul(event: TaskEvent) -> TaskEvent:
    for name in ("airflow", "dag_id", "run_id", "task_id", "filename"):
        if "\0" in getattr(event, name):
            raise EventInvalid(f"{name}: holds a NUL character")
    return event
