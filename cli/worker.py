"""`airmedic worker`: drives incidents beside other processes on one Postgres, without an HTTP server."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable

import structlog

from graph.errors import SettingsInvalid
from server.ground import owner_name
from server.logs import open_logs
from server.loop import run as run_loop
from server.loop import settle_heap
from server.service import open_service
from server.settings import Settings

log = structlog.get_logger("worker")


async def work(settings: Settings, *, say: Callable[[str], None], stop: asyncio.Event) -> None:
    """Work until `stop`. Raises `SettingsInvalid` for a database that one process has for itself."""
    if settings.database_url.startswith("sqlite"):
        raise SettingsInvalid(
            "AIRMEDIC_DATABASE_URL is a SQLite file, which `airmedic serve` drives by itself: workers need a "
            "postgresql:// database (`airmedic migrate --from sqlite:///…` carries what is there over)"
        )
    async with open_service(settings):
        say(f"Airmedic worker {owner_name()}, healing: {settings.healing}")
        log.info("working", owner=owner_name())
        settle_heap()
        await stop.wait()
    log.info("stopped")


async def _until_signal(settings: Settings, say: Callable[[str], None]) -> None:
    stop = asyncio.Event()
    for one in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(one, stop.set)
    await work(settings, say=say, stop=stop)


def run(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Work until Ctrl-C or SIGTERM, with logs to the file and the terminal."""
    with open_logs(settings.log_file, terminal=sys.stderr):
        run_loop(_until_signal(settings, say))
