"""A conversation with the model: streamed text, tool calls, caps for one message and for a day."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage

from graph.errors import ModelUnavailable
from tools.llm_endpoint import ModelDeclined, ModelSettings, model_errors, open_client
from tools.llm_prompt import estimate_tokens, text_of
from tools.llm_usage import DayCounter, Meter, ModelUse, Outcome

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

MESSAGE_TOKENS = 6  # what the chat format adds to each message

OnText = Callable[[str], None]


class ModelExhausted(ModelUnavailable):
    """A cap on calls, tokens, time or money was reached."""

    retryable = False


class Talk:
    """One model at one endpoint, for conversations. It talks to the configured address only."""

    def __init__(self, chat: ChatOpenAI, settings: ModelSettings, *, today: DayCounter | None = None) -> None:
        self._chat = chat
        self.settings = settings
        self.today = today or DayCounter()
        self._counted = True  # the endpoint takes the wish for a count of tokens

    def meter(self) -> Meter:
        """For one message of a person."""
        return Meter(self.settings.model, self.settings.prices.get(self.settings.model))

    async def check_day(self) -> None:
        """Raises `ModelExhausted` when today's limit is used up."""
        if exceeded := self.settings.daily.exceeded(await self.today.spent()):
            raise ModelExhausted(exceeded)

    def book(self, meter: Meter, outcome: Outcome, error: str = "") -> ModelUse:
        """Count what one message cost."""
        use = meter.use(outcome, error)
        self.today.add(use)
        return use

    async def say(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, object]],
        meter: Meter,
        on_text: OnText,
    ) -> AIMessage:
        """One reply, its text handed on as it comes. Raises `ModelUnavailable`."""
        cost = self.cost(messages, tools)
        if meter.calls >= self.settings.calls:
            raise ModelExhausted(f"{self.settings.calls} calls for one message are used up")
        if meter.input_tokens + cost > self.settings.input_tokens:
            raise ModelExhausted(f"{self.settings.input_tokens} input tokens for one message are used up")
        reply = await meter.metered(self._stream(messages, tools, on_text), cost)
        refusal = reply.additional_kwargs.get("refusal")
        if refusal or reply.response_metadata.get("finish_reason") == "content_filter":
            raise ModelDeclined("the model declined to answer")
        return reply

    async def _stream(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, object]], on_text: OnText
    ) -> AIMessage:
        import openai

        with model_errors():
            if self._counted:
                try:
                    return await self._once(messages, tools, on_text, stream_usage=True)
                except (openai.BadRequestError, openai.UnprocessableEntityError):
                    self._counted = False  # refused before the first word: older endpoints do not count
            return await self._once(messages, tools, on_text, stream_usage=False)

    async def _once(
        self,
        messages: Sequence[BaseMessage],
        tools: Sequence[dict[str, object]],
        on_text: OnText,
        *,
        stream_usage: bool,
    ) -> AIMessage:
        extra: dict[str, Any] = {"tools": list(tools)} if tools else {}
        whole: AIMessageChunk | None = None
        async for piece in self._chat.astream(list(messages), stream_usage=stream_usage, **extra):
            if not isinstance(piece, AIMessageChunk):
                raise TypeError(type(piece).__name__)
            whole = piece if whole is None else whole + piece
            if text := text_of(piece):
                on_text(text)
        if whole is None or not whole.response_metadata.get("finish_reason"):
            raise ValueError("the stream ended before the answer did")
        return AIMessage(
            whole.content,
            tool_calls=whole.tool_calls,
            invalid_tool_calls=whole.invalid_tool_calls,
            usage_metadata=whole.usage_metadata,
            response_metadata=whole.response_metadata,
            additional_kwargs={
                name: value for name, value in whole.additional_kwargs.items() if name == "refusal"
            },
        )

    def cost(self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, object]]) -> int:
        """Upper estimate of what sending these costs, in tokens."""
        texts = [text_of(one) + "".join(map(str, getattr(one, "tool_calls", ()))) for one in messages]
        total = sum(estimate_tokens(text) + MESSAGE_TOKENS for text in texts)
        return total + sum(estimate_tokens(str(tool)) for tool in tools)


@asynccontextmanager
async def open_talk(settings: ModelSettings, *, today: DayCounter | None = None) -> AsyncIterator[Talk]:
    """The model, for conversations."""
    async with open_client(settings) as chat:
        yield Talk(chat, settings, today=today)
