"""What the page shows at one look: each part of it as markup, rendered once for all who look at the same."""

from __future__ import annotations

import json
import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from gradio_ui.client import ConsoleClient, MovedOn, Refused
from gradio_ui.desk import Desk, Detail, Shown
from gradio_ui.figures_page import figures_page
from gradio_ui.incident_list import FILTERS, PAGE, incident_list
from gradio_ui.markup import Html, notice
from gradio_ui.status_page import mode_line, status_page
from gradio_ui.timeline import log_list
from graph.domain import RootCause, Severity

LINES = 100  # of the agent log
NUMBER = re.compile(r"#([0-9]{1,9})")

PageName = Literal["chat", "incidents", "status", "timeline", "log", "metrics"]


class Look(BaseModel):
    """What one page wants to see. Every field comes from the page's address and cannot be trusted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    page: PageName = "incidents"
    filter: str = Field("Open", max_length=20)
    q: str = Field("", max_length=200)
    severity: Severity | Literal[""] = ""
    cause: RootCause | Literal[""] = ""
    cursor: str = Field("", pattern=r"^([0-9]{1,18}(-[0-9]{1,18})?)?$")
    first: int = Field(1, ge=1, le=10**7)
    shown: str = Field("", max_length=500)
    words: str = Field("", max_length=200)
    level: Literal["", "info", "warning", "error"] = ""
    window: Literal["day", "week", "month"] = "day"

    def list_query(self) -> list[tuple[str, str | int]]:
        """For the list of incidents."""
        query: list[tuple[str, str | int]] = [("status", one.value) for one in FILTERS.get(self.filter, ())]
        named = (("q", self.q), ("severity", self.severity), ("cause", self.cause), ("cursor", self.cursor))
        query += [(name, str(value)) for name, value in named if value]
        return [*query, ("limit", PAGE), ("count", "true")]

    def log_query(self) -> list[tuple[str, str | int]]:
        """For the agent log; `#12` in the words means that incident."""
        numbers, rest = NUMBER.findall(self.words), NUMBER.sub(" ", self.words)
        query: list[tuple[str, str | int]] = [("order", "newest"), ("limit", LINES)]
        query += [("incident", int(numbers[0]))] if numbers and int(numbers[0]) else []
        words = " ".join(rest.split())
        return [*query, *((name, value) for name, value in (("text", words), ("level", self.level)) if value)]


class Views:
    """Draws looks. What two people with the same token look at is drawn once."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def _client(self) -> ConsoleClient:
        return self._desk.client

    async def draw(self, token: str, look: Look) -> bytes:
        """The answer to the page, as JSON. Raises `SignInNeeded` and `ServerSilent`."""

        async def render() -> bytes:
            return json.dumps(await self._drawn(token, look), ensure_ascii=False).encode()

        return await self._client.glances.at(("drawn", token, look), render)

    async def _drawn(self, token: str, look: Look) -> dict[str, Any]:
        me, status = await self._client.me(token), await self._client.status(token)
        parts: dict[str, str] = {"am-mode": mode_line(status, me)}
        more: dict[str, Any] = {}
        match look.page:
            case "status":
                parts["am-status"] = status_page(status, me)
            case "log":
                parts["am-log"] = await self._log(token, look)
            case "metrics":
                parts["am-figures"] = figures_page(await self._client.summary(token, look.window))
            case "incidents":
                parts["am-incidents"] = await self._list(token, look)
                detail, more = await self._detail(token, Shown.read(look.shown))
                parts |= detail
        return {"parts": parts, "role": me.role.value, "me": me.name, **more}

    async def _list(self, token: str, look: Look) -> Html:
        narrowed = bool(look.q or look.severity or look.cause)
        try:
            page = await self._client.incidents(token, look.list_query())
        except Refused as exc:
            return notice(str(exc), tone="warn", title="Not searched.")
        return incident_list(page, shown=look.filter, narrowed=narrowed, first=look.first)

    async def _detail(self, token: str, before: Shown) -> tuple[dict[str, str], dict[str, Any]]:
        try:
            found = await self._desk.detail(token, before)
        except (Refused, MovedOn) as exc:
            found = Detail(Shown(), head=notice(str(exc), tone="warn"))
        parts = {
            "am-head": found.head,
            "am-asked": found.asked,
            "am-form": found.form,
            "am-story": found.story,
            "am-feedback": found.feedback,
        }
        return {name: str(part) for name, part in parts.items()}, {
            "shown": found.shown.model_dump(),
            "asks": found.asks,
            "held": found.shown.held,
            "escalated": found.escalated,
        }

    async def _log(self, token: str, look: Look) -> Html:
        try:
            page = await self._client.log_page(token, look.log_query())
        except Refused as exc:
            return notice(str(exc), tone="warn", title="Not searched.")
        return log_list(page.items, searched=bool(look.words or look.level))


class Deed(BaseModel):
    """What a person does, as the page sends it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    what: Literal["approve", "edit", "reject", "respond", "close", "reopen", "feedback", "control", "log"]
    shown: Shown = Shown()
    message: str = Field("", max_length=4000)
    values: dict[str, JsonValue] = Field(default_factory=dict)


async def perform(desk: Desk, token: str, deed: Deed) -> dict[str, Any]:
    """Do it with the person's own rights; what became of it, for the page."""
    match deed.what:
        case "log":
            number = deed.shown.number
            return {"done": True, "html": "" if number is None else await desk.log(token, number)}
        case "edit":
            said = await desk.edit(token, deed.shown, deed.values, message=deed.message)
        case "close":
            said = await desk.close(token, deed.shown, deed.message)
        case "reopen":
            said = await desk.reopen(token, deed.shown, deed.message)
        case "feedback":
            said = await desk.feedback(token, {**deed.values, "incident": deed.shown.number})
        case "control":
            said = await desk.control(token, deed.values)
        case _:
            said = await desk.answer(token, deed.shown, deed.what, message=deed.message)
    return {"done": said.done, "html": said.words}
