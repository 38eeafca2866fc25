"""The door for the listener plugin, failure callbacks and other tools."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import structlog
from fastapi import APIRouter, Request, Response
from starlette.types import Receive, Scope, Send

from graph.errors import AirmedicError, NotAuthentic
from server.access.entry import webhook_secrets
from server.access.limits import Bodies, Refusal, Senders, refuse
from server.events import TaskEvent, check_signature, parse_event
from server.problems import documented, of_error
from server.schemas import EventAccepted
from server.service import Service

log = structlog.get_logger("webhook")

PATH = "/webhook"
JSON = (b"content-type", b"application/json")

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


@router.post(
    PATH,
    status_code=202,
    summary="Take an event",
    responses=documented(400, 401, 403, 408, 413, 415, 421, 422, 429, 503),
    openapi_extra={"requestBody": BODY, "parameters": SIGNATURE},
)
async def receive_event(request: Request) -> Response:
    """Take an event. It is committed before the answer; a repeat is answered the same and stores nothing."""
    answer = await _take(request.scope, request.headers, await request.body())
    return Response(answer, status_code=202, media_type="application/json")


def is_plain_event(scope: Scope) -> bool:
    """Whether this is an event, and not from a page in somebody's browser."""
    return (
        scope["type"] == "http"
        and scope["path"] == PATH
        and scope["method"] == "POST"
        and all(name != b"origin" for name, _ in scope["headers"])
    )


class Lane:
    """Takes plain events. The same is asked of them as everywhere, by the same parts in the same order."""

    def __init__(self, *, senders: Senders, bodies: Bodies) -> None:
        self._senders = senders
        self._bodies = bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Reversed: of a header that is given twice the first one counts, as everywhere else.
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"][::-1]}
        try:
            await self._senders.check(headers, scope)
            body = await self._bodies.read(headers, receive)
            answer = await _take(scope, headers, body)
        except Refusal as refusal:
            await refuse(refusal, scope, receive, send)
        except AirmedicError as exc:
            await of_error(Request(scope), exc)(scope, receive, send)
        else:
            length = (b"content-length", str(len(answer)).encode())
            start = {"type": "http.response.start", "status": 202, "headers": [length, JSON]}
            await send(start)
            await send({"type": "http.response.body", "body": answer})


async def _take(scope: Scope, headers: Mapping[str, str], body: bytes) -> bytes:
    """Commit the event; what is answered."""
    service: Service = scope["app"].state.service  # no dependency: those are resolved anew for each event
    delivery = _authenticate(scope, headers, body, service)
    event = parse_event(body)
    accepted = await service.intake.deliver(event, door=event.door, delivery=delivery)
    return _answer(accepted, event.event)


@cache
def _answer(accepted: bool, event: str) -> bytes:
    """One of a handful: written out once."""
    return EventAccepted(accepted=accepted, event=event).model_dump_json().encode()


def _authenticate(scope: Scope, headers: Mapping[str, str], body: bytes, service: Service) -> str | None:
    """The delivery's id; None when it carries none, which only an unsigned one may."""
    secrets = webhook_secrets(service.settings)
    if not secrets:
        given = headers.get("webhook-id", "")
        return given if 0 < len(given) <= 200 and given.isprintable() else None
    try:
        return check_signature(headers, body, secrets=secrets, now=service.clock())
    except NotAuthentic as exc:
        client = scope.get("client")
        log.warning("delivery_refused", reason=str(exc), address=client[0] if client else None)
        raise
