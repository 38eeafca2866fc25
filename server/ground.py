"""What every part of the service stands on: store, checkpoints, Airflow, audit trail, outbox."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from langgraph.checkpoint.base import BaseCheckpointSaver
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.checkpoint import open_saver
from server.audit.trail import AuditTrail
from server.db.database import open_database
from server.observe.heartbeats import Heartbeats
from server.observe.telemetry import Spans, open_telemetry
from server.people.outbox import Outbox
from server.people.people import audit_keys, make_outbox
from server.settings import Settings
from server.store import IncidentStore
from tools.airflow_rest import open_airflow
from tools.gateway import AirflowGateway
from tools.policy import Policy


def owner_name() -> str:
    """Names this process: machine, process namespace (containers count their own processes), number."""
    try:
        space = Path("/proc/self/ns/pid").readlink().name
    except OSError:
        space = ""
    return f"{socket.gethostname()}:{space}:{os.getpid()}"


def is_gone(other: str, ours: str) -> bool:
    """Whether a lease's owner was a process beside us that is no more.

    Our own name on a lease at start is that of a former life: a restarted container counts from one again.
    """
    place, _, number = other.rpartition(":")
    if other == ours:
        return True
    if place != ours.rpartition(":")[0] or not number.isdigit():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def connect(settings: Settings) -> AbstractAsyncContextManager[AirflowGateway]:
    """The gateway to the configured Airflow."""
    verify: bool | str = str(settings.airflow_ca_cert or "") or settings.airflow_verify_ssl
    return open_airflow(
        str(settings.airflow_url).rstrip("/"),
        token=settings.airflow_token.get_secret_value() if settings.airflow_token else None,
        username=settings.airflow_username,
        password=settings.airflow_password.get_secret_value() if settings.airflow_password else None,
        verify=verify,
    )


@dataclass(frozen=True)
class Ground:
    """What is opened first and closed last."""

    settings: Settings
    policy: Policy
    engine: AsyncEngine
    saver: BaseCheckpointSaver[str]
    airflow: AirflowGateway
    telemetry: Spans
    beats: Heartbeats
    audit: AuditTrail
    outbox: Outbox
    store: IncidentStore
    owner: str  #: this process, on leases and claims
    clock: Callable[[], datetime]
    background: bool  #: whether the parts do their rounds by themselves

    def is_dead(self, other: str) -> bool:
        """Whether that owner is known to be gone."""
        return is_gone(other, self.owner)


@asynccontextmanager
async def open_ground(
    settings: Settings,
    policy: Policy,
    *,
    airflow: AirflowGateway | None,
    clock: Callable[[], datetime],
    background: bool,
) -> AsyncIterator[Ground]:
    """Open it; `airflow` in place of the configured one."""
    owner = owner_name()
    async with (
        open_database(settings.database_url) as engine,
        open_saver(settings.database_url) as saver,
        connect(settings) if airflow is None else nullcontext(airflow) as gateway,
        open_telemetry(settings) as telemetry,
    ):
        watched = telemetry.watch_airflow(gateway)
        audit = AuditTrail(engine, keys=audit_keys(settings), clock=clock)
        await audit.check_key()
        outbox = make_outbox(settings, engine, airflow=watched, clock=clock, owner=owner, audit=audit)
        yield Ground(
            settings=settings,
            policy=policy,
            engine=engine,
            saver=saver,
            airflow=watched,
            telemetry=telemetry,
            beats=Heartbeats(),
            audit=audit,
            outbox=outbox,
            store=IncidentStore(engine, clock=clock, audit=audit, post=outbox),
            owner=owner,
            clock=clock,
            background=background,
        )
