"""The chat: a message is answered by a stream of events; threads are each caller's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import AfterValidator, ConfigDict, Field, JsonValue

from server.access.entry import ServiceDep, ViewerDep
from server.answers import BodyType, plain
from server.chat.chat import Chat, Event, TooBusy
from server.chat.hints import hints
from server.problems import documented
from server.routes.incidents import PLAIN
from server.schemas import AnswerBody
from server.streams import MEDIA_TYPE, EventStream, encoded

router = APIRouter(prefix="/chat", tags=["chat"])

LONGEST = 4000  # characters of a message
NAME = r"^[A-Za-z0-9_-]{1,64}$"
ThreadName = Annotated[str, Path(pattern=NAME, description="a name that the client chose")]


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise ValueError("is no IANA time zone, like Europe/Berlin") from exc
    return name


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("says nothing")
    return plain(text)


def _not_taken(name: str) -> str:
    if name == "hints":
        raise ValueError("is the name of another resource")
    return name


class ChatIn(BodyType):
    """One message of a person."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"thread": "t1", "message": "what failed last night?", "timezone": "Europe/Berlin"},
                {"thread": "t1", "message": "/approve 12"},
            ]
        }
    )

    thread: Annotated[str, Field(pattern=NAME), AfterValidator(_not_taken)]
    message: Annotated[str, Field(min_length=1, max_length=LONGEST), AfterValidator(_said)]
    timezone: Annotated[
        str, Field(max_length=64, description="in which times are read and told"), AfterValidator(_zone)
    ] = "UTC"


class ThreadOut(AnswerBody):
    """One of the caller's threads."""

    thread: str
    title: str
    updated_at: datetime


class ThreadsOut(AnswerBody):
    """The caller's threads, newest first."""

    items: list[ThreadOut]
    model: bool = Field(description="whether a language model answers; commands are understood anyway")


class HistoryOut(AnswerBody):
    """What was said in a thread, oldest first."""

    thread: str
    turns: list[dict[str, JsonValue]]


class HintOut(AnswerBody):
    """One way to go on; `text` replaces what was typed."""

    text: str
    detail: str


class HintsOut(AnswerBody):
    """How a message that has begun could go on."""

    items: list[HintOut]


def chat_of(request: Request) -> Chat:
    """The chat that the application opened."""
    chat: Chat = request.app.state.chat
    return chat


ChatDep = Annotated[Chat, Depends(chat_of)]

EVENT: dict[str, Any] = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {"type": "string", "enum": ["token", "tool", "link", "ask", "error", "done"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
}


@router.post(
    "",
    summary="Say something",
    response_class=EventStream,
    responses={
        200: {"content": {MEDIA_TYPE: {"schema": EVENT}}, "description": "Server-sent events"},
        **documented(400, 401, 403, 408, 409, 413, 415, 422, 429, 503),
    },
)
async def say(body: ChatIn, chat: ChatDep, by: ViewerDep) -> EventStream:
    """Events: `token` (text), `tool` (a step), `link` (an incident), `ask` (a question to decide), `error`,
    and `done` at the end. Reading is for viewers; what decides or asks for a change needs an operator."""
    try:
        events = await chat.answer(by, thread=body.thread, message=body.message, zone=ZoneInfo(body.timezone))
    except TooBusy as exc:
        raise HTTPException(429, str(exc), headers={"retry-after": "5"}) from exc
    return EventStream(_encoded(events))


async def _encoded(events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    async for name, data in events:
        yield encoded(event=name, data=json.dumps(data))


@router.get("", summary="List one's threads", responses=documented(401, 403, 429, 503))
async def list_threads(chat: ChatDep, by: ViewerDep) -> ThreadsOut:
    """The caller's own, newest first."""
    found = await chat.threads(by)
    return ThreadsOut(items=[ThreadOut.model_validate(one) for one in found], model=chat.has_model)


@router.get("/hints", summary="Complete a message", responses=documented(401, 403, 422, 429, 503))
async def read_hints(
    service: ServiceDep,
    _by: ViewerDep,
    q: Annotated[str, Query(max_length=200, pattern=PLAIN, description="what was typed so far")] = "",
) -> HintsOut:
    """Commands, incidents and DAGs that fit what was typed."""
    return HintsOut(items=[HintOut.model_validate(one) for one in await hints(service, q)])


@router.get("/{thread}", summary="Read a thread", responses=documented(401, 403, 404, 422, 429, 503))
async def read_thread(thread: ThreadName, chat: ChatDep, by: ViewerDep) -> HistoryOut:
    """What was said in one of the caller's own threads; nothing, when it is not theirs or not there."""
    turns: list[dict[str, Any]] = await chat.history(by, thread)
    return HistoryOut(thread=thread, turns=turns)


@router.delete(
    "/{thread}",
    status_code=204,
    summary="Forget a thread",
    responses=documented(400, 401, 403, 404, 408, 409, 413, 415, 422, 429, 503),
)
async def forget_thread(thread: ThreadName, chat: ChatDep, by: ViewerDep) -> Response:
    """One of the caller's own; forgetting what is not there changes nothing."""
    await chat.forget(by, thread)
    return Response(status_code=204)
