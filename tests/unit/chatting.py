"""Talking to the API's chat in tests."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from graph.domain import Status
from tests.unit.serving import Api

Events = list[tuple[str, dict[str, Any]]]


async def say(api: Api, message: str, *, thread: str = "t1", **headers: str) -> Events:
    """The events that answer one message."""
    body = {"thread": thread, "message": message}
    answer = await api.http.post("/api/chat", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    events: Events = []
    for block in answer.text.strip().split("\n\n"):
        lines = dict(one.split(": ", 1) for one in block.split("\n"))
        events.append((lines["event"], json.loads(lines["data"])))
    assert events[-1][0] == "done"
    return events


def text_of(events: Events) -> str:
    return "".join(data["text"] for name, data in events if name == "token")


def asked(events: Events) -> list[dict[str, Any]]:
    return [data for name, data in events if name == "ask"]


def clears(api: Api) -> int:
    return sum(one.verb == "clear" for one in api.airflow.writes)


async def fail(api: Api) -> int:
    """A task fails, and its incident asks."""
    number = await api.fail()
    await settled(api, number)
    return number


async def settled(api: Api, number: int) -> Status:
    for _ in range(200):
        record = await api.service.store.incident(number)
        if record.status not in (Status.OPEN, Status.WATCHING):
            return record.status
        await api.service.runner.drive_due()
        await pause()
    raise AssertionError(f"incident {number} is still {record.status}")


async def pause() -> None:
    """Let the background work."""
    await asyncio.sleep(0.02)
