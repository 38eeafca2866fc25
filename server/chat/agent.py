"""One message through the chat: a small graph of command mode, model and tools, on a person's own thread."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from graph.errors import AirmedicError, ModelUnavailable
from server.chat import commands, model_tools
from server.chat.desk import Desk
from server.chat.resolve import incident_in, numbered
from server.chat.say import Said, Unclear, clean, line
from server.chat.words import Verb, incident_number, read
from server.record import IncidentRecord
from server.schemas import plan_out
from tools.llm_endpoint import ModelDeclined
from tools.llm_prompt import inert, prompt_text, text_of
from tools.llm_talk import Talk
from tools.llm_usage import Meter, ModelUse, Outcome
from tools.redaction import redact

KEPT_TURNS = 60  # of one thread
TOLD_TURNS = 6  # of them the model reads
TOLD_LENGTH = 1200  # characters of one
TURN_LENGTH = 12_000  # characters of an answer
FOLDED = 3000  # characters of a tool's result that are shown and kept
MOST_SHOWN = 50  # questions a thread remembers to have shown
PIECE = 24  # characters that are held back, so that a secret is not torn in two


ABOUT_ONE = frozenset({Verb.SHOW, Verb.WHY, Verb.LOG, Verb.TIMELINE, Verb.PLAN})


class Thread(TypedDict, total=False):
    """What a thread keeps, and what one message needs on its way. Plain JSON, but for `messages`."""

    turns: list[dict[str, Any]]
    focus: int | None
    shown: dict[str, int]
    saved: int  #: messages since the thread's checkpoints were folded into one
    messages: list[BaseMessage]  #: empty between two messages of the person
    failed: str  #: why the model's part ended


@dataclass
class Conversation:
    """The world of one message; `said` and the rest grow while it is answered."""

    desk: Desk
    talk: Talk | None
    meter: Meter | None
    deadline: float
    mode: Literal["command", "model"] = "command"
    text: list[str] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)
    links: list[int] = field(default_factory=list)
    asks: list[dict[str, Any]] = field(default_factory=list)
    focus: int | None = None
    requested: bool = False
    failed: str = ""  #: why the model's part ended
    use: ModelUse | None = None

    def tell(self, text: str) -> None:
        """Hand text to the person."""
        self.text.append(text)
        self.desk.emit("token", {"text": text})

    async def deliver(self, said: Said) -> None:
        """Hand over what a reading found beside its text."""
        for number in said.links:
            if number not in self.links:
                self.links.append(number)
                record = await self.desk.service.store.incident(number)
                self.desk.emit("link", link_of(record))
        for number in said.asks:
            record = await self.desk.service.store.incident(number)
            if record.question is not None and record.plan is not None:
                told = ask_of(record, self.desk)
                self.asks = [*(one for one in self.asks if one["incident"] != number), told]
                self.desk.emit("ask", told)


def link_of(record: IncidentRecord) -> dict[str, Any]:
    """An incident as a link."""
    return {
        "incident": record.id,
        "task": clean(str(record.task)),
        "status": record.status.value,
        "outcome": record.outcome.value if record.outcome else None,
    }


def ask_of(record: IncidentRecord, desk: Desk) -> dict[str, Any]:
    """A question that the person may answer, bound to the version that is shown."""
    question = record.question if isinstance(record.question, dict) else {}
    needed = str(question.get("approvers", "operator"))
    return {
        "incident": record.id,
        "version": record.version,
        "task": clean(str(record.task)),
        "plan": plan_out(record.plan).model_dump(mode="json") if record.plan else None,
        "root_cause": record.root_cause.value if record.root_cause else None,
        "rule": question.get("rule"),
        "why": question.get("why", []),
        "approvers": needed,
        "may": desk.caller.role.value in _at_least(needed),
        "expires_at": record.expires_at.isoformat() if record.expires_at else None,
        "question": question,
    }


def _at_least(role: str) -> tuple[str, ...]:
    return {"operator": ("operator", "admin"), "admin": ("admin",)}.get(role, ("admin",))


# --- the graph --------------------------------------------------------------------------------------------


async def hear(state: Thread, runtime: Runtime[Conversation]) -> Thread:
    """The person's words, with as much of the thread as a model needs."""
    desk, talk = runtime.context.desk, runtime.context.talk
    if talk is None or desk.message.startswith("/"):
        return {"messages": [], "failed": ""}
    try:
        await talk.check_day()
    except ModelUnavailable as exc:
        return {"messages": [], "failed": str(exc)}
    runtime.context.mode = "model"
    return {"messages": opening(state, desk), "failed": ""}


