"""OpenTelemetry spans: intake, each node, each call to Airflow, each call to the model.

All spans of one incident are one trace, over restarts and processes: its trace id follows from its number.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import datetime
from importlib.metadata import version
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult
from langgraph.errors import GraphBubbleUp
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from graph.domain import TaskRef
from graph.errors import AirmedicError
from server.record import Occurrence
from server.settings import Settings
from tools.gateway import AirflowGateway
from tools.redaction import redact

FLUSH = 5_000  # milliseconds that the last spans have at the end
# The span that what happens now belongs to, and the trace that a new root begins; of each task its own.
_inside: ContextVar[Span | None] = ContextVar("airmedic_span", default=None)
_trace: ContextVar[int | None] = ContextVar("airmedic_trace", default=None)


class IncidentIds(RandomIdGenerator):
    """Random ids, but for the traces of incidents."""

    def generate_trace_id(self) -> int:
        """The trace that was asked for, else a new one."""
        wanted = _trace.get()
        return super().generate_trace_id() if wanted is None else wanted


class OtelSpans:
    """Begins and ends spans."""

    def __init__(self, tracer: Tracer, *, of: str) -> None:
        """`of`: which installation, so that two of them share no trace."""
        self._tracer = tracer
        self._of = of
        self.callbacks: Sequence[BaseCallbackHandler] = (GraphSpans(self),)

    def trace_of(self, incident_id: int | str) -> int:
        """The trace of an incident."""
        return int.from_bytes(hashlib.sha256(f"{self._of}/{incident_id}".encode()).digest()[:16], "big")

    def begin(
        self,
        name: str,
        attributes: Mapping[str, str | int],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: Span | None = None,
    ) -> Span:
        """A span inside another one, the present one when none is named."""
        parent = parent or _inside.get()
        context = None if parent is None else set_span_in_context(parent)
        return self._tracer.start_span(name, context, kind, attributes=attributes)

    def begin_trace(self, name: str, incident_id: int | str, *, start: datetime | None = None) -> Span:
        """A span at the top of the incident's trace."""
        token = _trace.set(self.trace_of(incident_id))
        try:
            attributes = {"airmedic.incident": str(incident_id)}
            began = None if start is None else int(start.timestamp() * 1e9)
            return self._tracer.start_span(name, Context(), attributes=attributes, start_time=began)
        finally:
            _trace.reset(token)

    def opened(self, occurrence: Occurrence, incident_id: int) -> None:
        """From the moment the failure came in until its incident took it up."""
        span = self.begin_trace("intake", incident_id, start=occurrence.received_at)
        span.set_attributes({"airmedic.door": occurrence.door.value, **_task_words(occurrence.task)})
        span.end()

    def watch_airflow(self, airflow: AirflowGateway) -> AirflowGateway:
        """The same Airflow, each call that belongs to an incident in a span."""
        watched: Any = WatchedAirflow(airflow, self)
        found: AirflowGateway = watched
        return found


def _task_words(task: TaskRef) -> dict[str, str | int]:
    return {
        "airmedic.dag_id": task.dag_id,
        "airmedic.run_id": task.run_id,
        "airmedic.task_id": task.task_id,
        "airmedic.map_index": task.map_index,
    }


def _failed(span: Span, exc: BaseException) -> None:
    """Its kind, and what it says without secrets; never a stack with values in it."""
    span.set_attribute("error.type", type(exc).__name__)
    span.set_status(Status(StatusCode.ERROR, redact(str(exc))[:500]))


