"""Whether anything changed: one watcher asks the server, however many consoles wait."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import structlog

from gradio_ui.client import ConsoleClient, ServerSilent, SignInNeeded
from graph.errors import AirmedicError

log = structlog.get_logger("console")

LOOK = 0.5  # seconds between two looks at the agent log
STATUS_EVERY = 5.0  # seconds between two looks at the health of everything
PATIENCE = 20.0  # seconds one request may wait for news
IDLE = 30.0  # seconds without any console after which the watcher rests
TOKENS = 16  # of those who wait; one that works is enough

AWAY = "away"  # the news while the server does not answer


class News:
    """The revision of the world as a console sees it. It says that something changed, never what."""

    def __init__(self, client: ConsoleClient, *, timer: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._timer = timer
        self._tokens: dict[str, None] = {}
        self._changed = asyncio.Condition()
        self._wanted = asyncio.Event()
        self._asked_at = timer()
        self._status = ("", float("-inf"))
        self.revision = ""

    async def wait(self, token: str, seen: str, *, patience: float = PATIENCE) -> str:
        """The revision as soon as it is another than `seen`; the same one when nothing changed for long."""
        self._tokens.pop(token, None)
        self._tokens[token] = None
        while len(self._tokens) > TOKENS:
            self._tokens.pop(next(iter(self._tokens)))
        self._asked_at = self._timer()
        self._wanted.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience), self._changed:
                await self._changed.wait_for(lambda: self.revision not in ("", seen))
        return self.revision

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Look in the background while the block runs."""
        task = asyncio.create_task(self._watch(), name="console-news")
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _watch(self) -> None:
        while True:
            await self._wanted.wait()
            if self._timer() - self._asked_at > IDLE:
                self._wanted.clear()
                continue
            await self.look()
            await asyncio.sleep(LOOK)

    async def look(self) -> None:
        """One look; whoever waits is told when it shows something new."""
        found = await self._look()
        if found == self.revision:
            return
        # Before anybody is told: what was seen a moment ago is old from now on.
        self._client.glances.clear()
        async with self._changed:
            self.revision = found
            self._changed.notify_all()

    async def _look(self) -> str:
        for token in reversed(list(self._tokens)):
            try:
                event = await self._client.newest_event(token)
                return f"{event}.{await self._health(token)}"
            except SignInNeeded:
                self._tokens.pop(token, None)
            except ServerSilent:
                return AWAY
            except AirmedicError as exc:
                log.warning("console_look_refused", error=str(exc))
                return self.revision
        return self.revision

    async def _health(self, token: str) -> str:
        """A short name for what the status page shows; asked seldom, for it changes by itself seldom."""
        known, at = self._status
        if self._timer() - at < STATUS_EVERY:
            return known
        status = await self._client.status(token)
        told = status.model_dump_json(exclude={"airflow": {"asked_at"}, "seen": True, "polled_until": True})
        self._status = (hashlib.sha256(told.encode()).hexdigest()[:8], self._timer())
        return self._status[0]
