"""Is a dependency back? Asked only of the places an administrator named, never of one that a log names."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal
from urllib.parse import urlsplit

import httpx
from pydantic import Field

from graph.domain import DomainType
from graph.errors import SettingsInvalid

TIMEOUT = 3.0  # seconds
PORTS = {"http": 80, "https": 443}


class Probe(DomainType):
    """One place that can be asked: a TCP port, or an HTTP address that must answer below 500."""

    scheme: Literal["tcp", "http", "https"]
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    path: str = "/"

    @property
    def url(self) -> str:
        """As it was configured."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        place = f"{self.scheme}://{host}:{self.port}"
        return place if self.scheme == "tcp" else place + self.path


class Reading(DomainType):
    """What one look at a dependency found."""

    probe: str
    up: bool
    detail: str


def parse_probes(text: str) -> tuple[Probe, ...]:
    """`host:port`, `tcp://host:port` or an HTTP URL, separated by commas. Raises `SettingsInvalid`."""
    return tuple(_parse(part.strip()) for part in text.split(",") if part.strip())


def _parse(text: str) -> Probe:
    given = text if "://" in text else f"tcp://{text}"
    try:
        parts = urlsplit(given)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as exc:
        raise SettingsInvalid(f"AIRMEDIC_PROBES: {text!r} is no address: {exc}") from exc
    if parts.scheme not in ("tcp", *PORTS) or not parts.hostname or not port or parts.username:
        raise SettingsInvalid(
            f"AIRMEDIC_PROBES: {text!r} is neither host:port nor http(s)://host[:port]/path without a login"
        )
    scheme: Literal["tcp", "http", "https"] = parts.scheme  # type: ignore[assignment]
    return Probe(scheme=scheme, host=parts.hostname, port=port, path=parts.path or "/")


class Probes:
    """The configured probes, found by the host that a failure is about."""

    def __init__(self, probes: Sequence[Probe] = (), *, timeout: float = TIMEOUT) -> None:
        self._probes = tuple(probes)
        self._timeout = timeout

    async def look(self, hosts: Sequence[str]) -> Reading | None:
        """The first probe of these hosts that is down, else the first that is up; None when none is named."""
        wanted = {host.casefold() for host in hosts}
        readings = await asyncio.gather(
            *(self._ask(one) for one in self._probes if one.host.casefold() in wanted)
        )
        return min(readings, key=lambda one: one.up, default=None)

    async def _ask(self, probe: Probe) -> Reading:
        try:
            async with asyncio.timeout(self._timeout):
                detail = await (_knock(probe) if probe.scheme == "tcp" else _get(probe))
        except TimeoutError:
            return Reading(probe=probe.url, up=False, detail=f"no answer within {self._timeout:g} s")
        except (OSError, httpx.HTTPError) as exc:
            return Reading(probe=probe.url, up=False, detail=str(exc) or type(exc).__name__)
        return Reading(probe=probe.url, up=not detail.startswith("HTTP 5"), detail=detail)


async def _knock(probe: Probe) -> str:
    _, writer = await asyncio.open_connection(probe.host, probe.port)
    writer.close()
    return "the port is open"


async def _get(probe: Probe) -> str:
    # Environment proxies and redirects would lead to places nobody configured.
    async with (
        httpx.AsyncClient(trust_env=False, follow_redirects=False) as client,
        client.stream("GET", probe.url) as answer,
    ):
        return f"HTTP {answer.status_code}"
