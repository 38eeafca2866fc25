"""`airmedic serve`: the service, its API and its driver in one process, until Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvicorn

from graph.errors import SettingsInvalid
from server.access.entry import check_exposure_with_tokens, start_warnings
from server.app import ServiceFactory, create_app
from server.embedded import EmbeddedServer
from server.logs import open_logs
from server.loop import run as run_loop
from server.loop import settle_heap
from server.service import Service, open_service
from server.settings import Settings

GRACE = 5  # seconds that open requests have at the end
BACKLOG = 2048

log = structlog.get_logger("serve")


def bind(host: str, port: int) -> socket.socket:
    """The listening socket. Raises `SettingsInvalid` when the address cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as exc:
        raise SettingsInvalid(f"AIRMEDIC_HOST is {host!r}, which is no address: {exc}") from exc
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as exc:
        listening.close()
        raise SettingsInvalid(
            f"cannot listen on {host} port {port} (AIRMEDIC_HOST, AIRMEDIC_PORT): {exc.strerror}"
        ) from exc
    listening.setblocking(False)
    return listening


def address_of(listening: socket.socket) -> str:
    """The URL under which the socket answers."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def local(address: str) -> str:
    """The address as a program on this machine reaches it, for a socket that listens everywhere."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")


async def serve(
    settings: Settings,
    *,
    say: Callable[[str], None],
    service_factory: ServiceFactory = open_service,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve until a signal, or until `stop` when given. An `AirmedicError` says why it cannot start."""
    await check_exposure_with_tokens(settings)
    listening = bind(settings.host, settings.port)
    try:
        # Opened here, not by uvicorn: a start that fails ends with its sentence, not with a trace.
        async with service_factory(settings) as service:
            await _run(service, listening, say=say, stop=stop)
    finally:
        listening.close()


async def _run(
    service: Service, listening: socket.socket, *, say: Callable[[str], None], stop: asyncio.Event | None
) -> None:
    @asynccontextmanager
    async def opened(_settings: Settings) -> AsyncIterator[Service]:
        yield service

    settings = service.settings
    address = address_of(listening)
    app = create_app(settings, service_factory=opened)
    if settings.console:
        from gradio_ui.app import mount  # some megabytes that a server without the console does without

        mount(app, api_url=local(address))
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = EmbeddedServer(config)
    console = f", console: {address}/console" if settings.console else ""
    say(f"Airmedic at {address} (API: {address}/docs{console}), healing: {settings.healing}")
    say(f"Airflow {settings.airflow_id!r} at {str(settings.airflow_url).rstrip('/')}")
    for warning in start_warnings(settings, stored=await service.tokens.exist()):
        say(f"note: {warning}")
    with _on_signals(server) if stop is None else _on_event(server, stop):
        log.info("serving", address=address, healing=settings.healing)
        settle_heap()
        await server.serve(sockets=[listening])
    log.info("stopped")


@contextmanager
def _on_event(server: EmbeddedServer, stop: asyncio.Event) -> Iterator[None]:
    async def wait() -> None:
        await stop.wait()
        server.should_exit = True

    waiting = asyncio.create_task(wait())
    try:
        yield
    finally:
        waiting.cancel()


@contextmanager
def _on_signals(server: EmbeddedServer) -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends politely, a second one at once."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM)
    for one in signals:
        loop.add_signal_handler(one, server.handle_exit, one, None)
    try:
        yield
    finally:
        for one in signals:
            loop.remove_signal_handler(one)


def run(settings: Settings, *, say: Callable[[str], None]) -> None:
    """Serve with logs to the file and the terminal."""
    with open_logs(settings.log_file, terminal=sys.stderr):
        run_loop(serve(settings, say=say))
