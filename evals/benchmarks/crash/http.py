"""A small HTTP server that can also do what servers should not: hang up, reset, keep an answer back."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

RESET: Final = "reset"  #: break the connection instead of answering
HOLD: Final = "hold"  #: say nothing until the other side gives up
RST = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


@dataclass(frozen=True)
class Request:
    """One request as it came."""

    method: str
    target: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Said:
    """The answer, or what is done instead of one."""

    status: int
    body: Any
    instead: str = ""


Handler = Callable[[Request], Awaitable[Said]]


async def serve(handler: Handler, port: int = 0) -> asyncio.Server:
    """Listen on this machine; connections are kept open."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (request := await _read(reader)) is not None:
                said = await handler(request)
                if said.instead == RESET:
                    _reset(writer)
                    return
                if said.instead == HOLD:
                    await reader.read()
                    return
                writer.write(_written(said))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # whoever asked is gone
        finally:
            writer.close()

    return await asyncio.start_server(talk, "127.0.0.1", port, backlog=1024)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw = writer.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
    writer.transport.abort()


def _written(said: Said) -> bytes:
    body = json.dumps(said.body).encode()
    head = (
        f"HTTP/1.1 {said.status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _read(reader: asyncio.StreamReader) -> Request | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
    method, target, _ = first.split(" ")
    length = next((int(one[15:]) for one in lines if one.lower().startswith("content-length:")), 0)
    body = await reader.readexactly(length)
    return Request(method, target, json.loads(body) if body else {})
