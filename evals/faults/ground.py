"""The bench's ground: one Airflow and its world for all faults, a fresh Airmedic beside it for each.

Airmedic logs in under a name of its own, so Airflow's audit log tells its writes from everybody else's.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

from evals.faults.sandbox import Sandbox, free_port, open_sandbox
from evals.faults.stage import Stage, serving, stage_settings
from evals.faults.world import FEED, PIPELINE, Layout, World, open_world
from graph.errors import SandboxFailed
from server.app import create_app
from server.demo.source import SourceServer, SourceState
from server.settings import Settings

MEDIC = "airmedic"  # Airmedic's name in Airflow
WATCH = timedelta(seconds=5)
POLL = timedelta(seconds=1)
PATIENT = timedelta(minutes=10)  # before a task that waits counts as stuck: many may wait for few workers


class Front:
    """What answers at Airmedic's address: the Airmedic of the moment, or nobody who takes what is sent.

    Without it the plugin would keep the failures of the symptom proofs, and tell them to the next Airmedic.
    """

    def __init__(self) -> None:
        self.app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise SandboxFailed("only HTTP is answered here")
        if self.app is not None:
            await self.app(scope, receive, send)
            return
        while (await receive()).get("more_body"):
            continue
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@dataclass(frozen=True)
class Ground:
    """Everything that stays the same from fault to fault."""

    layout: Layout
    world: World
    sandbox: Sandbox
    front: Front
    port: int  #: of the front
    secret: str
    password: str  #: Airmedic's
    databases: Path

    @property
    def url(self) -> str:
        """Airmedic's address, as the plugin knows it."""
        return f"http://127.0.0.1:{self.port}"

    def settings(self, name: str, changes: Mapping[str, object]) -> Settings:
        """Settings of the Airmedic of one fault: its own database, healing on, a short watch."""
        database = self.databases / f"{name}.db"
        for file in (database, *(database.with_name(f"{database.name}{end}") for end in ("-wal", "-shm"))):
            file.unlink(missing_ok=True)
        demo = stage_settings(self.layout, self.sandbox, port=self.port, secret=self.secret)
        return Settings.model_validate(
            {
                **demo.model_dump(),
                "airflow_username": MEDIC,
                "airflow_password": self.password,
                "watch_window": WATCH,
                "poll_interval": POLL,
                "stuck_after": PATIENT,
                "database_url": f"sqlite:///{database}",
                "log_file": self.databases / f"{name}.log",
                **changes,
            }
        )


@asynccontextmanager
async def open_ground(root: Path, *, progress: Callable[[str], None]) -> AsyncIterator[Ground]:
    """Start Airflow and the world; end all of it whatever happens. `root` is kept between runs."""
    layout = Layout(root).make()
    more_dags = layout.add_bench_dags()
    port = free_port()
    secret = "whsec_" + secrets.token_urlsafe(24).replace("-", "A").replace("_", "B")
    env = layout.env(airmedic_url=f"http://127.0.0.1:{port}", secret=secret)
    env["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = f"admin:admin,{MEDIC}:admin"
    databases = root / "airmedic"
    databases.mkdir(exist_ok=True)
    front = Front()
    async with AsyncExitStack() as stack:
        source = await stack.enter_async_context(SourceServer(SourceState()))
        await stack.enter_async_context(serving(front, port=port))
        sandbox = await stack.enter_async_context(
            open_sandbox(
                home=root / "airflow", dags=layout.dags, plugins=layout.plugins, env=env, progress=progress
            )
        )
        for dag_id in (PIPELINE, FEED, *more_dags):
            await sandbox.wait_dag(dag_id)
        world = await stack.enter_async_context(open_world(layout, source, sandbox))
        world.more_dags = more_dags
        password = _password(sandbox.home / "passwords.json")
        await world.prepare()
        yield Ground(layout, world, sandbox, front, port, secret, password, databases.resolve())


def _password(path: Path) -> str:
    """Airflow made the password of a user it did not know yet, and keeps it in this file."""
    known = json.loads(path.read_text())
    if MEDIC not in known:
        raise SandboxFailed(f"Airflow made no password for {MEDIC!r}")
    return str(known[MEDIC])


@asynccontextmanager
async def open_airmedic(ground: Ground, name: str, **changes: object) -> AsyncIterator[Stage]:
    """An Airmedic that knows nothing yet, answering at the front until the block is left."""
    app = create_app(ground.settings(name, changes))
    async with app.router.lifespan_context(app):
        ground.front.app = app
        try:
            yield Stage(ground.world, ground.sandbox, app.state.service, ground.url, ground.layout)
        finally:
            ground.front.app = None
