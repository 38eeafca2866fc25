"""Requests to Airflow on the event loop, over kept connections, and whether one that failed has left.

aiohttp carries them at a third of the processor time of the client's own transport, urllib3 in threads.
"""

from __future__ import annotations

import json
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.connector import Connection

LONGEST_LINE = 64 * 1024  # bytes of an answer's status line, or of one of its headers
AT_ONCE = 8  # requests at the same time: so many that read, and so many that write

# Raised before any byte of the request has left.
NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ClientHttpProxyError)

TOO_LATE = "not sent, for it could not leave at once"
_leave_by: ContextVar[float | None] = ContextVar("leave_by", default=None)


class NeverLeft(Exception):
    """No byte of the request has left."""


class AnswerLost(Exception):
    """The request has left, at least in part; what became of it is not known."""


@dataclass(frozen=True)
class Parcel:
    """One request as the client built it."""

    method: str
    url: str
    headers: dict[str, str]
    body: Any = None  #: sent as JSON; None for no body
    write: bool = False
    leave_by: float | None = None  #: by `time.monotonic()`; what has not left by then stays

    def patience(self, most: float) -> float:
        """Seconds it may wait for a connection. Raises `NeverLeft`."""
        if not all(value.isascii() and value.isprintable() for value in self.headers.values()):
            raise NeverLeft("not sent, for a header of it is none")  # a token, which is not told
        left = most if self.leave_by is None else min(most, self.leave_by - time.monotonic())
        if left <= 0:
            raise NeverLeft(TOO_LATE)
        return left


class Timely(aiohttp.ClientRequest):
    """Looks at the clock once more when there is a connection, and right before the first byte.

    The whole process may have been stopped meanwhile, and another one have done the work.
    """

    async def send(self, conn: Connection) -> aiohttp.ClientResponse:
        """Raises `NeverLeft`."""
        if _is_late():
            raise NeverLeft(TOO_LATE)
        return await super().send(conn)

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        """A task of its own, of which only the connection can tell."""
        if _is_late() and conn.protocol is not None:
            conn.protocol.set_exception(NeverLeft(TOO_LATE))
            return
        await super().write_bytes(writer, conn, content_length)


def _is_late() -> bool:
    leave_by = _leave_by.get()
    return leave_by is not None and time.monotonic() > leave_by


@dataclass(frozen=True)
class Answer:
    """Status and body, whole."""

    status: int
    body: bytes


class Line:
    """The connections to one server.

    A write never goes out on a kept one: it may be dead, and a write on it would be in doubt.
    """

    def __init__(self, *, tls: ssl.SSLContext | None, proxy: str | None, timeout: float) -> None:
        self._tls = tls
        self._proxy = proxy
        self._timeout = timeout
        self._limit = timeout * 2 + 1  # `timeout` is for connecting and for each read; this for the whole
        self._sessions: dict[bool, aiohttp.ClientSession] = {}
        self._closed = False

    async def carry(self, parcel: Parcel) -> Answer:
        """Send it, and wait for the answer. Raises `NeverLeft` and `AnswerLost`."""
        if self._closed:
            raise NeverLeft("not sent, for we are closing")
        timeout = aiohttp.ClientTimeout(
            total=self._limit,
            connect=parcel.patience(self._limit),
            sock_connect=self._timeout,
            sock_read=self._timeout,
        )
        _leave_by.set(parcel.leave_by)
        try:
            async with self._session(write=parcel.write).request(
                parcel.method,
                # Without a name and a password in it: the token says who we are.
                yarl.URL(parcel.url, encoded=True).with_user(None),
                headers={"Accept-Encoding": "identity", **parcel.headers},
                data=None if parcel.body is None else json.dumps(parcel.body).encode(),
                allow_redirects=False,  # a redirect is an answer
                proxy=self._proxy,
                timeout=timeout,
            ) as response:
                return await self.answered(parcel, response)
        except NOT_CONNECTED as exc:
            raise NeverLeft(f"cannot connect ({_name(exc)})") from exc
        except (aiohttp.ClientError, ValueError) as exc:
            raise AnswerLost(f"no answer ({_name(exc)})") from exc
        except TimeoutError as exc:
            raise AnswerLost(f"no answer within {self._limit:g} s") from exc
        except OSError as exc:
            raise AnswerLost(f"no answer ({_name(exc)})") from exc

    async def answered(self, parcel: Parcel, response: aiohttp.ClientResponse) -> Answer:
        """The answer, of which the head is here."""
        return Answer(response.status, await response.read())

    async def aclose(self) -> None:
        """Hang up."""
        self._closed = True
        for session in self._sessions.values():
            await session.close()

    def _session(self, *, write: bool) -> aiohttp.ClientSession:
        if write not in self._sessions:  # a session belongs to the loop that runs
            ssl_of = True if self._tls is None else self._tls
            self._sessions[write] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=AT_ONCE, ssl=ssl_of, force_close=write),
                cookie_jar=aiohttp.DummyCookieJar(),
                request_class=Timely,
                middlewares=(_once,),
                max_line_size=LONGEST_LINE,
                max_field_size=LONGEST_LINE,
            )
        return self._sessions[write]


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """By itself aiohttp sends a GET or a DELETE again whose answer was lost: it does not know this error."""
    try:
        return await handler(request)
    except NOT_CONNECTED:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as exc:
        raise AnswerLost(f"no answer ({_name(exc)})") from exc


def _name(exc: BaseException) -> str:
    return type(exc.__cause__ or exc).__name__


def tls_of(url: str, verify: bool | str) -> ssl.SSLContext | None:
    """How to speak TLS with this server; None when it is not https. `verify` may be a CA file's path."""
    if urlsplit(url).scheme != "https":
        return None
    context = ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
