"""The HTTP application: `create_app(settings)`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from graph.domain import Role
from server.access.doorkeeper import Doorkeeper
from server.access.entry import caller, check_exposure_with_tokens, cors_origins, local_hosts, require
from server.access.idempotency import Idempotency
from server.access.limits import Bodies, Envelope, Fence, Gate, Senders
from server.chat.chat import open_chat
from server.demo.source import SourceState, employees_router
from server.examples import add_examples
from server.observe.metrics import Metrics
from server.observe.pulse import Pulse
from server.problems import Problem, add_problem_handlers, documented
from server.routes import chat, control, decisions, demo, desk, health, incidents, me, overview, webhook
from server.service import Service, open_service
from server.settings import Settings

ServiceFactory = Callable[[Settings], AbstractAsyncContextManager[Service]]

DESCRIPTION = """The on-call medic for Apache Airflow. Errors are RFC 9457 `application/problem+json`;
every answer carries `x-request-id`. A write with an `Idempotency-Key` is done once: the same request again
gets the first one's answer, for a day."""

CALLER_HEADERS = (
    "authorization",
    "content-type",
    "idempotency-key",
    "if-match",
    "last-event-id",
    "x-request-id",
)
SHOWN_HEADERS = ("etag", "idempotency-replayed", "retry-after", "x-request-id")


class Application(FastAPI):
    """FastAPI, but for events: they are taken before its machinery, which costs more than storing them.

    A page in a browser has an origin, and goes the long way. What was taken is answered without the headers
    that only a browser heeds: writing them costs as much as storing the event.
    """

    lane: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.lane is None or not webhook.is_plain_event(scope):
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.lane(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """The document at `/openapi.json`, with an example of each answer."""
        if self.openapi_schema is None:
            add_examples(super().openapi())
        return super().openapi()


def create_app(
    settings: Settings,
    *,
    service_factory: ServiceFactory = open_service,
    source: SourceState | None = None,
) -> FastAPI:
    """The API on a service that opens and closes with the application.

    Raises `SettingsInvalid`, here or when it opens.
    """
    doorkeeper, origins, bodies = Doorkeeper(settings), cors_origins(settings), Bodies()
    senders = Senders(hosts=local_hosts(settings), origins=frozenset(origins))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await check_exposure_with_tokens(settings)
        async with service_factory(settings) as service:
            app.state.service = service
            app.state.pulse = Pulse(service)
            app.state.metrics = Metrics(service, app.state.pulse)
            async with open_chat(service, app.state.pulse) as app.state.chat:
                yield
        await doorkeeper.close()

    app = Application(
        generate_unique_id_function=lambda route: route.name,
        title="Airmedic",
        version=version("airmedic"),
        description=DESCRIPTION,
        lifespan=lifespan,
        responses={500: {"model": Problem, **documented(500)[500]}},
    )
    app.state.doorkeeper = doorkeeper
    _add_routes(app, demo_source=(source or SourceState()) if settings.demo else None)
    add_problem_handlers(app)
    _add_middleware(app, senders=senders, bodies=bodies, origins=origins)
    app.lane = Envelope(webhook.Lane(senders=senders, bodies=bodies), browsers=False)
    return app


def _add_routes(app: FastAPI, *, demo_source: SourceState | None) -> None:
    api = APIRouter(prefix="/api", dependencies=[Depends(caller)], responses=documented(401, 403, 421, 429))
    parts = (overview, incidents, decisions, control, desk, me, chat)
    for part in (one.router for one in parts):
        api.include_router(part)
    if demo_source is not None:
        api.include_router(demo.router)
        # The pipeline of the demo reads this one, from the source's own port: here people look at it.
        app.include_router(
            employees_router(demo_source),
            dependencies=[Depends(require(Role.VIEWER))],
            responses=documented(401, 403, 421, 422, 429),
        )
    for router in (webhook.router, api, health.router):
        app.include_router(router)


def _add_middleware(app: FastAPI, *, senders: Senders, bodies: Bodies, origins: tuple[str, ...]) -> None:
    """The last one added is the outermost."""
    app.add_middleware(Idempotency)
    app.add_middleware(Gate, bodies=bodies)
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=CALLER_HEADERS,
            expose_headers=SHOWN_HEADERS,
        )
    app.add_middleware(Fence, senders=senders)
    app.add_middleware(Envelope)
