"""A language model as a witness: asked when knowledge is not sure, believed as far as it can prove."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from graph.domain import Diagnosis, DomainType, RootCause
from graph.errors import ModelUnavailable
from tools.diagnosis import Case, Diagnostician
from tools.llm_answer import AnswerRefused, Reading, judge, parse_answer
from tools.llm_endpoint import Endpoint, ModelDeclined, ModelSettings, open_model
from tools.llm_prompt import describe, estimate_tokens, fenced, prompt_text, shown_lines, text_of
from tools.llm_tools import ReadOnlyTool, Toolbox
from tools.llm_usage import DayCounter, Meter, ModelUse, Outcome
from tools.redaction import redact

MESSAGE_TOKENS = 6  # what the chat format adds to each message
REPLY_TOKENS = 250  # room kept for an answer that goes back as input of a second call
ECHO_LENGTH = 1000  # characters
MOST_TOOL_CALLS = 4  # of one reply


class _Unusable(Exception):
    """The model's part ended without a reading."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


class ModelDiagnostician:
    """A `Diagnostician` that asks the model where another one is not sure.

    Whatever goes wrong on the way (no answer, a broken one, invented lines, a cap reached) leaves the other's
    diagnosis as it is. What the asking cost goes to `on_use`, once for each case the model was asked about.
    """

    def __init__(
        self,
        knowledge: Diagnostician,
        endpoint: Endpoint,
        settings: ModelSettings,
        *,
        tools: Sequence[ReadOnlyTool] = (),
        today: DayCounter | None = None,
        on_use: Callable[[Case, ModelUse], None] | None = None,
    ) -> None:
        self._knowledge = knowledge
        self._endpoint = endpoint
        self._settings = settings
        self._tools = tuple(tools)
        self._today = today or DayCounter()
        self._on_use = on_use
        self._system = prompt_text("diagnose.txt")

    async def diagnose(self, case: Case) -> Diagnosis:
        """Name the cause."""
        diagnosis, _ = await self.diagnose_with_use(case)
        return diagnosis

    async def diagnose_with_use(self, case: Case) -> tuple[Diagnosis, ModelUse | None]:
        """Name the cause, and say what asking the model cost; None when it was not asked."""
        knowledge = await self._knowledge.diagnose(case)
        sure = (
            knowledge.root_cause is not RootCause.UNKNOWN and knowledge.confidence >= self._settings.ask_below
        )
        if sure or not case.log.text.strip():
            return knowledge, None
        meter = Meter(self._settings.model, self._settings.prices.get(self._settings.model))
        try:
            exceeded = self._settings.daily.exceeded(await self._today.spent())
            if exceeded:
                raise _Unusable(Outcome.OVER_LIMIT, exceeded)
            async with asyncio.timeout(self._settings.seconds):
                reading = await self._ask(case, knowledge, meter)
            diagnosis, use = reading.diagnosis, meter.use(Outcome(reading.outcome))
        except _Unusable as exc:
            diagnosis, use = knowledge, meter.use(exc.outcome, str(exc))
        except ModelDeclined as exc:
            diagnosis, use = knowledge, meter.use(Outcome.REFUSED, str(exc))
        except ModelUnavailable as exc:
            diagnosis, use = knowledge, meter.use(Outcome.FAILED, str(exc))
        except TimeoutError:
            diagnosis, use = (
                knowledge,
                meter.use(Outcome.FAILED, f"no answer in {self._settings.seconds:g} s"),
            )
        self._today.add(use)
        if self._on_use is not None:
            self._on_use(case, use)
        return diagnosis, use

    async def _ask(self, case: Case, knowledge: Diagnosis, meter: Meter) -> Reading:
        """The conversation: at most `calls` calls, the last one without tools."""
        log = await asyncio.to_thread(redact, case.log.text)
        messages, box = self._opening(case, knowledge, log)
        for call in range(1, self._settings.calls + 1):
            last = call == self._settings.calls
            reply = await self._call(messages, () if last else self._specs(box), meter)
            messages.append(_echo(reply))
            if reply.tool_calls and not last:
                messages += await self._tool_results(reply, box, meter, messages)
                continue
            if reply.tool_calls:
                raise _Unusable(Outcome.UNUSABLE, "the model asked for tools instead of answering")
            try:
                return judge(knowledge, parse_answer(_text(reply), box.shown), box.shown)
            except AnswerRefused as exc:
                if last:
                    raise _Unusable(Outcome.UNUSABLE, str(exc)) from exc
                reason = prompt_text("diagnose_refused.txt").format(reason=redact(str(exc)))
                messages.append(HumanMessage(reason))
        raise _Unusable(Outcome.OVER_LIMIT, "no call is allowed")

    def _opening(self, case: Case, knowledge: Diagnosis, log: str) -> tuple[list[BaseMessage], Toolbox]:
        """The first messages, cut so that every allowed call fits into the cap on input together."""
        facts = describe(case, knowledge)
        frame = prompt_text("diagnose_case.txt")
        calls = max(1, self._settings.calls)
        each = (self._settings.input_tokens - (calls - 1) * REPLY_TOKENS) // calls
        empty = Toolbox(case, log, {}, self._tools)
        fixed = self._system + facts + frame + self._endpoint.overhead(self._specs(empty))
        shown = shown_lines(log, knowledge, each - estimate_tokens(fixed) - 2 * MESSAGE_TOKENS)
        question = frame.format(facts=facts, lines=fenced(shown))
        messages: list[BaseMessage] = [SystemMessage(self._system), HumanMessage(question)]
        return messages, Toolbox(case, log, shown, self._tools)

    def _specs(self, box: Toolbox) -> list[dict[str, object]]:
        return box.specs() if self._settings.use_tools and self._settings.calls > 1 else []

    async def _call(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, object]], meter: Meter
    ) -> AIMessage:
        cost = self._cost(messages, tools)
        if meter.input_tokens + cost > self._settings.input_tokens:
            raise _Unusable(Outcome.OVER_LIMIT, f"{self._settings.input_tokens} input tokens are used up")
        return await meter.metered(self._endpoint.ask(messages, tools), cost)

    def _cost(self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, object]]) -> int:
        texts = [
            text_of(message) + "".join(map(str, getattr(message, "tool_calls", ()))) for message in messages
        ]
        total = sum(estimate_tokens(text) + MESSAGE_TOKENS for text in texts)
        return total + estimate_tokens(self._endpoint.overhead(tools))

    async def _tool_results(
        self, reply: AIMessage, box: Toolbox, meter: Meter, messages: Sequence[BaseMessage]
    ) -> list[BaseMessage]:
        """What the tools say, within what is left for the next call."""
        left = self._settings.input_tokens - meter.input_tokens - self._cost(messages, ())
        results: list[BaseMessage] = []
        for tool_call in reply.tool_calls[:MOST_TOOL_CALLS]:
            left -= MESSAGE_TOKENS + 10
            text = await box.run(tool_call["name"], tool_call["args"], max(0, left))
            left -= estimate_tokens(text)
            results.append(ToolMessage(text, tool_call_id=tool_call["id"] or ""))
        return results