class WatchedAirflow:
    """An `AirflowGateway` in front of another one. What belongs to no incident (the poll) makes no spans."""

    def __init__(self, airflow: AirflowGateway, spans: OtelSpans) -> None:
        self._airflow = airflow
        self._spans = spans

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._airflow, name)
            if not iscoroutinefunction(found) or name == "aclose":
                return found

            @functools.wraps(found)
            async def watched(*args: Any, **given: Any) -> Any:
                if _inside.get() is None:
                    return await found(*args, **given)
                return await self._call(name, found, args, given)

            return watched

    async def _call(self, name: str, found: Any, args: Any, given: Any) -> Any:
        words = _task_words(args[0]) if args and isinstance(args[0], TaskRef) else {}
        span = self._spans.begin(f"airflow.{name}", words, kind=SpanKind.CLIENT)
        if "dry_run" in given:
            span.set_attribute("airmedic.dry_run", given["dry_run"])
        try:
            return await found(*args, **given)
        except (AirmedicError, asyncio.CancelledError) as exc:
            _failed(span, exc)
            raise
        finally:
            span.end()


class GraphSpans(BaseCallbackHandler):
    """Hears from LangGraph of each run and node, and from LangChain of each call to the model."""

    run_inline = True  # in the task that goes on: what it does then is inside the span

    def __init__(self, spans: OtelSpans) -> None:
        self._spans = spans
        self._open: dict[UUID, Span] = {}

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **given: Any,
    ) -> None:
        """A run of the graph, or one of its nodes; what LangGraph wraps around them is left out."""
        told, name = metadata or {}, str(given.get("name") or "")
        if parent_run_id is None and "thread_id" in told:
            span = self._spans.begin_trace("heal", str(told["thread_id"]))
        elif name and name == told.get("langgraph_node"):
            span = self._spans.begin(
                f"node.{name}", {"airmedic.node": name}, parent=self._span(parent_run_id)
            )
        else:
            return
        self._open[run_id] = span
        _inside.set(span)  # its end is told in another task, so nobody takes this back

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **given: Any) -> None:
        """It ended."""
        self._end(run_id)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It failed; or it waits, which LangGraph tells the same way."""
        if (span := self._span(run_id)) is not None:
            if isinstance(error, GraphBubbleUp):
                span.set_attribute("airmedic.waits", True)
            else:
                _failed(span, error)
        self._end(run_id)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **given: Any,
    ) -> None:
        """A call to the model; its words stay here."""
        model = str((metadata or {}).get("ls_model_name") or "")
        words = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.request.model": model,
        }
        inside, name = self._span(parent_run_id), f"chat {model}".strip()
        self._open[run_id] = self._spans.begin(name, words, kind=SpanKind.CLIENT, parent=inside)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **given: Any) -> None:
        """It answered; what it took is told."""
        if (span := self._span(run_id)) is not None:
            for answer in (one for several in response.generations for one in several):
                used = getattr(getattr(answer, "message", None), "usage_metadata", None) or {}
                for name in ("input_tokens", "output_tokens"):
                    span.set_attribute(f"gen_ai.usage.{name}", int(used.get(name, 0)))
        self._end(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **given: Any) -> None:
        """It did not answer."""
        if (span := self._span(run_id)) is not None:
            _failed(span, error)
        self._end(run_id)

    def _span(self, run_id: UUID | None) -> Span | None:
        return None if run_id is None else self._open.get(run_id)

    def _end(self, run_id: UUID) -> None:
        if (span := self._open.pop(run_id, None)) is not None:
            span.end()


@asynccontextmanager
async def open_spans(settings: Settings) -> AsyncIterator[OtelSpans]:
    """Spans go where OpenTelemetry's own variables say, in the background; the last ones at the end."""
    named = {"service.name": "airmedic", "service.version": version("airmedic")}
    resource = Resource(named).merge(Resource.create({"airmedic.airflow": settings.airflow_id}))
    provider = TracerProvider(id_generator=IncidentIds(), resource=_named(resource))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    of = f"{settings.airflow_id} {settings.airflow_url} {settings.database_url}"
    try:
        yield OtelSpans(provider.get_tracer("airmedic"), of=of)
    finally:
        await asyncio.to_thread(provider.force_flush, FLUSH)
        await asyncio.to_thread(provider.shutdown)


def _named(resource: Resource) -> Resource:
    """OTEL_SERVICE_NAME wins; without it the SDK would call us unknown_service."""
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        return resource.merge(Resource({"service.name": "airmedic"}))
    return resource
