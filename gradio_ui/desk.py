"""What the console shows and does, without the widgets: each call is one look or one answer."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from gradio_ui.client import ConsoleClient, MovedOn, Refused
from gradio_ui.edit_form import ActionForm, NotJson, action_forms, edited_args
from gradio_ui.incident_detail import headline, question, stored_log, story
from gradio_ui.incident_list import FILTERS, incident_list
from gradio_ui.markup import Html, empty, notice
from gradio_ui.wording import standing
from graph.domain import Status
from server.schemas import IncidentDetailOut

NOTHING = Html("")
CHOOSE = empty("Choose an incident", "What failed, why, and what is asked of you shows up here.")


class Shown(BaseModel):
    """What the page shows; an answer counts only for it. The page itself keeps it and sends it back."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int | None = None
    version: int = 0
    plan_id: str = ""  #: of the question on the page; empty when no buttons are there
    held: bool = False  #: the question changed under the reader's eyes; they ask for the new one themselves

    @classmethod
    def read(cls, spelled: str) -> Shown:
        """As the page sent it back; nothing is shown when it is not ours."""
        try:
            return cls.model_validate_json(spelled or "{}")
        except ValidationError:
            return cls()


@dataclass(frozen=True)
class Detail:
    """One incident on the page."""

    shown: Shown
    head: Html = CHOOSE
    asked: Html = NOTHING
    story: Html = NOTHING
    can_close: bool = False

    @property
    def asks(self) -> bool:
        return self.shown.plan_id != ""


class Desk:
    """One person's desk, on the server's API."""

    def __init__(self, client: ConsoleClient) -> None:
        self.client = client

    async def incidents(self, token: str, *, chosen: str, selected: int | None, limit: int) -> Html:
        """The list, of one of the `FILTERS`."""
        page = await self.client.incidents(token, statuses=FILTERS.get(chosen, ()), limit=limit)
        return incident_list(page, selected=selected, shown=chosen)

    async def detail(self, token: str, before: Shown) -> Detail:
        """The incident as it is now. A question never replaces another one under the reader's finger."""
        if before.number is None:
            return Detail(Shown())
        found = await self.client.incident(token, before.number)
        plan_id = _plan_asked(found)
        moved = before.plan_id and (before.version, before.plan_id) != (found.version, plan_id)
        if moved or (before.held and plan_id):
            shown = Shown(number=found.id, version=found.version, held=bool(plan_id))
            asked = _moved(found, again=bool(plan_id))
        else:
            shown = Shown(number=found.id, version=found.version, plan_id=plan_id)
            asked = question(found)
        return Detail(shown, headline(found), asked, story(found), found.status is Status.ESCALATED)

    async def log(self, token: str, number: int) -> Html:
        """The failed try's log."""
        found = await self.client.incident(token, number)
        try:
            return stored_log(await self.client.stored_log(token, number), found.diagnosis)
        except Refused as exc:
            return notice(str(exc))

    async def forms(self, token: str, shown: Shown) -> list[ActionForm]:
        """The edit form of the question on the page. Raises `MovedOn` when it is another by now."""
        if shown.number is None:
            return []
        found = await self.client.incident(token, shown.number)
        if (found.version, _plan_asked(found)) != (shown.version, shown.plan_id):
            raise MovedOn(f"incident {found.id} asks something else by now")
        return action_forms(found)

    async def answer(self, token: str, shown: Shown, kind: str, *, message: str = "") -> Html:
        """Approve, reject or respond; what became of it, in words."""
        if kind == "respond" and not message.strip():
            return notice("Write what you know first: the next diagnosis reads it.", tone="warn")
        return await self._decide(token, shown, {"type": kind, "message": message})

    async def edit(self, token: str, shown: Shown, texts: list[str], *, message: str) -> Html:
        """Approve with other arguments."""
        try:
            args = edited_args(texts, len(await self.forms(token, shown)))
        except NotJson as exc:
            return notice(str(exc), tone="bad")
        except MovedOn as exc:
            return _conflict(exc)
        return await self._decide(token, shown, {"type": "edit", "message": message, "args": args})

    async def close(self, token: str, shown: Shown, reason: str) -> Html:
        """Close what was handed to people."""
        if shown.number is None:
            return Html("")
        try:
            await self.client.close(token, shown.number, reason)
        except MovedOn as exc:
            return _conflict(exc)
        except Refused as exc:
            return notice(str(exc), tone="bad")
        return notice(f"Incident {shown.number} is closed.", tone="good")

    async def _decide(self, token: str, shown: Shown, decision: dict[str, JsonValue]) -> Html:
        if shown.number is None or not shown.plan_id:
            return notice("There is no question on this page to answer.", tone="warn")
        bound = {**decision, "version": shown.version, "plan_id": shown.plan_id}
        try:
            await self.client.decide(token, shown.number, bound)
        except MovedOn as exc:
            return _conflict(exc)
        except Refused as exc:
            return notice(str(exc), tone="bad", title="Not accepted.")
        return notice(SAID[str(decision["type"])], tone="good", title=f"Incident {shown.number}.")


SAID = {
    "approve": "Approved; Airmedic carries the plan out now.",
    "edit": "Approved with your changes; Airmedic carries the plan out now.",
    "reject": "Rejected; nothing was touched.",
    "respond": "Thank you; the failure is diagnosed again with what you wrote.",
}


def _plan_asked(found: IncidentDetailOut) -> str:
    """The plan of the question that waits; empty when none does."""
    return str((found.question or {}).get("plan_id") or "") if found.asks else ""


def _moved(found: IncidentDetailOut, *, again: bool) -> Html:
    if again:
        return notice(
            "It asks something else than what you were reading. Nothing was decided.",
            tone="warn",
            title="The question changed.",
        )
    return notice(
        f"It asks nothing any more: {standing(found)[0].lower()}. Your answer was not needed.",
        title="This was answered or withdrawn.",
    )


def _conflict(error: MovedOn) -> Html:
    return notice(
        f"Your answer was not taken, because {error}. Somebody else was first, or the plan changed.",
        tone="warn",
        title="Too late.",
    )
