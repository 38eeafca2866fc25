"""Requests to Airflow's REST API: tokens, time limits, retries, and the one edge where errors are translated.

The generated client builds each request. Its answer models are not used: one unknown enum value would lose an
answer. Requests travel on the event loop (`tools.airflow_line`), through the proxy that the client finds in
the environment.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from graph.errors import (
    AirflowDoubt,
    AirflowError,
    AirflowRefused,
    AirflowUnreachable,
    Conflict,
    InvalidRequest,
    NotAuthenticated,
    NotFound,
    NotPermitted,
    SettingsInvalid,
)
from tools.airflow_auth import AIRFLOW_2, TokenSource
from tools.airflow_client_core import ApiClient, Configuration, should_bypass_proxies
from tools.airflow_line import Answer, AnswerLost, Line, NeverLeft, Parcel, tls_of
from tools.leaving import answered, leave_by
from tools.redaction import redact

T = TypeVar("T")
Query = Sequence[tuple[str, str]]

READERS = 4  # threads that long answers are worked on in
READ_TRIES = 3
FIRST_PAUSE = 0.2  # seconds before a read is tried again; doubles, jittered
SHORT = 4000  # characters that are worked on at once: going to a thread and back would take as long
DETAIL = 300  # characters of Airflow's explanation that go into an error

REFUSALS: dict[int, type[AirflowError]] = {
    400: InvalidRequest,
    401: NotAuthenticated,
    403: NotPermitted,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    429: AirflowUnreachable,
}


@dataclass(frozen=True)
class Call:
    """One request, before it has a token."""

    action: str  #: what it is for, in words: errors begin with it
    method: str
    path: str  #: with `{name}` for each of `names`
    names: dict[str, str]
    query: Query = ()
    body: dict[str, Any] | None = None
    write: bool = False


class AirflowHttp:
    """A connection to one Airflow; the only place that knows HTTP."""

    def __init__(
        self,
        url: str,
        tokens: TokenSource,
        *,
        verify: bool | str = True,
        timeout: float = 10.0,
        pause: float = FIRST_PAUSE,
    ) -> None:
        """Raises `SettingsInvalid` when the environment's proxy cannot be used."""
        self._tokens = tokens
        self._pause = pause
        configuration = Configuration(host=url.rstrip("/"))
        self._line = Line(tls=tls_of(url, verify), proxy=_proxy(configuration), timeout=timeout)
        self._client = ApiClient(configuration)
        self._threads = ThreadPoolExecutor(READERS, thread_name_prefix="airflow")

    async def ask(self, call: Call, into: Callable[[Any], T]) -> T:
        """Send it and translate the answer; what changes nothing is tried again while Airflow is away."""
        for attempt in range(1, READ_TRIES + 1):
            try:
                return await self._once(call, into)
            except AirflowUnreachable:
                if call.write or attempt == READ_TRIES:
                    raise
                await asyncio.sleep(self._pause * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))
        raise AssertionError("unreachable")

    async def run(self, work: Callable[[], T], *, size: int) -> T:
        """Work on a text of so many characters without holding up the event loop."""
        if size <= SHORT:
            return work()
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def aclose(self) -> None:
        """Close connections; a request that still hangs ends by its own time limit."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._line.aclose()

    async def _once(self, call: Call, into: Callable[[Any], T]) -> T:
        token = await self._tokens.token()
        answer = await self._send(call, token)
        if _token_refused(answer):
            other = await self._tokens.renew(token)
            if other is not None:
                answer = await self._send(call, other)
        if _token_refused(answer):
            raise NotAuthenticated(f"{call.action}: Airflow does not accept our token")
        if not 200 <= answer.status < 300:
            raise _refusal(call, answer)
        try:
            return into(_json(answer))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
            raise _lost(call)(f"{call.action}: the answer is not what Airflow 3 sends") from exc

    async def _send(self, call: Call, token: str) -> Answer:
        try:
            answer = await self._line.carry(self._parcel(call, token))
        except NeverLeft as exc:
            raise AirflowUnreachable(f"{call.action}: {exc}") from exc
        except AnswerLost as exc:
            raise _lost(call)(f"{call.action}: {exc}") from exc
        answered()
        return answer

    def _parcel(self, call: Call, token: str) -> Parcel:
        headers = {"Accept": "application/json", "Authorization": f"Bearer {token}"}
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        method, url, sent, body, _ = self._client.param_serialize(
            call.method,
            f"/api/v2{call.path}",
            path_params=call.names,
            query_params=list(call.query),
            header_params=headers,
            body=call.body,
            auth_settings=[],
        )
        return Parcel(method, url, sent, body, leave_by=leave_by() if call.write else None, write=call.write)


def _proxy(configuration: Configuration) -> str | None:
    """The one that the environment names for this host. Raises `SettingsInvalid`."""
    proxy: str | None = configuration.proxy
    if not proxy or should_bypass_proxies(configuration.host, configuration.no_proxy or ""):
        return None
    if proxy.lower().startswith("socks"):
        raise SettingsInvalid(
            "the environment names a SOCKS proxy, which Airflow cannot be reached through: name one that "
            "speaks HTTP, or list Airflow's host in NO_PROXY"
        )
    return proxy


def _json(answer: Answer) -> Any:
    return json.loads(answer.body) if answer.body else None


def _detail(answer: Answer) -> str:
    """Airflow's explanation, shortened; empty when the body is not Airflow's JSON."""
    try:
        told = _json(answer)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    return redact(told if isinstance(told, str) else json.dumps(told))[:DETAIL]


def _token_refused(answer: Answer) -> bool:
    """Airflow says 401 to a token that expired and 403 to one it cannot read."""
    return answer.status == 401 or (answer.status == 403 and "JWT" in _detail(answer))


def _lost(call: Call) -> type[AirflowUnreachable]:
    return AirflowDoubt if call.write else AirflowUnreachable


def _refusal(call: Call, answer: Answer) -> AirflowError:
    said, detail = f"{call.action}: HTTP {answer.status}", _detail(answer)
    if detail:
        said = f"{said}: {detail}"
    if answer.status >= 500:
        return _lost(call)(said)
    if answer.status < 400:
        return AirflowUnreachable(f"{said}: a redirect, which is not followed")
    if answer.status == 404 and not detail and not answer.body.lstrip().startswith(b"{"):
        return AirflowRefused(f"{said}: no Airflow 3 API at this address; if {AIRFLOW_2}")
    return REFUSALS.get(answer.status, AirflowRefused)(said)
