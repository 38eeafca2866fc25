"""Airmedic as its users meet it: over HTTP, served in this process or by `airmedic serve` in another."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import httpx

from graph.domain import Outcome
from server.schemas import IncidentDetailOut

LOOK = 0.1  # seconds
START = 30.0  # seconds
AIRMEDIC = Path(sys.executable).with_name("airmedic")

Wanted = Callable[[IncidentDetailOut], bool]


class Api:
    """Airmedic's HTTP API."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def incidents(self, run_id: str) -> list[IncidentDetailOut]:
        """Every incident of one run, oldest first."""
        listed = (await self.http.get("/api/incidents")).raise_for_status().json()["items"]
        numbers = sorted(one["id"] for one in listed if one["task"]["run_id"] == run_id)
        return [await self.incident(number) for number in numbers]

    async def incident(self, number: int) -> IncidentDetailOut:
        answer = (await self.http.get(f"/api/incidents/{number}")).raise_for_status()
        return IncidentDetailOut.model_validate(answer.json())

    async def wait(self, run_id: str, wanted: Wanted, *, within: float) -> IncidentDetailOut:
        """Wait until the run's incident is as wanted."""
        seen: list[IncidentDetailOut] = []
        try:
            async with asyncio.timeout(within):
                while not (seen and wanted(seen[-1])):
                    await asyncio.sleep(LOOK)
                    seen = await self.incidents(run_id)
        except TimeoutError as exc:
            events = [(event.name, event.data) for one in seen for event in one.events]
            raise AssertionError(f"not within {within:g} s: {events}") from exc
        return seen[-1]

    async def every(self) -> list[IncidentDetailOut]:
        """Every incident, oldest first."""
        listed = (await self.http.get("/api/incidents")).raise_for_status().json()["items"]
        return [await self.incident(number) for number in sorted(one["id"] for one in listed)]

    async def only(self, wanted: Wanted, *, within: float) -> IncidentDetailOut:
        """Wait until the one incident that did not join another is as wanted."""
        seen: list[IncidentDetailOut] = []
        try:
            async with asyncio.timeout(within):
                while not (len(seen) == 1 and wanted(seen[0])):
                    await asyncio.sleep(LOOK)
                    seen = [one for one in await self.every() if one.outcome is not Outcome.JOINED]
        except TimeoutError as exc:
            events = [(one.id, event.name, event.data) for one in seen for event in one.events]
            raise AssertionError(f"not within {within:g} s: {events}") from exc
        return seen[0]

    async def decide(self, number: int, **body: object) -> httpx.Response:
        """Answer the incident's question."""
        return await self.http.post(f"/api/incidents/{number}/decision", json=body)


@asynccontextmanager
async def open_api(url: str) -> AsyncIterator[Api]:
    async with httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as http:
        yield Api(http)


class MedicProcess:
    """`airmedic serve`, started, killed and started again on the same database."""

    def __init__(self, settings: Mapping[str, str], *, port: int, home: Path, api: Api) -> None:
        self.api = api
        self._home = home
        kept = {
            name: os.environ[name] for name in ("PATH", "HOME", "LANG", "PYTHONPATH") if name in os.environ
        }
        self._env = {**kept, **settings, "AIRMEDIC_PORT": str(port)}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        with (self._home / "serve.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                str(AIRMEDIC),
                "serve",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._home,
                env=self._env,
                start_new_session=True,
            )
        async with asyncio.timeout(START):
            while not await self._answers():
                assert self._process.returncode is None, (self._home / "serve.log").read_text()[-2000:]
                await asyncio.sleep(LOOK)

    async def _answers(self) -> bool:
        try:
            return (await self.api.http.get("/healthz")).is_success
        except httpx.TransportError:
            return False

    async def kill(self) -> None:
        """kill -9, to it and to whatever it started."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


@asynccontextmanager
async def open_medic_process(
    settings: Mapping[str, str], *, port: int, home: Path
) -> AsyncIterator[MedicProcess]:
    """A process that is not started yet, and that is gone when the block is left."""
    async with open_api(f"http://127.0.0.1:{port}") as api:
        medic = MedicProcess(settings, port=port, home=home, api=api)
        try:
            yield medic
        finally:
            await medic.kill()
