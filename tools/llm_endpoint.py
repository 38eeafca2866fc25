"""The endpoint: one call, in the best form of structured output it supports, its errors translated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Literal

import httpx
from langchain_core.exceptions import LangChainException
from langchain_core.messages import AIMessage, BaseMessage
from pydantic import BaseModel, ConfigDict, SecretStr

from graph.errors import ModelUnavailable
from tools.llm_answer import answer_schema
from tools.llm_usage import DailyCap, Price

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

Form = Literal["schema", "json", "text"]
FORMS: tuple[Form, ...] = ("schema", "json", "text")  # of structured output, best first


class ModelSettings(BaseModel):
    """Which model, where, and its limits."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str
    api_key: SecretStr
    base_url: str | None = None  #: None: OpenAI's own
    ask_below: float = 0.75  #: knowledge at least this sure is not discussed with a model
    calls: int = 2  #: per incident, rounds of tools included
    input_tokens: int = 4000  #: per incident, over all its calls
    output_tokens: int = 1500  #: per call
    seconds: float = 30.0  #: per incident
    daily: DailyCap = DailyCap()
    prices: dict[str, Price] = {}
    use_tools: bool = True


class ModelDeclined(ModelUnavailable):
    """The model, or a filter before it, refused to answer."""

    retryable = False


@contextmanager
def model_errors() -> Iterator[None]:
    """What the client raises for a bad endpoint becomes `ModelUnavailable`, without the endpoint's words."""
    import openai  # 500 modules, which a server without a model does without

    try:
        yield
    except openai.APIStatusError as exc:
        raise ModelUnavailable(f"the endpoint answered HTTP {exc.status_code}") from exc
    except (openai.APITimeoutError, TimeoutError) as exc:
        raise ModelUnavailable("the endpoint did not answer in time") from exc
    except (openai.APIConnectionError, httpx.HTTPError) as exc:
        raise ModelUnavailable("the endpoint cannot be reached, or cut its answer short") from exc
    except openai.ContentFilterFinishReasonError as exc:
        raise ModelDeclined("the endpoint filtered the answer out") from exc
    except (openai.OpenAIError, LangChainException) as exc:
        raise ModelUnavailable(f"the endpoint's answer cannot be read ({type(exc).__name__})") from exc
    # The client takes a body of the wrong shape apart without checking it.
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as exc:
        raise ModelUnavailable(f"the endpoint's answer is malformed ({type(exc).__name__})") from exc


class Endpoint:
    """One model at one endpoint. It remembers which form of structured output the endpoint takes."""

    def __init__(self, chat: ChatOpenAI) -> None:
        self._chat = chat
        self.form: Form = "schema"

    async def ask(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, object]] = ()
    ) -> AIMessage:
        """One answer. When the endpoint rejects a form (HTTP 400, 422), the next is tried, kept if it works.

        A rejected form costs a request and no tokens, so it counts as part of the same call.
        """
        import openai

        with model_errors():
            for form in FORMS[FORMS.index(self.form) : -1]:
                try:
                    return await self._send(messages, tools, form)
                except (openai.BadRequestError, openai.UnprocessableEntityError):
                    continue
            return await self._send(messages, tools, FORMS[-1])

    async def _send(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, object]], form: Form
    ) -> AIMessage:
        extra: dict[str, Any] = {}
        if form == "schema":
            schema = {"name": "diagnosis", "strict": True, "schema": answer_schema()}
            extra["response_format"] = {"type": "json_schema", "json_schema": schema}
        elif form == "json":
            extra["response_format"] = {"type": "json_object"}
        # An endpoint without structured output seldom has tools either.
        if tools and form != "text":
            extra["tools"] = list(tools)
        reply = await self._chat.ainvoke(list(messages), **extra)
        if not isinstance(reply, AIMessage):
            raise TypeError(type(reply).__name__)
        self.form = form
        return reply

    def overhead(self, tools: Sequence[dict[str, object]]) -> str:
        """What goes along with every call and is paid for: the schema and the tools."""
        schema = json.dumps(answer_schema(), separators=(",", ":")) if self.form == "schema" else ""
        return schema + (
            json.dumps(list(tools), separators=(",", ":")) if tools and self.form != "text" else ""
        )


@asynccontextmanager
async def open_model(settings: ModelSettings) -> AsyncIterator[Endpoint]:
    """The endpoint, for diagnoses."""
    async with open_client(settings) as chat:
        yield Endpoint(chat)


@asynccontextmanager
async def open_client(settings: ModelSettings) -> AsyncIterator[ChatOpenAI]:
    """The model, with a connection pool that is closed at the end. It talks to `base_url` only."""
    from langchain_openai import ChatOpenAI

    with model_errors():
        # Redirects could carry a prompt to a host that nobody configured.
        client = httpx.AsyncClient(timeout=settings.seconds, follow_redirects=False)
    async with client:
        yield ChatOpenAI(
            model=settings.model,
            api_key=settings.api_key,
            base_url=settings.base_url,
            timeout=settings.seconds,
            # Every request counts against the cap, so the client may not repeat one by itself.
            max_retries=0,
            max_completion_tokens=settings.output_tokens,
            use_responses_api=False,
            http_async_client=client,
            http_socket_options=(),
        )
