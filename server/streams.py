"""Server-sent events: what happens, while it happens, for whoever listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Header
from fastapi.responses import StreamingResponse

from graph.errors import AirmedicError
from server.record import AgentEvent
from server.schemas import AgentEventOut

LOOK_AGAIN = 0.5  # seconds between two looks into the store
PING = 15.0  # seconds of silence after which a comment keeps the connection open
AT_ONCE = 200  # events read at one look
MEDIA_TYPE = "text/event-stream"

EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "id": {"type": "string", "description": "give the last one back as `Last-Event-ID`"},
        "event": {"type": "string", "description": "the line's name"},
        "data": {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"$ref": "#/components/schemas/AgentEventOut"},
        },
    },
}
CONTENT: dict[str, Any] = {MEDIA_TYPE: {"schema": EVENT}}  # of each event

LastEventId = Annotated[
    str | None,
    Header(pattern=r"^[0-9]{1,18}$", description="the last event seen; the stream goes on after it"),
]
Read = Callable[[int], Awaitable[Sequence[AgentEvent]]]


class EventStream(StreamingResponse):
    """An answer that does not end by itself; the browser comes back when it does."""

    media_type = MEDIA_TYPE


def encoded(*, event: str, data: str, number: int | None = None) -> bytes:
    """One server-sent event."""
    head = "" if number is None else f"id: {number}\n"
    lines = "".join(f"data: {line}\n" for line in data.split("\n"))
    return f"{head}event: {event}\n{lines}\n".encode()


async def followed(read: Read, *, after: int, lasting: timedelta) -> AsyncIterator[bytes]:
    """Events with an id above `after`, as they come, for so long. A store that is away ends the stream."""
    ends = time.monotonic() + lasting.total_seconds()
    spoke = time.monotonic()
    yield b"retry: 2000\n\n"
    while True:
        try:
            found = await read(after)
        except AirmedicError:
            return  # the answer has begun: all that can be said is that it is over
        for event in found:
            body = AgentEventOut.of(event).model_dump_json()
            yield encoded(event=event.name, data=body, number=event.id)
            after, spoke = event.id, time.monotonic()
        if time.monotonic() >= ends:
            return
        if time.monotonic() - spoke > PING:
            yield b": still here\n\n"
            spoke = time.monotonic()
        if len(found) < AT_ONCE:
            await asyncio.sleep(min(LOOK_AGAIN, max(0.0, ends - time.monotonic())))
