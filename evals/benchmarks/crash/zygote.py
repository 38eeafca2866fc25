"""A process that has imported everything and forks servers, so that one that is killed is back at once.

`python -m evals.benchmarks.crash.zygote SETTINGS`. Orders come as JSON lines on standard input; what
happened goes back as lines on standard output, the children's too. The children are what `airmedic serve`
runs: the HTTP application on the service with its driver, poll and watch, on a socket they inherit.
"""

from __future__ import annotations

import gc
import json
import mmap
import os
import random
import signal
import socket
import ssl
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import uvicorn

from evals.benchmarks.crash.mutations import MUTATIONS
from evals.benchmarks.crash.points import Plan, install
from evals.benchmarks.herd import settings_for
from evals.benchmarks.quiet import quiet
from server import hands
from server.app import create_app
from server.db import sqlite_connection
from server.embedded import EmbeddedServer
from server.loop import run as run_loop
from server.people import service as people
from server.people.notifier import SilentNotifier
from server.service import Service, open_service
from server.settings import Settings
from tools.actions import ActionCatalogue
from tools.knowledge import KnowledgeBase
from tools.policy_file import load_policy

SHARED = struct.Struct("dd")  # seconds the clock is off; pages the SQLite file may have, 0 for no limit
AT_ONCE = 8  # incidents that one process drives: each of several has some in hand
NO_LIMIT = 1_073_741_823  # pages


class Weather:
    """What the harness bends while processes run, in a file that all of them map."""

    def __init__(self, file: Path) -> None:
        if not file.exists():
            file.write_bytes(SHARED.pack(0.0, 0.0))
        with file.open("r+b") as opened:
            self._map = mmap.mmap(opened.fileno(), SHARED.size)

    @property
    def values(self) -> tuple[float, float]:
        """Offset of the clock and limit of pages."""
        offset, pages = SHARED.unpack(self._map[:])
        return offset, pages

    def bend(self, *, offset: float = 0.0, pages: int = 0) -> None:
        """Set both."""
        self._map[:] = SHARED.pack(offset, float(pages))

    def clock(self) -> datetime:
        """The injected clock."""
        return datetime.now(UTC) + timedelta(seconds=self.values[0])


@dataclass(frozen=True)
class Start:
    """What a zygote is started with."""

    home: Path
    database_url: str
    airflow_url: str
    mutation: str = ""

    def settings(self) -> Settings:
        """A watch that is over at once: incidents are short and many."""
        return settings_for(
            self.database_url,
            self.home,
            AIRMEDIC_AIRFLOW_URL=self.airflow_url,
            watch_window=0.2,
            poll_interval=2,
            watch_interval=3600,
            console=False,
            rate_webhook="off",
            rate_address="off",
        )


class Zygote:
    """Everything that is the same for every child."""

    def __init__(self, start: Start) -> None:
        self._out = os.dup(1)
        log = os.open(start.home / "service.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        quiet()
        weather = Weather(start.home / "weather")
        settings = start.settings()
        history = os.open(start.home / "history.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._plan = Plan(history=history)
        _once(KnowledgeBase, "load", KnowledgeBase.load(settings.knowledge))
        policy = load_policy(settings.policy, catalogue=ActionCatalogue.default())
        _once(people, "load_policy", policy)
        _once(ssl, "create_default_context", ssl.create_default_context())
        hands.MOST = hands.FEWEST = AT_ONCE
        install(self._plan)
        _limit_pages(weather)
        if start.mutation:
            MUTATIONS[start.mutation]()

        @asynccontextmanager
        async def opened(settings: Settings) -> AsyncIterator[Service]:
            async with open_service(settings, notifier=SilentNotifier(), clock=weather.clock) as service:
                self.say(up=os.getpid())
                yield service

        app = create_app(settings, service_factory=opened)
        self._config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
        self._config.load()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        signal.signal(signal.SIGCHLD, self._bury)
        gc.collect()
        gc.freeze()

    def say(self, **told: object) -> None:
        """One line, in one piece."""
        os.write(self._out, (json.dumps(told) + "\n").encode())

    def obey(self) -> None:
        """Fork whatever is ordered, until nobody orders any more."""
        self.say(port=self._listening.getsockname()[1])
        for line in sys.stdin:
            order = json.loads(line)
            if (child := os.fork()) == 0:
                self._live(order)
            self.say(forked=child, order=order["order"])
        os.killpg(0, signal.SIGKILL)  # the harness is gone, one way or another

    def _bury(self, _signal: int, _frame: object) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            self.say(died=child, status=status)

    def _live(self, order: dict[str, Any]) -> None:
        """The child: serve until killed."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        random.seed()
        plan, me = self._plan, os.getpid()
        plan.at, plan.signal, plan.after = order["at"], order["signal"], order["after"]
        plan.then = order["then"]
        plan.tell = lambda label: self.say(reached=label, pid=me)
        status = 1
        try:
            server = EmbeddedServer(self._config)
            run_loop(server.serve(sockets=[self._listening]))
            status = 0
        finally:
            os._exit(status)


def _once(owner: Any, name: str, result: object) -> None:
    """What costs a start most and is the same every time is made before the fork."""
    setattr(owner, name, lambda *_args, **_given: result)


def _limit_pages(weather: Weather) -> None:
    """A full disk, as SQLite sees one: the limit belongs to a connection, so each is told as it begins."""
    begin: Callable[..., Any] = sqlite_connection.Connection._begin

    async def limited(self: Any) -> None:
        pages = int(weather.values[1])
        self._conn.execute(f"PRAGMA max_page_count = {pages or NO_LIMIT}").fetchone()
        await begin(self)

    setattr(sqlite_connection.Connection, "_begin", limited)  # noqa: B010


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    Zygote(Start(**given | {"home": Path(given["home"])})).obey()
