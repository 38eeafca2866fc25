"""The chat on the page: text stays text, steps are folded, questions have buttons bound to their version."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import JsonValue

from gradio_ui.markup import Html, badge, diff, el, empty, join, notice, section, text
from gradio_ui.timeline import incident_link
from gradio_ui.touched import touched
from gradio_ui.wording import OUTCOME, STATUS
from graph.domain import Action, BlastRadius, Outcome, Status

Body = dict[str, JsonValue]

MODES = {"command": "command mode", "model": "language model"}
COMMAND_MODE = "No language model answers here: this is the command mode. /help lists what it understands."
RESULT = 4000  # characters of a tool's result
BEGIN = (
    "what failed last night?",
    "what waits for me?",
    "what changed since yesterday?",
    "/status",
    "/help",
)


@dataclass
class Turn:
    """One answer, put together from its events."""

    words: str = ""
    tools: list[Body] = field(default_factory=list)
    links: list[Body] = field(default_factory=list)
    asks: list[Body] = field(default_factory=list)
    error: str = ""
    mode: str = ""
    ended: bool = False

    def take(self, name: str, data: Body) -> None:
        """One event of the stream."""
        match name:
            case "token":
                self.words += str(data.get("text") or "")
            case "tool":
                self.tools = [*(one for one in self.tools if one.get("id") != data.get("id")), data]
            case "link":
                self.links.append(data)
            case "ask":
                self.asks = [*(one for one in self.asks if one.get("incident") != data.get("incident")), data]
            case "error":
                self.error = str(data.get("message") or "this could not be answered")
            case "done":
                self.ended, self.mode = True, str(data.get("mode") or "")

    @classmethod
    def kept(cls, told: Body) -> Turn:
        """An answer as the thread keeps it."""
        turn = cls(words=str(told.get("text") or ""), mode=str(told.get("mode") or ""), ended=True)
        turn.tools, turn.asks = _rows(told.get("tools")), _rows(told.get("asks"))
        turn.links = [{"incident": one} for one in _list(told.get("links")) if isinstance(one, int)]
        turn.error = str(told.get("error") or "")
        return turn


def _rows(value: JsonValue) -> list[Body]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def answer(turn: Turn) -> Html:
    """One answer, as far as it has come."""
    going = None if turn.ended or turn.error else el("span", "…", cls="am-going", aria_label="answering")
    mode = el("small", MODES.get(turn.mode, turn.mode), cls="am-quiet") if turn.mode else None
    return join(
        [
            *map(_tool, turn.tools),
            el("div", turn.words, going, cls="am-words"),
            _links(turn),
            *map(ask, turn.asks),
            notice(turn.error, tone="bad", title="That did not work.") if turn.error else Html(""),
            mode or Html(""),
        ]
    )


def _tool(step: Body) -> Html:
    args = step.get("args")
    spelled = ", ".join(f"{k} = {v}" for k, v in args.items()) if isinstance(args, dict) else ""
    name = str(step.get("name") or "step").replace("_", " ")
    state = "" if step.get("result") is not None else " …"
    head = el("summary", el("strong", name), el("span", spelled, cls="am-quiet"), state)
    result = text(step.get("result") or "", limit=RESULT)
    return el("details", head, el("pre", result, tabindex=0), cls="am-tool")


def _links(turn: Turn) -> Html:
    asked = {one.get("incident") for one in turn.asks}
    rows = [_link(one) for one in turn.links if one.get("incident") not in asked]
    return el("ul", *rows, cls="am-chat-links") if rows else Html("")


def _link(one: Body) -> Html:
    number = one.get("incident")
    if not isinstance(number, int):
        return Html("")
    words, tone = _standing(one)
    standing = badge(words, tone) if words else None
    return el("li", incident_link(number), el("span", one.get("task") or ""), standing)


def _standing(one: Body) -> tuple[str, str]:
    outcome, status = one.get("outcome"), one.get("status")
    if outcome in set(Outcome):
        return OUTCOME[Outcome(str(outcome))]
    return STATUS[Status(str(status))] if status in set(Status) else ("", "calm")


def _radius(one: Body) -> BlastRadius | None:
    question = one.get("question")
    found = question.get("radius") if isinstance(question, dict) else None
    return BlastRadius.model_validate(found) if isinstance(found, dict) else None


def ask(one: Body) -> Html:
    """A question with its buttons; whoever may not decide is told who may."""
    number, version = one.get("incident"), one.get("version")
    plan = one.get("plan")
    if not isinstance(number, int) or not isinstance(version, int) or not isinstance(plan, dict):
        return Html("")
    shown = json.dumps({"number": number, "version": version, "plan_id": str(plan.get("id") or "")})
    may = one.get("may") is True
    why = "; ".join(str(reason) for reason in _list(one.get("why")))
    return section(
        f"Decide #{number}",
        el("p", plan.get("summary") or "", cls="am-ask"),
        touched([Action.model_validate(action) for action in _rows(plan.get("actions"))], _radius(one)),
        diff(str(plan.get("diff") or "")),
        el("p", f"Asked because {why}." if why else "", cls="am-quiet"),
        _buttons(number, shown) if may else notice(f"This needs {one.get('approvers')} or more."),
        cls="am-chat-ask",
        note=str(one.get("task") or ""),
    )


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []


def _buttons(number: int, shown: str) -> Html:
    return el(
        "div",
        el(
            "button",
            f"Approve #{number}",
            type="button",
            cls="am-button am-button-main",
            data_deed="approve",
            data_shown=shown,
        ),
        el("button", "Edit", type="button", cls="am-button", data_incident=number, data_edit=True),
        el("button", "Reject", type="button", cls="am-button", data_deed="reject", data_shown=shown),
        cls="am-switches",
    )


def history(turns: JsonValue, *, model: bool) -> Html:
    """A thread from its beginning; what to begin with when nothing was said yet."""
    told = _rows(turns)
    if not told:
        return _beginning(model=model)
    return join(
        [said(str(one.get("text") or "")) if one.get("role") == "person" else _kept(one) for one in told]
    )


def said(words: str) -> Html:
    """What the person said."""
    return el("div", words, cls="am-said-by-me")


def _kept(told: Body) -> Html:
    return el("div", answer(Turn.kept(told)), cls="am-answer")


def _beginning(*, model: bool) -> Html:
    words = "Ask in plain words, or with commands." if model else COMMAND_MODE
    tries = [el("button", one, type="button", cls="am-chip", data_say=one) for one in BEGIN]
    return join([empty("Ask Airmedic", words), el("div", *tries, cls="am-chips")])


def hint_list(found: JsonValue) -> Html:
    """How a message could go on."""
    items = _rows(found.get("items")) if isinstance(found, dict) else []
    rows = [_hint(str(one.get("text") or ""), str(one.get("detail") or "")) for one in items]
    return el("ul", *rows, cls="am-hints") if rows else Html("")


def _hint(words: str, told: str) -> Html:
    return el("li", el("button", el("code", words), el("span", told), type="button", data_hint=words))


def thread_list(found: JsonValue, chosen: str) -> Html:
    """The person's own threads, newest first."""
    items: Sequence[Body] = _rows(found.get("items")) if isinstance(found, dict) else []
    rows = [_thread(one, chosen) for one in items[:20]]
    new = el("button", "New conversation", type="button", cls="am-small", data_thread="")
    return join([new, el("ul", *rows, cls="am-threads") if rows else Html("")])


def _thread(one: Body, chosen: str) -> Html:
    name = str(one.get("thread") or "")
    current = "true" if name == chosen else None
    return el(
        "li", el("button", one.get("title") or "…", type="button", data_thread=name, aria_current=current)
    )
