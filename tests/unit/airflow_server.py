"""A small HTTP server that answers by script: also with nothing, with half an answer, or by hanging up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

RESET = b"RESET"  # take the request, then hang up
HANG = b"HANG"  # take the request, then say nothing


def answer(status: int, body: object = None, *, kind: str = "application/json", **headers: str) -> bytes:
    """A whole HTTP answer; a `str` body goes out as it is, anything else as JSON."""
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + content


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    token: str
    body: str


@dataclass
class ScriptedAirflow:
    """Answers API calls from `script`, in order (the last repeats), and log-ins with token after token."""

    url: str = ""
    script: list[bytes] = field(default_factory=list)
    login: list[bytes] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    logins: int = 0

    def _next(self, request: Request) -> bytes:
        if request.path == "/auth/token":
            self.logins += 1
            fresh = answer(201, {"access_token": f"token-{self.logins}"})
            return self.login.pop(0) if self.login else fresh
        self.requests.append(request)
        return self.script.pop(0) if len(self.script) > 1 else self.script[0]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            said = self._next(await _request(reader))
            if said == HANG:
                await reader.read()  # until the client gives up
            elif said != RESET:
                writer.write(said)
                await writer.drain()
        finally:
            writer.close()


async def _request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    method, path, _ = first.split(" ")
    return Request(method, path, headers.get("authorization", "").removeprefix("Bearer "), body.decode())


@asynccontextmanager
async def open_scripted(*script: bytes) -> AsyncIterator[ScriptedAirflow]:
    """The server on a free port of this machine."""
    airflow = ScriptedAirflow(script=list(script))
    server = await asyncio.start_server(airflow.handle, "127.0.0.1", 0)
    airflow.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield airflow
    finally:
        server.close()
        await server.wait_closed()
