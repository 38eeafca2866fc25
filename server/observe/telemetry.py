"""Traces of what Airmedic does, for those who collect them. Off, and free, unless the environment asks.

`OTEL_EXPORTER_OTLP_ENDPOINT` sends OpenTelemetry spans there: intake, nodes, calls to Airflow, calls to the
model. `LANGSMITH_TRACING` sends LangSmith runs. What is sent holds no prompt (OpenTelemetry), or was redacted
once more on its way out (LangSmith).
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog
from langchain_core.callbacks import BaseCallbackHandler

from server.record import Occurrence
from server.settings import Settings
from tools.gateway import AirflowGateway

log = structlog.get_logger("telemetry")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
LANGSMITH = ("LANGSMITH_TRACING", "LANGSMITH_TRACING_V2", "LANGCHAIN_TRACING_V2", "LANGCHAIN_TRACING")


class Spans(Protocol):
    """Where spans go."""

    @property
    def callbacks(self) -> Sequence[BaseCallbackHandler]:
        """What the graph's runs are watched by."""

    def watch_airflow(self, airflow: AirflowGateway) -> AirflowGateway:
        """The same Airflow, each call in a span."""

    def opened(self, occurrence: Occurrence, incident_id: int) -> None:
        """An incident took this occurrence up."""


@dataclass(frozen=True)
class NoSpans:
    """Nobody collects them."""

    callbacks: Sequence[BaseCallbackHandler] = ()

    def watch_airflow(self, airflow: AirflowGateway) -> AirflowGateway:
        """It, unwatched."""
        return airflow

    def opened(self, occurrence: Occurrence, incident_id: int) -> None:
        """Nothing."""


def wants_spans(environ: Mapping[str, str]) -> bool:
    """Whether OpenTelemetry's own variables ask for traces."""
    if (
        environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
        or environ.get("OTEL_TRACES_EXPORTER") == "none"
    ):
        return False
    return any(environ.get(name) for name in ENDPOINTS)


def wants_langsmith(environ: Mapping[str, str]) -> bool:
    """Whether LangSmith's own variables ask for runs."""
    return any(environ.get(name, "").lower() == "true" for name in LANGSMITH)


@asynccontextmanager
async def open_telemetry(
    settings: Settings, environ: Mapping[str, str] | None = None
) -> AsyncIterator[Spans]:
    """What the environment asks for, sent off until the block ends."""
    environ = os.environ if environ is None else environ
    async with AsyncExitStack() as stack:
        if wants_langsmith(environ):
            from server.observe.langsmith import open_langsmith

            await stack.enter_async_context(open_langsmith())
            log.info("langsmith_tracing", project=environ.get("LANGSMITH_PROJECT", "default"))
        if not wants_spans(environ):
            yield NoSpans()
            return
        from server.observe.otel import open_spans

        spans = await stack.enter_async_context(open_spans(settings))
        log.info("opentelemetry_tracing")
        yield spans
