"""The chat: answers messages on a person's own threads, which live in the checkpointer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from zoneinfo import ZoneInfo

import structlog
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver

from graph.checkpoint import open_saver
from graph.domain import digest
from graph.errors import AirmedicError, DecisionConflict
from server.access.callers import Caller
from server.chat.agent import Conversation, Thread, build_chat, outcome_of
from server.chat.desk import Desk
from server.chat.threads import ThreadLine, Threads
from server.diagnosing import model_settings
from server.observe.pulse import Pulse
from server.overview import Overview
from server.service import Service
from server.settings import Settings
from tools.llm_endpoint import ModelSettings
from tools.llm_talk import Talk, open_talk
from tools.redaction import redact

log = structlog.get_logger("chat")

AT_ONCE = 8  # messages answered at the same time
FOLD_EVERY = 20  # messages after which a thread's checkpoints become one
TITLE = 80  # characters
# Of one message.
CALLS, INPUT_TOKENS, OUTPUT_TOKENS, SECONDS = 6, 40_000, 900, 60.0

Event = tuple[str, dict[str, Any]]


class TooBusy(AirmedicError):
    """So many messages are being answered that no further one is taken."""

    retryable = True


class Chat:
    """Threads, and what is said in them."""

    def __init__(
        self,
        service: Service,
        *,
        saver: BaseCheckpointSaver[str],
        threads: Threads,
        talk: Talk | None,
        pulse: Pulse,
    ) -> None:
        self._service = service
        self._saver = saver
        self._graph = build_chat().compile(checkpointer=saver, name="chat")
        self._threads = threads
        self._talk = talk
        self._pulse = pulse
        self._overview = Overview(service)
        self._busy: set[str] = set()
        self._going: set[asyncio.Task[None]] = set()
        self.patience = 8.0  #: seconds to wait for an incident's plan

    @property
    def has_model(self) -> bool:
        """Whether a language model takes part."""
        return self._talk is not None

    async def answer(
        self, caller: Caller, *, thread: str, message: str, zone: ZoneInfo
    ) -> AsyncIterator[Event]:
        """Begin to answer; the events come as they happen. Whoever stops listening does not stop the answer.

        Raises `DecisionConflict` while the thread is being answered, `TooBusy` when too many are.
        """
        place = _place(caller, thread)
        if place in self._busy:
            raise DecisionConflict("a message of this thread is being answered; wait for it")
        if len(self._busy) >= AT_ONCE:
            raise TooBusy("too many messages are being answered at once")
        self._busy.add(place)
        queue: asyncio.Queue[Event | None] = asyncio.Queue()
        work = self._work(caller, thread, redact(message), zone, queue)
        task = asyncio.create_task(work, name=f"chat-{thread}")
        self._going.add(task)

        def ended(done: asyncio.Task[None]) -> None:
            self._going.discard(done)
            self._busy.discard(place)
            queue.put_nowait(None)

        task.add_done_callback(ended)
        return _from(queue)

    async def _work(
        self, caller: Caller, thread: str, message: str, zone: ZoneInfo, queue: asyncio.Queue[Event | None]
    ) -> None:
        """The outermost loop of one message: it tells the person of any failure."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        done: dict[str, Any] = {"thread": thread}
        try:
            config = self._config(caller, thread)
            known: Thread = (await self._graph.aget_state(config)).values  # type: ignore[assignment]
            conversation = self._conversation(caller, message, zone, known, queue)
            found: Thread = await self._graph.ainvoke(  # type: ignore[assignment]
                {"messages": [], "failed": ""}, config, context=conversation, durability="exit"
            )
            await self._keep(caller, thread, message, found, conversation)
            done |= {"mode": conversation.mode, "focus": found.get("focus")}
            if conversation.use is not None:
                done["use"] = conversation.use.model_dump(mode="json")
        except AirmedicError as exc:
            log.warning("chat_failed", error=str(exc))
            queue.put_nowait(("error", {"message": redact(str(exc)) or type(exc).__name__}))
        except Exception as exc:  # the outermost loop: a defect must not leave the person without a word
            log.error("chat_defect", kind=type(exc).__name__, exc_info=True)
            queue.put_nowait(("error", {"message": "this could not be answered; the server's log says why"}))
        queue.put_nowait(("done", {**done, "seconds": round(loop.time() - began, 3)}))

    def _conversation(
        self,
        caller: Caller,
        message: str,
        zone: ZoneInfo,
        known: Thread,
        queue: asyncio.Queue[Event | None],
    ) -> Conversation:
        desk = Desk(
            service=self._service,
            pulse=self._pulse,
            overview=self._overview,
            caller=caller,
            zone=zone,
            message=message,
            focus=known.get("focus"),
            shown={int(number): version for number, version in known.get("shown", {}).items()},
            emit=lambda name, data: queue.put_nowait((name, data)),
            patience=self.patience,
        )
        seconds = self._talk.settings.seconds if self._talk is not None else SECONDS
        meter = self._talk.meter() if self._talk is not None else None
        deadline = asyncio.get_running_loop().time() + seconds
        return Conversation(desk=desk, talk=self._talk, meter=meter, deadline=deadline)

    async def _keep(
        self, caller: Caller, thread: str, message: str, found: Thread, conversation: Conversation
    ) -> None:
        """The list of threads, the books, and now and then one checkpoint out of many."""
        meter = conversation.meter
        if self._talk is not None and meter is not None and meter.calls:
            failed = conversation.failed
            conversation.use = self._talk.book(meter, outcome_of(failed), failed)
            data = {"by": caller.name, **conversation.use.model_dump(mode="json")}
            await self._service.store.add_event("chat", node="chat", data=data)
        for old in await self._threads.touch(_owner(caller), thread, title=" ".join(message.split())[:TITLE]):
            await self.forget(caller, old)
        if found.get("saved", 0) >= FOLD_EVERY:
            config = self._config(caller, thread)
            await self._saver.adelete_thread(_place(caller, thread))
            await self._graph.aupdate_state(config, {**found, "saved": 0}, as_node="close")

    def _config(self, caller: Caller, thread: str) -> RunnableConfig:
        return {"configurable": {"thread_id": _place(caller, thread)}, "recursion_limit": 40}

    async def history(self, caller: Caller, thread: str) -> list[dict[str, Any]]:
        """What was said in one of the caller's own threads, oldest first."""
        values = (await self._graph.aget_state(self._config(caller, thread))).values
        turns: list[dict[str, Any]] = values.get("turns", []) if isinstance(values, dict) else []
        return turns

    async def threads(self, caller: Caller) -> list[ThreadLine]:
        """The caller's own threads, newest first."""
        return await self._threads.listed(_owner(caller))

    async def forget(self, caller: Caller, thread: str) -> bool:
        """Drop a thread and what was said in it; whether it was there."""
        place = _place(caller, thread)
        if place in self._busy:
            raise DecisionConflict("a message of this thread is being answered; wait for it")
        await self._saver.adelete_thread(place)
        return await self._threads.forget(_owner(caller), thread)

    async def aclose(self) -> None:
        """Stop what is being answered."""
        for task in list(self._going):
            task.cancel()
        await asyncio.gather(*self._going, return_exceptions=True)