def opening(state: Thread, desk: Desk) -> list[BaseMessage]:
    """What the model is told first."""
    focus = f" The thread is about incident #{desk.focus}." if desk.focus is not None else ""
    now = f"It is {desk.now.astimezone(desk.zone):%Y-%m-%d %H:%M} ({desk.zone.key}).{focus}"
    messages: list[BaseMessage] = [SystemMessage(f"{prompt_text('chat.txt')}\n{now}")]
    for turn in state.get("turns", [])[-2 * TOLD_TURNS :]:
        text = "\n".join(map(inert, str(turn.get("text", ""))[:TOLD_LENGTH].split("\n")))
        said = HumanMessage(text) if turn.get("role") == "person" else AIMessage(f"<<<\n{text}\n>>>")
        messages.append(said)
    return [*messages, HumanMessage("\n".join(map(inert, desk.message.split("\n"))))]


def after_hear(state: Thread) -> Literal["ask_model", "command"]:
    """The model answers plain words, when there is one that may be asked."""
    return "ask_model" if state.get("messages") else "command"


async def ask_model(state: Thread, runtime: Runtime[Conversation]) -> Thread:
    """One call. Whatever goes wrong sends the message to the command mode."""
    context = runtime.context
    talk, meter = context.talk, context.meter
    assert talk is not None
    assert meter is not None
    out = _Out(context)
    last = meter.calls >= talk.settings.calls - 1
    messages = state["messages"]
    try:
        async with asyncio.timeout_at(context.deadline):
            reply = await talk.say(messages, [] if last else model_tools.specs(), meter, out.add)
    except ModelDeclined as exc:
        out.flush()
        return {"messages": [], "failed": str(exc)}
    except ModelUnavailable as exc:
        out.flush()
        return {"messages": [], "failed": str(exc)}
    except TimeoutError:
        out.flush()
        return {"messages": [], "failed": f"no answer in {talk.settings.seconds:g} s"}
    out.flush()
    calls = [*reply.tool_calls, *_broken(reply)][: model_tools.MOST_CALLS]
    if not calls and not text_of(reply).strip():
        return {"messages": [], "failed": "its answer was empty"}
    if calls and last:
        return {"messages": [], "failed": "it asked for tools instead of answering"}
    echo = AIMessage(redact(text_of(reply))[:TOLD_LENGTH], tool_calls=calls)
    return {"messages": [*messages, echo]}


def _broken(reply: AIMessage) -> list[Any]:
    """Calls whose arguments are no JSON: they are answered like others, with what is wrong."""
    return [
        {
            "name": one["name"] or "?",
            "args": {"broken": True},
            "id": one["id"] or "broken",
            "type": "tool_call",
        }
        for one in reply.invalid_tool_calls
    ]


class _Out:
    """Streams the model's words, redacted, whole words at a time."""

    def __init__(self, context: Conversation) -> None:
        self._context = context
        self._held = ""

    def add(self, text: str) -> None:
        self._held += text
        cut = max(self._held.rfind(" "), self._held.rfind("\n"))
        if len(self._held) >= PIECE and cut > 0:
            self._context.tell(redact(clean(self._held[: cut + 1])))
            self._held = self._held[cut + 1 :]

    def flush(self) -> None:
        if self._held:
            self._context.tell(redact(clean(self._held)))
            self._held = ""


def after_model(state: Thread) -> Literal["use_tools", "command", "close"]:
    """On to the tools it asked for, to the end, or to the command mode."""
    messages = state.get("messages")
    if not messages:
        return "command"
    last = messages[-1]
    return "use_tools" if isinstance(last, AIMessage) and last.tool_calls else "close"


