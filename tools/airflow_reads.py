"""Requests that change nothing in Airflow, over kept connections.

A diagnosis asks a dozen things. A client that is made for everything takes three times the processor time
for each; this one sends a request, and puts one answer together. Writes do not travel here
(`tools.airflow_line`).
"""

from __future__ import annotations

import asyncio
import ssl
import zlib
from dataclasses import dataclass
from urllib.parse import urlsplit

LONGEST_HEAD = 128 * 1024  # bytes of an answer's status line and headers
KEPT = 15.0  # seconds an idle connection is trusted: what stands between may forget it without a word
PORTS = {"http": 80, "https": 443}
UNPACK = zlib.MAX_WBITS | 32  # gzip or zlib, as the body says


class NeverLeft(Exception):
    """No byte of the request has left."""


class AnswerLost(Exception):
    """The request has left, at least in part; what became of it is not known."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body, whole."""

    status: int
    body: bytes


class Reading:
    """One answer of HTTP/1.1 on its way in. Raises `ValueError` for what is none."""

    def __init__(self) -> None:
        self.keep = False  #: whether the connection may carry another request
        self._heard = bytearray()
        self._status = 0
        self._length: int | None = None  #: None until the head is here, and when nothing told it
        self._chunks: list[bytes] | None = None  #: of a body that comes in chunks
        self._packed = False

    def feed(self, data: bytes) -> Answer | None:
        """Take up what came; the answer, once it is whole."""
        self._heard += data
        while not self._status:
            end = self._heard.find(b"\r\n\r\n")
            if end < 0 or end > LONGEST_HEAD:
                if len(self._heard) > LONGEST_HEAD:
                    raise ValueError("a head without an end")
                return None
            head = bytes(self._heard[:end])
            del self._heard[: end + 4]
            self._read_head(head)
        if self._chunks is not None:
            return self._next_chunks(self._chunks)
        if self._length is None or len(self._heard) < self._length:
            return None
        return self._whole(bytes(self._heard[: self._length]), rest=len(self._heard) - self._length)

    def ended(self) -> Answer:
        """The other side has hung up: the answer, when that is how its end is told."""
        if not self._status or self._length is not None or self._chunks is not None:
            raise ValueError("half an answer")
        return self._whole(bytes(self._heard), rest=0)

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        version, _, told = first.partition(b" ")
        status = told[:3]
        if version not in (b"HTTP/1.1", b"HTTP/1.0") or len(status) != 3 or not status.isdigit():
            raise ValueError("another protocol")
        if status.startswith(b"1"):
            return  # a word in between
        lengths: set[bytes] = set()
        self.keep = version == b"HTTP/1.1"
        for line in lines:
            name, _, value = line.partition(b":")
            match name.lower():
                case b"content-length":
                    lengths.add(value.strip())
                case b"transfer-encoding":
                    if value.strip().lower() != b"chunked":
                        raise ValueError("an encoding that nobody asked for")
                    self._chunks = []
                case b"content-encoding":
                    self._packed = value.strip().lower() in (b"gzip", b"deflate")
                case b"connection":
                    self.keep = self.keep and b"close" not in value.lower()
        if len(lengths) > 1 or not all(one.isdigit() for one in lengths):
            raise ValueError("no length, or two")
        self._status = int(status)
        if self._status in (204, 304):
            self._length, self._chunks = 0, None
        elif lengths and self._chunks is None:
            self._length = int(lengths.pop())

    def _next_chunks(self, chunks: list[bytes]) -> Answer | None:
        heard, at = self._heard, 0
        try:
            while (end := heard.find(b"\r\n", at)) >= 0:
                told = bytes(heard[at:end]).partition(b";")[0].strip()
                if not told.isalnum():
                    raise ValueError("a chunk without its size")
                begin, size = end + 2, int(told, 16)
                if size == 0:
                    # Lines may follow, and then an empty one.
                    last = begin if heard.startswith(b"\r\n", begin) else heard.find(b"\r\n\r\n", begin) + 2
                    if last < begin:
                        return None
                    return self._whole(b"".join(chunks), rest=len(heard) - last - 2)
                if len(heard) < begin + size + 2:
                    return None
                chunks.append(bytes(heard[begin : begin + size]))
                at = begin + size + 2
            return None
        finally:
            del heard[:at]

    def _whole(self, body: bytes, *, rest: int) -> Answer:
        # What comes behind it was not asked for. Without a length the end was that somebody hung up.
        self.keep = self.keep and not rest and (self._length is not None or self._chunks is not None)
        if self._packed and body:
            try:
                body = zlib.decompress(body, UNPACK)
            except zlib.error as exc:
                raise ValueError("not packed as it says") from exc
        return Answer(self._status, body)


