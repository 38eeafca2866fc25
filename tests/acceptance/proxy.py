"""A proxy between Airmedic and the real Airflow: it records each request and can keep one from its end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

HOST = "127.0.0.1"
ASK_AGAIN = 0.3  # seconds


class Fate(StrEnum):
    """What becomes of a request."""

    PASS = "pass"
    SWALLOW = "swallow"  #: Airflow takes it and answers, and the answer is kept back
    LOSE = "lose"  #: Airflow never gets it, and nobody answers


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    path: str
    headers: tuple[str, ...]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body) if self.body else None

    @property
    def is_clear(self) -> bool:
        """A clear in earnest."""
        return self.path.endswith("/clearTaskInstances") and self.json["dry_run"] is False

    @property
    def is_write(self) -> bool:
        """Anything that changes something in Airflow."""
        if self.method in {"GET", "HEAD"} or self.path == "/auth/token":
            return False
        return not self.path.endswith("/dry_run") and (self.json or {}).get("dry_run") is not True


@dataclass(frozen=True)
class Passed:
    """A request and what became of it; `status` is Airflow's, None when Airflow never got it."""

    request: Request
    fate: Fate
    status: int | None

    @property
    def refused(self) -> bool:
        """Airflow's own trouble, which happens when its SQLite file is locked: nothing was changed."""
        return self.status is not None and self.status >= 500


Rule = Callable[[Request], Fate]


def pass_all(request: Request) -> Fate:
    """Transparent."""
    return Fate.PASS


class Proxy:
    """Listens on a port of its own; `rule` decides about each request."""

    def __init__(self, airflow_url: str) -> None:
        self.rule: Rule = pass_all
        self.passed: list[Passed] = []
        self._port = urlsplit(airflow_url).port
        self._kept = asyncio.Condition()
        self._listening: asyncio.Server | None = None
        self._mine = 0
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self._mine}"

    @property
    def writes(self) -> list[Passed]:
        """What would change something in Airflow, whether it got there or not."""
        return [one for one in self.passed if one.request.is_write]

    def clears(self, run_id: str) -> list[Passed]:
        """The clears in earnest of one run, those that Airflow refused among them."""
        clears = [one for one in self.passed if one.request.is_clear]
        return [one for one in clears if one.request.json["dag_run_id"] == run_id]

    async def caught(self, count: int) -> None:
        """Wait until so many requests were kept from their end."""
        async with self._kept:
            await self._kept.wait_for(lambda: sum(one.fate is not Fate.PASS for one in self.passed) >= count)

    async def accept(self) -> None:
        """Take connections, on the same port as before."""
        if self._listening is None:
            self._listening = await asyncio.start_server(self._serve, HOST, self._mine)
            self._mine = self._listening.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Break what is open and refuse what comes."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            await self._pass_on(await _read(reader), reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return  # whoever asked is gone
        finally:
            self._open.discard(writer)
            writer.close()

    async def _pass_on(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        fate = self.rule(request)
        answer = b"" if fate is Fate.LOSE else await self._ask_airflow(request)
        while fate is Fate.SWALLOW and (refused := Passed(request, Fate.PASS, _status(answer))).refused:
            self.passed.append(refused)
            await asyncio.sleep(ASK_AGAIN)
            answer = await self._ask_airflow(request)
        self.passed.append(Passed(request, fate, _status(answer)))
        if fate is Fate.PASS:
            writer.write(answer)
            await writer.drain()
        else:
            async with self._kept:
                self._kept.notify_all()
            await reader.read()  # until the other side hangs up

    async def _ask_airflow(self, request: Request) -> bytes:
        reader, writer = await asyncio.open_connection(HOST, self._port)
        try:
            head = "\r\n".join([f"{request.method} {request.path} HTTP/1.1", *request.headers, "", ""])
            writer.write(head.encode("latin-1") + request.body)
            return await reader.read()
        finally:
            writer.close()


def _status(answer: bytes) -> int | None:
    return int(answer.split(b" ", 2)[1]) if answer else None


async def _read(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    length = next((int(one[15:]) for one in lines if one.lower().startswith("content-length:")), 0)
    kept = [one for one in lines if not one.lower().startswith("connection:")]
    return Request(method, path, (*kept, "Connection: close"), await reader.readexactly(length))


@asynccontextmanager
async def open_proxy(airflow_url: str) -> AsyncIterator[Proxy]:
    """A proxy until the block is left."""
    proxy = Proxy(airflow_url)
    await proxy.accept()
    try:
        yield proxy
    finally:
        proxy.refuse()
        await asyncio.sleep(0)
