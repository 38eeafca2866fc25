"""How Airmedic is run for a row: in this process, cut off from Airflow, or killed again and again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from evals.faults.catalogue import FaultRow
from evals.faults.ground import Ground, open_airmedic
from evals.faults.relay import is_clear, open_relay
from evals.faults.sandbox import ROOT, free_port
from evals.faults.stage import Stage
from graph.errors import SandboxFailed
from server.record import IncidentDetail
from server.service import Service, open_service
from server.settings import Settings

LOOKED_FOR = timedelta(seconds=2)  # between two rounds of the watch for missed intervals
STUCK = timedelta(seconds=15)  # where a task is to be found that never starts
AWAY = 30.0  # seconds Airflow's API is not there
OPENS_AFTER = 1  # failed heals; three plans are tried in each
START = 60.0  # seconds until `airmedic serve` answers
LOOK = 0.05  # seconds between two looks for a moment to kill
DOWN = 0.5  # seconds a killed Airmedic stays down
NOT_CALLED = 0.1  # seconds

SHIPPED_POLICY = ROOT / "tools" / "policy_default.yaml"

Moment = Callable[[IncidentDetail], bool]


def _told(name: str) -> Moment:
    return lambda detail: any(event.name == name for event in detail.events)


# Killed once at each: known, diagnosed and waiting, in the middle of the write, applied, being verified.
MOMENTS: tuple[Moment, ...] = (
    _told("opened"),
    _told("decided"),
    lambda detail: any(entry.action.name == "clear_task" for entry in detail.ledger),
    _told("fix_applied"),
    _told("checked"),
)


@asynccontextmanager
async def open_medic(ground: Ground, row: FaultRow, *, name: str) -> AsyncIterator[Stage]:
    """The Airmedic that this row needs, with a database of its own."""
    if row.id == "F41":
        async with (
            open_relay(ground.sandbox.port, cut_on=is_clear, away=AWAY) as relay,
            open_airmedic(ground, name, airflow_url=f"http://127.0.0.1:{relay.port}") as stage,
        ):
            yield stage
            if not relay.cuts:
                raise SandboxFailed("Airflow was never away: no clear came through the relay")
    elif row.id == "F42":
        async with _open_killed(ground, name) as stage:
            yield stage
    else:
        async with open_airmedic(ground, name, **changes_for(row, ground.databases)) as stage:
            yield stage


def changes_for(row: FaultRow, folder: Path) -> dict[str, Any]:
    """Settings that only this row needs."""
    if row.id == "F24":
        return {"stuck_after": STUCK}
    if row.id == "F36":
        return {"policy": _quick_breaker(folder)}
    return {"watch_interval": LOOKED_FOR} if row.id == "F47" else {}


def _quick_breaker(folder: Path) -> Path:
    """The policy that ships, with a breaker that opens after one failed heal of a DAG instead of three."""
    shipped = SHIPPED_POLICY.read_text("utf-8")
    changed = shipped.replace("failed_heals_per_dag: 3", f"failed_heals_per_dag: {OPENS_AFTER}")
    if changed == shipped:
        raise SandboxFailed("the policy that ships names no breaker")
    file = folder / "policy_quick_breaker.yaml"
    file.write_text(changed, "utf-8")
    return file


@asynccontextmanager
async def _open_killed(ground: Ground, name: str) -> AsyncIterator[Stage]:
    """`airmedic serve` in a process of its own; we only read its database."""
    settings = ground.settings(name, {"port": free_port()})
    url = f"http://127.0.0.1:{settings.port}"
    async with (
        open_service(settings, background=False) as service,
        httpx.AsyncClient(base_url=url, timeout=10, trust_env=False) as http,
    ):
        medic = MedicProcess(settings, http, log=ground.databases / f"{name}.serve.log")
        await medic.start()
        killing = asyncio.create_task(kill_at_each(MOMENTS, medic, service))
        ground.front.app = medic.forward
        try:
            yield Stage(ground.world, ground.sandbox, service, ground.url, ground.layout)
            if not killing.done():
                raise SandboxFailed(f"Airmedic was killed {medic.kills} times, not {len(MOMENTS)}")
            await killing
        finally:
            ground.front.app = None
            killing.cancel()
            await asyncio.gather(killing, return_exceptions=True)
            await medic.kill()


async def kill_at_each(moments: tuple[Moment, ...], medic: MedicProcess, service: Service) -> None:
    """Kill it as soon as each moment has come, and start it again."""
    for moment in moments:
        await _wait_for(moment, service)
        await medic.kill()
        await asyncio.sleep(DOWN)
        await medic.start()


async def _wait_for(moment: Moment, service: Service) -> None:
    while True:
        found = await service.store.incidents()
        if found and moment(await service.store.detail(found[-1].id)):
            return
        await asyncio.sleep(LOOK)


class MedicProcess:
    """`airmedic serve`: started, killed and started again on the same database."""

    def __init__(self, settings: Settings, http: httpx.AsyncClient, *, log: Path) -> None:
        self.kills = 0
        self._http = http
        self._log = log
        self._env = {**_machine(), **environment(settings), "PYTHONPATH": str(ROOT)}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Return when it answers."""
        command = "from cli.main import app; app()"
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-c",
                command,
                "serve",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._log.parent,
                env=self._env,
                start_new_session=True,
            )
        try:
            async with asyncio.timeout(START):
                while not await self._answers():
                    if self._process.returncode is not None:
                        raise SandboxFailed(f"Airmedic ended at its start; see {self._log}")
                    await asyncio.sleep(NOT_CALLED)
        except TimeoutError as exc:
            raise SandboxFailed(f"Airmedic does not answer {START:.0f} s after its start") from exc

    async def _answers(self) -> bool:
        with suppress(httpx.TransportError):
            return (await self._http.get("/healthz")).is_success
        return False

    async def kill(self) -> None:
        """kill -9, to it and to whatever it started."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
            self.kills += 1

    async def forward(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a delivery on; nobody answers while it is down."""
        request = Request(scope, receive)
        passed = {name: value for name, value in request.headers.items() if name not in ("host",)}
        try:
            answer = await self._http.request(
                request.method, request.url.path, content=await request.body(), headers=passed
            )
            response = Response(answer.content, answer.status_code)
        except httpx.TransportError:
            response = Response(status_code=503)
        await response(scope, receive, send)


def environment(settings: Settings) -> dict[str, str]:
    """The settings as `airmedic serve` reads them."""
    named = {
        "AIRFLOW_URL": settings.airflow_url,
        "AIRFLOW_USERNAME": settings.airflow_username,
        "AIRFLOW_PASSWORD": settings.airflow_password,
        "AIRFLOW_ID": settings.airflow_id,
        "HEALING": settings.healing,
        "ENVIRONMENT": settings.environment,
        "WATCH_WINDOW": f"PT{settings.watch_window.total_seconds():g}S",
        "POLL_INTERVAL": f"PT{settings.poll_interval.total_seconds():g}S",
        "STUCK_AFTER": f"PT{settings.stuck_after.total_seconds():g}S",
        "DATABASE_URL": settings.database_url,
        "WEBHOOK_SECRET": settings.webhook_secret,
        "LOG_FILE": settings.log_file,
        "PORT": settings.port,
        "CONSOLE": "false",
    }
    return {f"AIRMEDIC_{name}": _plain(value) for name, value in named.items() if value is not None}


def _plain(value: object) -> str:
    reveal = getattr(value, "get_secret_value", None)
    return str(reveal() if reveal else value)


def _machine() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
