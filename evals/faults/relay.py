"""A relay in front of a local port: it can lose one answer and stay away, or speak TLS to who calls."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

HOST = "127.0.0.1"
CHUNK = 64 * 1024  # bytes
KEPT = 16 * 1024  # bytes of a request that are looked at

Watch = Callable[[bytes], bool]


def is_clear(request: bytes) -> bool:
    """Whether this is a clear in earnest, not a dry run."""
    spaceless = request.replace(b" ", b"")
    return b"/clearTaskInstances" in request and b'"dry_run":false' in spaceless


class Relay:
    """Passes bytes on. The first request that `cut_on` knows reaches the other side; its answer does not."""

    def __init__(
        self,
        target: int,
        *,
        cut_on: Watch | None = None,
        away: float = 0.0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.port = 0
        self.cuts = 0
        self._target = target
        self._cut_on = cut_on
        self._away = away
        self._tls = tls
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self.back: asyncio.Task[None] | None = None  #: the end of its being away

    async def start(self) -> None:
        """Take connections; on the same port as before, when there was one."""
        self._listening = await asyncio.start_server(self._serve, HOST, self.port, ssl=self._tls)
        self.port = int(self._listening.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Break what is open and refuse what comes."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for writer in self._open:
            writer.transport.abort()

    async def aclose(self) -> None:
        """End for good."""
        if self.back is not None:
            self.back.cancel()
        await self.stop()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        with suppress(OSError):
            there_reader, there_writer = await asyncio.open_connection(HOST, self._target)
            back = asyncio.create_task(self._pass_back(there_reader, writer))
            try:
                await self._pass_on(reader, there_writer, there_reader, back)
            finally:
                there_writer.close()
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
        self._open.discard(writer)
        writer.close()

    async def _pass_on(
        self,
        reader: asyncio.StreamReader,
        there: asyncio.StreamWriter,
        answer: asyncio.StreamReader,
        back: asyncio.Task[None],
    ) -> None:
        seen = b""
        while chunk := await reader.read(CHUNK):
            seen = (seen + chunk)[-KEPT:]
            if self._cut_on is not None and self.cuts == 0 and self._cut_on(seen):
                self.cuts += 1
                back.cancel()
                await asyncio.gather(back, return_exceptions=True)
                there.write(chunk)
                await there.drain()
                await answer.read(CHUNK)  # it is done over there, and nobody hears of it
                self.back = asyncio.create_task(self._come_back())
                await self.stop()
                return
            there.write(chunk)
            await there.drain()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                writer.write(chunk)
                await writer.drain()
            writer.close()

    async def _come_back(self) -> None:
        await asyncio.sleep(self._away)
        await self.start()


@asynccontextmanager
async def open_relay(target: int, *, cut_on: Watch | None = None, away: float = 0.0) -> AsyncIterator[Relay]:
    """A relay that listens until the block is left."""
    relay = Relay(target, cut_on=cut_on, away=away)
    await relay.start()
    try:
        yield relay
    finally:
        await relay.aclose()