class Wire(asyncio.Protocol):
    """One connection. It carries one request at a time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._reading = Reading()
        self._silence = 0.0  # seconds
        self._heard_at = 0.0
        self._alarm: asyncio.TimerHandle | None = None
        self.free_since = 0.0

    @property
    def usable(self) -> bool:
        """Whether it may carry a request."""
        alive = self._transport is not None and not self._transport.is_closing()
        return alive and self._waiting is None

    async def ask(self, request: bytes, *, silence: float) -> Answer:
        """Send it and read its answer. Raises `AnswerLost`, also when nothing was heard for so long."""
        assert self._transport is not None, "made by the loop"
        assert self._waiting is None, "one request at a time"
        self._reading, self._silence, self._heard_at = Reading(), silence, self._loop.time()
        self._waiting = self._loop.create_future()
        self._alarm = self._loop.call_later(silence, self._listen)
        self._transport.write(request)
        try:
            answer = await self._waiting
        except BaseException:
            self.close()  # nobody may take what still comes for the answer to another one
            raise
        finally:
            self._alarm.cancel()
            self._waiting = None
        if not self._reading.keep:
            self.close()
        return answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._waiting is None or self._waiting.done():
            self.close()  # words that nobody asked for
            return
        self._heard_at = self._loop.time()
        try:
            answer = self._reading.feed(data)
        except ValueError as exc:
            self._lose(f"no answer ({exc})")
            return
        if answer is not None:
            self._waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._waiting is None or self._waiting.done():
            return
        if exc is not None:
            self._lose(f"no answer ({type(exc).__name__})")
            return
        try:
            self._waiting.set_result(self._reading.ended())
        except ValueError as wrong:
            self._lose(f"no answer ({wrong})")

    def _listen(self) -> None:
        left = self._heard_at + self._silence - self._loop.time()
        if left <= 0:
            self._lose(f"no answer within {self._silence:g} s")
        else:
            self._alarm = self._loop.call_later(left, self._listen)

    def _lose(self, why: str) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(AnswerLost(why))


@dataclass(frozen=True, slots=True)
class _Place:
    host: str
    port: int
    tls: bool
    named: str  #: as the request says it; without a name and a password: the token says who we are


class Reads:
    """The connections to one server that only read."""

    def __init__(self, *, tls: ssl.SSLContext | None, timeout: float, at_once: int) -> None:
        self._tls = tls
        self._timeout = timeout
        self._limit = timeout * 2 + 1  # `timeout` is for connecting and for each read; this for the whole
        self._gate = asyncio.Semaphore(at_once)
        self._places: dict[str, _Place] = {}
        self._free: dict[str, list[Wire]] = {}
        self._wires: set[Wire] = set()

    async def carry(self, method: str, url: str, headers: dict[str, str], body: bytes | None) -> Answer:
        """Send it, and wait for the answer. Raises `NeverLeft` and `AnswerLost`."""
        slash = url.find("/", url.find("//") + 2)
        origin, target = (url[:slash], url[slash:]) if slash > 0 else (url, "/")
        request = _request(method, target, self._place(origin).named, headers, body)
        left = False
        try:
            async with asyncio.timeout(self._limit), self._gate:
                wire = await self._wire(origin)
                left = True
                try:
                    return await wire.ask(request, silence=self._timeout)
                finally:
                    self._put_back(origin, wire)
        except TimeoutError as exc:
            if left:
                raise AnswerLost(f"no answer within {self._limit:g} s") from exc
            raise NeverLeft(f"cannot connect within {self._limit:g} s") from exc

    def close(self) -> None:
        """Hang up."""
        for wire in self._wires:
            wire.close()
        self._wires.clear()
        self._free.clear()

    def _place(self, origin: str) -> _Place:
        if (known := self._places.get(origin)) is None:
            parts = urlsplit(origin)
            port = parts.port or PORTS[parts.scheme]
            named = parts.netloc.rpartition("@")[2]
            known = self._places[origin] = _Place(parts.hostname or "", port, parts.scheme == "https", named)
        return known

    async def _wire(self, origin: str) -> Wire:
        free, loop = self._free.setdefault(origin, []), asyncio.get_running_loop()
        while free:
            wire = free.pop()
            if wire.usable and loop.time() - wire.free_since < KEPT:
                return wire
            self._forget(wire)
        place = self._place(origin)
        tls = (self._tls or True) if place.tls else None
        try:
            async with asyncio.timeout(self._timeout):
                _, made = await loop.create_connection(lambda: Wire(loop), place.host, place.port, ssl=tls)
        except TimeoutError as exc:
            raise NeverLeft(f"cannot connect within {self._timeout:g} s") from exc
        except (OSError, ValueError) as exc:  # a name may be none that can be looked up
            raise NeverLeft(f"cannot connect ({type(exc).__name__})") from exc
        self._wires.add(made)
        return made

    def _put_back(self, origin: str, wire: Wire) -> None:
        if not wire.usable or wire not in self._wires:
            self._forget(wire)
            return
        wire.free_since = asyncio.get_running_loop().time()
        self._free.setdefault(origin, []).append(wire)

    def _forget(self, wire: Wire) -> None:
        wire.close()
        self._wires.discard(wire)


def _request(method: str, target: str, host: str, headers: dict[str, str], body: bytes | None) -> bytes:
    if not target.isascii() or not target.isprintable() or " " in target:
        raise NeverLeft("not sent, for its address is none")
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", "Accept-Encoding: identity"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")