def _echo(reply: AIMessage) -> AIMessage:
    """A reply as it goes back to the endpoint: it is paid for again, so not at any length."""
    return AIMessage(text_of(reply)[:ECHO_LENGTH], tool_calls=reply.tool_calls[:MOST_TOOL_CALLS])


def _text(reply: AIMessage) -> str:
    """The reply's text; a refusal is no answer."""
    refusal = reply.additional_kwargs.get("refusal")
    if refusal or reply.response_metadata.get("finish_reason") == "content_filter":
        raise _Unusable(Outcome.REFUSED, "the model declined to answer")
    return text_of(reply)


class ModelCheck(DomainType):
    """What `airmedic doctor` says of the model."""

    ok: bool
    model: str
    detail: str
    seconds: float = 0.0


async def check_model(settings: ModelSettings) -> ModelCheck:
    """One tiny call: does the endpoint answer, and with JSON?"""
    started = asyncio.get_running_loop().time()
    try:
        async with open_model(settings) as endpoint, asyncio.timeout(settings.seconds):
            reply = await endpoint.ask(
                [HumanMessage('Reply with the JSON object {"root_cause": "unknown"}.')]
            )
            form = {"schema": "JSON schema", "json": "JSON mode", "text": "plain text"}[endpoint.form]
            detail, ok = f"answers, structured output by {form}", bool(text_of(reply).strip())
    except ModelUnavailable as exc:
        detail, ok = str(exc), False
    except TimeoutError:
        detail, ok = f"no answer in {settings.seconds:g} s", False
    seconds = asyncio.get_running_loop().time() - started
    return ModelCheck(ok=ok, model=settings.model, detail=detail, seconds=seconds)
