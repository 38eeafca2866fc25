"""What asking a language model costs, and the limits it is held to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from graph.domain import DomainType
from graph.errors import ModelUnavailable
from tools.llm_prompt import estimate_tokens, text_of

if TYPE_CHECKING:
    from langchain_core.messages import AIMessage


class Outcome(StrEnum):
    """How asking the model ended."""

    CONFIRMED = "confirmed"  #: it names what knowledge had named
    NAMED = "named"  #: its cause was taken
    DISPUTED = "disputed"  #: it contradicts an answer that stands, with less confidence
    ABSTAINED = "abstained"  #: it does not know either
    REFUSED = "refused"  #: it declined to answer
    UNUSABLE = "unusable"  #: broken, off the schema, or citing lines that were not shown
    FAILED = "failed"  #: no answer: an error of the endpoint, or too slow
    ANSWERED = "answered"  #: a person's words in the chat
    OVER_LIMIT = "over_limit"  #: a cap on calls, tokens or money was reached first


class ModelUse(DomainType):
    """What one incident cost. Stored per incident by the caller."""

    model: str
    outcome: Outcome
    error: str = ""  #: why the answer was not used
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = 0.0  #: None when the model's price is not in the table
    seconds: float = 0.0


class Price(DomainType):
    """US dollars per million tokens."""

    input: float
    output: float


class Spent(DomainType):
    """What the model cost so far today."""

    calls: int = 0
    tokens: int = 0
    cost_usd: float = 0.0


class DailyCap(DomainType):
    """Limits per day (UTC). None: no limit."""

    calls: int | None = 500
    tokens: int | None = 2_000_000
    cost_usd: float | None = 10.0

    def exceeded(self, spent: Spent) -> str:
        """Which limit is used up; empty when none is."""
        if self.calls is not None and spent.calls >= self.calls:
            return f"today's {self.calls} calls are used up"
        if self.tokens is not None and spent.tokens >= self.tokens:
            return f"today's {self.tokens} tokens are used up"
        if self.cost_usd is not None and spent.cost_usd >= self.cost_usd:
            return f"today's {self.cost_usd:.2f} USD are used up"
        return ""


def utc_now() -> datetime:
    """The clock, unless a test brings its own."""
    return datetime.now(UTC)


class DayCounter:
    """Counts a day's spending in this process; `stored` adds what a database knows of other workers."""

    def __init__(
        self,
        *,
        clock: Callable[[], datetime] = utc_now,
        stored: Callable[[date], Awaitable[Spent]] | None = None,
    ) -> None:
        self._clock = clock
        self._stored = stored
        self._day = clock().date()
        self._here = Spent()

    async def spent(self) -> Spent:
        """Today's spending: what the store knows, or what this process saw, whichever is more."""
        today = self._turn()
        if self._stored is None:
            return self._here
        known = await self._stored(today)
        return known if known.tokens >= self._here.tokens else self._here

    def add(self, use: ModelUse) -> None:
        """Count one incident's use."""
        self._turn()
        self._here = Spent(
            calls=self._here.calls + use.calls,
            tokens=self._here.tokens + use.input_tokens + use.output_tokens,
            cost_usd=self._here.cost_usd + (use.cost_usd or 0.0),
        )

    def _turn(self) -> date:
        today = self._clock().date()
        if today != self._day:
            self._day, self._here = today, Spent()
        return today


@dataclass
class Meter:
    """Counts while one incident is being asked about."""

    model: str
    price: Price | None
    started: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def count(self, input_tokens: int, output_tokens: int) -> None:
        """One call's tokens."""
        self.input_tokens += input_tokens
        self.output_tokens += output_tokens

    async def metered(self, ask: Awaitable[AIMessage], cost: int) -> AIMessage:
        """One call, by the endpoint's own count of tokens; without one by `cost`, the question's estimate."""
        self.calls += 1
        try:
            reply = await ask
        except (ModelUnavailable, asyncio.CancelledError):
            self.count(cost, 0)  # it was sent: it may be billed
            raise
        usage = reply.usage_metadata
        if usage is not None:
            self.count(usage["input_tokens"], usage["output_tokens"])
        else:
            self.count(cost, estimate_tokens(text_of(reply)))
        return reply

    def use(self, outcome: Outcome, error: str = "") -> ModelUse:
        """The record so far."""
        cost = None
        if self.price is not None:
            cost = (self.input_tokens * self.price.input + self.output_tokens * self.price.output) / 1e6
        return ModelUse(
            model=self.model,
            outcome=outcome,
            error=error[:300],
            calls=self.calls,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cost_usd=cost,
            seconds=asyncio.get_running_loop().time() - self.started,
        )
