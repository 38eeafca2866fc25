"""The HTTP application: `create_app(settings)`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from server.access import answered_hosts, caller, check_exposure
from server.limits import Envelope, Gate
from server.problems import Problem, add_problem_handlers, documented
from server.pulse import Pulse
from server.routes import control, decisions, health, incidents, overview, webhook
from server.service import Service, open_service
from server.settings import Settings

ServiceFactory = Callable[[Settings], AbstractAsyncContextManager[Service]]

DESCRIPTION = """The on-call medic for Apache Airflow. Errors are RFC 9457 `application/problem+json`;
every answer carries `x-request-id`."""


def create_app(settings: Settings, *, service_factory: ServiceFactory = open_service) -> FastAPI:
    """The API on a service that opens and closes with the application. Raises `SettingsInvalid`."""
    check_exposure(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service_factory(settings) as service:
            app.state.service = service
            app.state.pulse = Pulse(service)
            yield

    app = FastAPI(
        title="Airmedic",
        version=version("airmedic"),
        description=DESCRIPTION,
        lifespan=lifespan,
        responses={500: {"model": Problem, **documented(500)[500]}},
    )
    api = APIRouter(prefix="/api", dependencies=[Depends(caller)])
    for part in (overview.router, incidents.router, decisions.router, control.router):
        api.include_router(part)
    for router in (webhook.router, api, health.router):
        app.include_router(router)
    add_problem_handlers(app)
    # The last one added is the outermost.
    app.add_middleware(Gate, hosts=answered_hosts(settings))
    app.add_middleware(Envelope)
    return app
