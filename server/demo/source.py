"""The demo's employees service: what the demo pipeline reads, with faults that can be switched on.

It is served beside Airmedic's API for the demo, and alone by `SourceServer`, whose `stop` really closes the
socket: connections are refused until `start` opens the same port again.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from math import floor
from typing import Annotated

import uvicorn
from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field, JsonValue

from graph.domain import DomainType
from server.embedded import EmbeddedServer

EMPLOYEES = 120
REQUESTS_KEPT = 1000
START_POLL = 0.02  # seconds
STOP_GRACE = 1  # seconds for requests in flight

DEPARTMENTS = {
    "D01": "Engineering",
    "D02": "Operations",
    "D03": "Finance",
    "D04": "Sales",
    "D05": "Support",
}

_FIRST = ("Ada", "Bram", "Chen", "Dana", "Emre", "Fatou", "Goran", "Hana", "Ines", "Jonas", "Kofi", "Lena")
_LAST = ("Abel", "Bauer", "Costa", "Diaz", "Eriksen", "Fuchs", "Garcia", "Haddad", "Ito", "Jansen")

Row = dict[str, JsonValue]


class SourceFaults(DomainType):
    """What is wrong with the source. The default is a source in good health."""

    status: int | None = Field(default=None, ge=400, le=599)  #: answer this instead of data
    retry_after: int | None = None  #: seconds; the header of that answer
    slow: float = 0.0  #: seconds before each answer
    empty: bool = False
    renamed: dict[str, str] = Field(default_factory=dict)  #: column -> its new name
    extra: tuple[str, ...] = ()  #: new columns, empty in every third row
    dropped: tuple[str, ...] = ()  #: columns that are gone
    separators: bool = False  #: salaries as "50,000"
    date_format: str | None = None  #: hiring dates in this format
    lacking: str | None = None  #: a column without value in some rows
    lacking_fraction: float = Field(default=0.0, ge=0, le=1)
    duplicates: int = 0  #: rows that come twice


@dataclass(frozen=True)
class RequestSeen:
    """One request the source answered."""

    at: datetime
    path: str
    status: int


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class SourceState:
    """The source's switches and its request log."""

    faults: SourceFaults = field(default_factory=SourceFaults)
    clock: Callable[[], datetime] = _now
    requests: deque[RequestSeen] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))

    def reset(self) -> None:
        """Good health, empty log."""
        self.faults = SourceFaults()
        self.requests.clear()

    def record(self, path: str, status: int) -> None:
        """Note a request."""
        self.requests.append(RequestSeen(self.clock(), path, status))


def employee(number: int) -> Row:
    """The employee with this number; the same at every call."""
    first, last = _FIRST[number % len(_FIRST)], _LAST[number * 7 % len(_LAST)]
    return {
        "id": number,
        "name": f"{first} {last}",
        "email": f"{first}.{last}.{number}@example.com".lower(),
        "department": f"D{number % len(DEPARTMENTS) + 1:02d}",
        "salary": 40_000 + number * 137 % 500 * 100,
        "hired_on": (date(2015, 1, 1) + timedelta(days=number * 29 % 3650)).isoformat(),
    }


def healthy_rows() -> list[Row]:
    """All employees as a source in good health has them."""
    return [employee(number) for number in range(1, EMPLOYEES + 1)]


def lacks(index: int, fraction: float) -> bool:
    """Whether the row at this index is among the fraction that lacks a value; spread evenly."""
    return floor((index + 1) * fraction) > floor(index * fraction)


def rows(faults: SourceFaults) -> list[Row]:
    """All rows as the source gives them with these faults."""
    if faults.empty:
        return []
    given = healthy_rows()
    given += given[: faults.duplicates]
    return [_faulty(row, index, faults) for index, row in enumerate(given)]


def _faulty(row: Row, index: int, faults: SourceFaults) -> Row:
    changed = dict(row)
    if faults.separators:
        changed["salary"] = f"{row['salary']:,}"
    if faults.date_format:
        changed["hired_on"] = date.fromisoformat(str(row["hired_on"])).strftime(faults.date_format)
    if faults.lacking and lacks(index, faults.lacking_fraction):
        changed[faults.lacking] = None
    for name in faults.extra:
        changed[name] = None if index % 3 == 0 else f"{name} {index}"
    return {
        faults.renamed.get(name, name): value for name, value in changed.items() if name not in faults.dropped
    }


def employees_router(state: SourceState) -> APIRouter:
    """The source's two routes."""
    router = APIRouter(tags=["demo"])

    @router.get("/api/employees")
    async def employees(
        request: Request,
        limit: Annotated[int, Query(ge=1, le=1000)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> JSONResponse:
        """One page of employees, and how many there are."""
        given = rows(state.faults)
        page = {"total": len(given), "employees": given[offset : offset + limit]}
        return await _answer(state, request, page)

    @router.get("/api/departments")
    async def departments(request: Request) -> JSONResponse:
        """Department codes and their names."""
        return await _answer(state, request, {"departments": {} if state.faults.empty else DEPARTMENTS})

    return router


async def _answer(state: SourceState, request: Request, content: object) -> JSONResponse:
    faults = state.faults
    if faults.slow:
        await asyncio.sleep(faults.slow)
    status = faults.status or 200
    state.record(request.url.path, status)
    if faults.status is None:
        return JSONResponse(content)
    headers = {} if faults.retry_after is None else {"Retry-After": str(faults.retry_after)}
    return JSONResponse({"detail": "the demo source refuses"}, status_code=status, headers=headers)


def create_source(state: SourceState) -> FastAPI:
    """The source as an application of its own."""
    app = FastAPI(title="Demo employees source")
    app.include_router(employees_router(state))
    return app


class SourceServer:
    """The source on a port of this machine, in this process."""

    def __init__(self, state: SourceState, *, port: int = 0) -> None:
        self.state = state
        self.port = port
        self._server: EmbeddedServer | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        """False while connections are refused."""
        return self._serving is not None

    async def start(self) -> None:
        """Listen; on a free port the first time, on the same port after that."""
        if self.running:
            return
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        self.port = int(listening.getsockname()[1])
        config = uvicorn.Config(
            create_source(self.state),
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=STOP_GRACE,
        )
        self._server = EmbeddedServer(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[listening]))
        while not self._server.started:
            if self._serving.done():
                await self._serving
            await asyncio.sleep(START_POLL)

    async def stop(self) -> None:
        """Close the socket; from here on connections are refused."""
        if self._server is None or self._serving is None:
            return
        self._server.should_exit = True
        await self._serving
        self._server = self._serving = None

    async def __aenter__(self) -> SourceServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
