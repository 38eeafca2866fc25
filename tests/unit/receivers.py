"""Real receivers of notifications on this machine: a mail server, and an HTTP server that can misbehave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session


@dataclass
class Mailbox:
    """What a mail server was given."""

    port: int = 0
    mails: list[EmailMessage] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"mailto://localhost:{self.port}?smtp=127.0.0.1&mode=insecure&from=medic@example.org&to=call@example.org"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:
        """The hook that aiosmtpd calls."""
        content = envelope.content
        assert isinstance(content, bytes)
        parsed = message_from_bytes(content, policy=policy.default)
        assert isinstance(parsed, EmailMessage)
        self.mails.append(parsed)
        return "250 OK"

    def text(self, number: int = -1) -> str:
        part = self.mails[number].get_body(("plain", "html"))
        assert part is not None
        return str(part.get_content())


@asynccontextmanager
async def open_mailbox() -> AsyncIterator[Mailbox]:
    box = Mailbox()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(box, enable_SMTPUTF8=True, loop=loop), "127.0.0.1", 0)
    box.port = server.sockets[0].getsockname()[1]
    try:
        yield box
    finally:
        server.close()
        await server.wait_closed()


@dataclass
class Hook:
    """An HTTP receiver. `mode`: ok, 500, hang, drop (takes the request and hangs up), redirect."""

    port: int = 0
    mode: str = "ok"
    got: list[dict[str, Any]] = field(default_factory=list)
    elsewhere: int = 0  #: requests that came by a redirect

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hook?rto=2&cto=2"

    @property
    def titles(self) -> list[str]:
        return [str(one["title"]) for one in self.got]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.split()[1] == "/elsewhere":
            self.elsewhere += 1
        length = next(
            (
                int(line.split(":")[1])
                for line in head.splitlines()
                if line.lower().startswith("content-length")
            ),
            0,
        )
        body = json.loads(await reader.readexactly(length)) if length else {}
        if self.mode == "hang":
            await asyncio.sleep(30)
        if self.mode == "drop":
            self.got.append(body)
            return
        answers = {
            "ok": "200 OK",
            "500": "500 Broken",
            "redirect": f"307 Go\r\nLocation: http://127.0.0.1:{self.port}/elsewhere",
        }
        if self.mode == "ok":
            self.got.append(body)
        writer.write(
            f"HTTP/1.1 {answers[self.mode]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
        )
        await writer.drain()


@asynccontextmanager
async def open_hook(mode: str = "ok") -> AsyncIterator[Hook]:
    hook = Hook(mode=mode)
    open_now: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(hook.serve(reader, writer))
        open_now.add(task)
        task.add_done_callback(open_now.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    hook.port = server.sockets[0].getsockname()[1]
    try:
        yield hook
    finally:
        for task in open_now:
            task.cancel()
        await asyncio.gather(*open_now, return_exceptions=True)
        server.close()
        await server.wait_closed()