async def _from(queue: asyncio.Queue[Event | None]) -> AsyncIterator[Event]:
    while (event := await queue.get()) is not None:
        yield event


def _owner(caller: Caller) -> str:
    return digest(["chat", caller.key])


def _place(caller: Caller, thread: str) -> str:
    """The checkpointer's name for it: no other caller's words lead there."""
    return f"chat:{_owner(caller)}:{thread}"


def talk_settings(settings: Settings) -> ModelSettings | None:
    """The configured model with the caps of a conversation."""
    chosen = model_settings(settings)
    if chosen is None:
        return None
    caps = {"calls": CALLS, "input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS, "seconds": SECONDS}
    return chosen.model_copy(update=caps)


@asynccontextmanager
async def open_chat(
    service: Service, pulse: Pulse, *, model: ModelSettings | None = None
) -> AsyncIterator[Chat]:
    """The chat on the service's database; `model` in place of the configured one."""
    chosen = model or talk_settings(service.settings)
    url = service.settings.database_url
    async with AsyncExitStack() as stack:
        saver = await stack.enter_async_context(open_saver(url))
        talk = await stack.enter_async_context(open_talk(chosen)) if chosen is not None else None
        threads = Threads(service.requests.engine, clock=service.clock)
        chat = Chat(service, saver=saver, threads=threads, talk=talk, pulse=pulse)
        try:
            yield chat
        finally:
            await chat.aclose()
