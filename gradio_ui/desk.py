"""What a person decides at the console: bound to what the page showed; what became of it, in words."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from gradio_ui.client import ConsoleClient, MovedOn, Refused
from gradio_ui.edit_form import NotAValue, edit_form, edited_args, fields_of
from gradio_ui.feedback_form import feedback_form
from gradio_ui.incident_detail import headline, question, stored_log, story
from gradio_ui.markup import Html, empty, notice
from gradio_ui.wording import standing
from graph.domain import Status
from server.schemas import FeedbackIn, IncidentDetailOut

NOTHING = Html("")
CHOOSE = empty("Choose an incident", "What failed, why, and what is asked of you shows up here.")
LOGS_KEPT = 64  # stored logs; they never change


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
    form: Html = NOTHING
    story: Html = NOTHING
    feedback: Html = NOTHING
    escalated: bool = False

    @property
    def asks(self) -> bool:
        """Whether there is a question with buttons."""
        return self.shown.plan_id != ""


@dataclass(frozen=True)
class Said:
    """What became of a deed."""

    words: Html
    done: bool = False


class Desk:
    """One person's desk, on the server's API."""

    def __init__(self, client: ConsoleClient) -> None:
        self.client = client
        self._logs: OrderedDict[tuple[str, str], list[str]] = OrderedDict()

    async def detail(self, token: str, before: Shown) -> Detail:
        """The incident as it is now. A question never replaces another one under the reader's finger."""
        if before.number is None:
            return Detail(Shown())
        found = await self.client.incident(token, before.number)
        plan_id = _plan_asked(found)
        moved = before.plan_id and (before.version, before.plan_id) != (found.version, plan_id)
        if moved or (before.held and plan_id):
            shown = Shown(number=found.id, version=found.version, held=bool(plan_id))
            asked, form = _moved(found, again=bool(plan_id)), NOTHING
        else:
            shown = Shown(number=found.id, version=found.version, plan_id=plan_id)
            asked, form = question(found), edit_form(found) if plan_id else NOTHING
        told = story(found, await self._log_lines(token, found))
        escalated = found.status is Status.ESCALATED
        return Detail(shown, headline(found), asked, form, told, feedback_form(found), escalated)

    async def _log_lines(self, token: str, found: IncidentDetailOut) -> list[str]:
        if found.log is None or found.diagnosis is None or not found.diagnosis.evidence:
            return []
        key = (token, found.log)
        if (known := self._logs.get(key)) is not None:
            return known
        try:
            lines = (await self.client.stored_log(token, found.id)).splitlines()
        except Refused:
            return []  # it is no longer kept: the evidence itself is
        self._logs[key] = lines
        if len(self._logs) > LOGS_KEPT:
            self._logs.popitem(last=False)
        return lines

    async def log(self, token: str, number: int) -> Html:
        """The failed try's log."""
        found = await self.client.incident(token, number)
        try:
            return stored_log(await self.client.stored_log(token, number), found.diagnosis)
        except Refused as exc:
            return notice(str(exc))

    # --- deeds ------------------------------------------------------------------------------------------

    async def answer(self, token: str, shown: Shown, kind: str, *, message: str = "") -> Said:
        """Approve, reject or respond; what became of it, in words."""
        if kind == "respond" and not message.strip():
            return Said(notice("Write what you know first: the next diagnosis reads it.", tone="warn"))
        return await self._decide(token, shown, {"type": kind, "message": message})

    async def edit(self, token: str, shown: Shown, typed: Mapping[str, JsonValue], *, message: str) -> Said:
        """Approve with other arguments, as the form sent them."""
        if shown.number is None:
            return NO_QUESTION
        found = await self.client.incident(token, shown.number)
        if (found.version, _plan_asked(found)) != (shown.version, shown.plan_id):
            return _conflict(MovedOn(f"incident {found.id} asks something else by now"))
        try:
            args = edited_args(typed, fields_of(found))
        except NotAValue as exc:
            return Said(notice(str(exc), tone="bad", title="Not sent."))
        return await self._decide(token, shown, {"type": "edit", "message": message, "args": args})

    async def close(self, token: str, shown: Shown, reason: str) -> Said:
        """Close what was handed to people."""
        if shown.number is None:
            return NO_QUESTION
        doing = self.client.close(token, shown.number, reason)
        return await _told(doing, f"Incident {shown.number} is closed.")

    async def reopen(self, token: str, shown: Shown, reason: str) -> Said:
        """Give back what was handed to people."""
        if shown.number is None:
            return NO_QUESTION
        doing = self.client.reopen(token, shown.number, reason)
        return await _told(doing, f"Airmedic looks at incident {shown.number} afresh.")

    async def feedback(self, token: str, given: Mapping[str, JsonValue]) -> Said:
        """Rate an incident, and say whether its cause was right."""
        kept = {name: value for name, value in given.items() if value not in (None, "")}
        try:
            body = FeedbackIn.model_validate(kept)
        except ValidationError as exc:
            return Said(notice(_complaint(exc), tone="bad", title="Not sent."))
        doing = self.client.feedback(token, body.model_dump(mode="json", exclude_none=True))
        return await _told(doing, "Thank you; memory hears it, and it stands on the incident.")

    async def control(self, token: str, switches: Mapping[str, JsonValue]) -> Said:
        """Set the kill switch or shadow mode."""
        chosen = {
            name: switches[name] for name in ("paused", "shadow") if isinstance(switches.get(name), bool)
        }
        if not chosen:
            return Said(notice("No switch was named.", tone="warn"))
        return await _told(
            self.client.control(token, chosen), "The switch is set; it holds from the next write on."
        )

    async def _decide(self, token: str, shown: Shown, decision: dict[str, JsonValue]) -> Said:
        if shown.number is None or not shown.plan_id:
            return NO_QUESTION
        bound = {**decision, "version": shown.version, "plan_id": shown.plan_id}
        doing = self.client.decide(token, shown.number, bound)
        return await _told(doing, SAID[str(decision["type"])], title=f"Incident {shown.number}.")


SAID = {
    "approve": "Approved; Airmedic carries the plan out now.",
    "edit": "Approved with your changes; Airmedic carries the plan out now.",
    "reject": "Rejected; nothing was touched.",
    "respond": "Thank you; the failure is diagnosed again with what you wrote.",
}
NO_QUESTION = Said(notice("There is no question on this page to answer.", tone="warn"))


async def _told(doing: Awaitable[Any], words: str, *, title: str = "") -> Said:
    try:
        await doing
    except MovedOn as exc:
        return _conflict(exc)
    except Refused as exc:
        return Said(notice(str(exc), tone="bad", title="Not accepted."))
    return Said(notice(words, tone="good", title=title), done=True)


def _complaint(error: ValidationError) -> str:
    first = error.errors()[0]
    place = str(first["loc"][0]) if first["loc"] else "feedback"
    return f"{place.replace('_', ' ')}: {first['msg']}"


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
        title="This was answered, withdrawn or ran out.",
    )


def _conflict(error: MovedOn) -> Said:
    return Said(
        notice(
            f"Your answer was not taken, because {error}. Somebody else was first, or the plan changed.",
            tone="warn",
            title="Too late.",
        )
    )