async def use_tools(state: Thread, runtime: Runtime[Conversation]) -> Thread:
    """What the tools say, to the model and, folded, to the person."""
    context = runtime.context
    messages = list(state["messages"])
    last = messages[-1]
    assert isinstance(last, AIMessage)
    for number, call in enumerate(last.tool_calls):
        name, place = str(call["name"])[:60], f"{len(context.tools) + 1}"
        told: dict[str, Any] = {"id": place, "name": line(name), "args": _shown_args(call["args"])}
        context.desk.emit("tool", {**told, "state": "running"})
        if name == model_tools.ASK_FOR and context.requested:
            said = Said("something was asked for already in this message; nothing more is")
        else:
            context.requested = context.requested or name == model_tools.ASK_FOR
            said = await model_tools.run(context.desk, name, call["args"])
        told["result"] = redact(clean(said.text))[:FOLDED]
        context.tools.append(told)
        context.desk.emit("tool", {**told, "state": "done"})
        await context.deliver(said)
        result = model_tools.fenced(said.text)
        messages.append(ToolMessage(result, tool_call_id=call["id"] or f"call_{number}"))
    return {"messages": messages}


def _shown_args(args: dict[str, Any]) -> dict[str, str]:
    return {line(str(name), longest=40): redact(line(str(value))) for name, value in list(args.items())[:8]}


async def command(state: Thread, runtime: Runtime[Conversation]) -> Thread:
    """Commands and the grammar, when no model takes part or its part has ended."""
    context = runtime.context
    if failed := state.get("failed"):
        context.failed = failed
        begun = "\n" if context.text else ""
        context.tell(
            f"{begun}The language model gave no answer ({line(failed)}); this is the command mode.\n"
        )
    context.mode = "command"
    said = await commands.answer(context.desk)
    context.focus = said.focus
    context.tell(redact(clean(said.text)))
    await context.deliver(said)
    return {}


async def close(state: Thread, runtime: Runtime[Conversation]) -> Thread:
    """Both turns go into the thread."""
    context, desk = runtime.context, runtime.context.desk
    at = desk.now.isoformat()
    answer = {
        "role": "airmedic",
        "at": at,
        "mode": context.mode,
        "text": redact("".join(context.text))[:TURN_LENGTH],
        "tools": context.tools,
        "links": context.links,
        "asks": context.asks,
    }
    turns = [*state.get("turns", []), {"role": "person", "at": at, "text": desk.message}, answer]
    shown = {**state.get("shown", {}), **{str(one["incident"]): one["version"] for one in context.asks}}
    # What a model looked at does not decide what "it" means; what the person's own words named does.
    named = context.focus if context.mode == "command" else await named_by(desk)
    focus = named if named is not None else state.get("focus")
    return {
        "turns": turns[-KEPT_TURNS:],
        "focus": focus,
        "shown": dict(list(shown.items())[-MOST_SHOWN:]),
        "saved": state.get("saved", 0) + 1,
        "messages": [],
        "failed": "",
    }


async def named_by(desk: Desk) -> int | None:
    """The incident that the person's own words name."""
    asked = read(desk.message)
    try:
        if asked is not None and asked.verb in ABOUT_ONE:
            return (await incident_in(desk, asked.rest)).id
        number = incident_number(desk.message)
        return None if number is None else (await numbered(desk, number)).id
    except (Unclear, AirmedicError):
        return None


def build_chat() -> StateGraph[Thread, Conversation, Thread, Thread]:
    """hear → (ask_model ⇄ use_tools) or command → close."""
    graph = StateGraph(Thread, context_schema=Conversation)
    for name, node in (
        ("hear", hear),
        ("ask_model", ask_model),
        ("use_tools", use_tools),
        ("command", command),
        ("close", close),
    ):
        graph.add_node(name, node)
    graph.add_edge(START, "hear")
    graph.add_conditional_edges("hear", after_hear)
    graph.add_conditional_edges("ask_model", after_model)
    graph.add_edge("use_tools", "ask_model")
    graph.add_edge("command", "close")
    graph.set_finish_point("close")
    return graph


def outcome_of(failed: str) -> Outcome:
    """How asking the model ended, for the books."""
    if not failed:
        return Outcome.ANSWERED
    return Outcome.REFUSED if "declined" in failed else Outcome.FAILED
