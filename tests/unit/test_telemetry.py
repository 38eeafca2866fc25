"""Traces: one per incident from intake to Airflow and the model; nothing unless asked; no secret in any."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langsmith.utils import get_env_var

from graph.domain import Door
from server.events import TaskEvent
from server.observe.telemetry import (
    ENDPOINTS,
    LANGSMITH,
    NoSpans,
    open_telemetry,
    wants_langsmith,
    wants_spans,
)
from server.people.notifier import SilentNotifier
from server.service import Service, open_service
from tests.openai_server import Completion, ScriptedOpenAI
from tests.unit.collectors import Collector, open_collector, words_of
from tests.unit.serving import Wall, make_settings, no_sleep
from tools.airflow_memory import MemoryAirflow, TaskSpec, Try

SECRET = "hunter2secret"
ODD = f"the moon was in the wrong house\nwidget frobnicator said no, password={SECRET}\n"
REPLY = f'{{"root_cause": "unknown", "why": "token=ghp_{"a1B2" * 9} password={SECRET}"}}'


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*ENDPOINTS, *LANGSMITH, "LANGSMITH_API_KEY", "LANGSMITH_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with open_collector() as collector:
        yield collector


@asynccontextmanager
async def failing(folder: Path) -> AsyncIterator[Service]:
    """A service with a scripted model, and a failure that knowledge has no name for."""
    airflow = MemoryAirflow(clock=Wall())
    airflow.add_dag("orders", [TaskSpec("load", [Try(state="failed", log=ODD)])])
    with ScriptedOpenAI(Completion(REPLY, usage=(1200, 40))) as model:
        settings = make_settings(folder, llm_model="some", AIRMEDIC_LLM_BASE_URL=model.base_url)
        async with open_service(
            settings,
            airflow=airflow,
            notifier=SilentNotifier(),
            clock=Wall(),
            sleep=no_sleep,
            background=False,
        ) as service:
            airflow.start("orders", "run_1")
            await airflow.settle()
            event = TaskEvent(event="task_instance_failed", dag_id="orders", run_id="run_1", task_id="load")
            await service.intake.deliver(event, door=Door.LISTENER)
            await service.intake.admit()
            await service.runner.settle_all()
            yield service


async def test_an_incident_is_one_trace(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    async with failing(tmp_path):
        pass

    spans = {span.name: span for span in collector.spans}
    by_id = {span.span_id: span.name for span in collector.spans}
    assert {
        "intake",
        "heal",
        "node.monitor",
        "node.diagnose",
        "node.human",
        "airflow.log",
        "chat some",
    } <= set(spans)
    assert len({span.trace_id for span in collector.spans}) == 1
    parents = {name: by_id.get(span.parent_span_id, "") for name, span in spans.items()}
    assert (parents["intake"], parents["heal"]) == ("", "")
    assert parents["node.diagnose"] == "heal"
    assert parents["airflow.log"] == "node.diagnose"
    assert parents["chat some"] == "node.diagnose"
    assert words_of(spans["intake"])["airmedic.door"] == "listener"
    assert words_of(spans["airflow.log"])["airmedic.dag_id"] == "orders"
    assert words_of(spans["chat some"])["gen_ai.usage.input_tokens"] == 1200
    assert all(span.status.code != span.status.STATUS_CODE_ERROR for span in spans.values())


async def test_spans_hold_no_words_of_logs_or_prompts(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)

    async with failing(tmp_path):
        pass

    assert collector.spans
    for planted in (SECRET, "frobnicator", "ghp_"):
        assert planted.encode() not in collector.everything


def _forget_environment() -> None:
    """LangSmith reads its variables once."""
    getattr(get_env_var, "cache_clear")()  # noqa: B009  its type does not say that it caches


async def test_langsmith_gets_the_run_without_its_secrets(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGSMITH_TRACING", "true")
    monkeypatch.setenv("LANGSMITH_ENDPOINT", collector.url)
    monkeypatch.setenv("LANGSMITH_API_KEY", "lsv2_pt_scripted")
    _forget_environment()
    try:
        async with failing(tmp_path):
            pass
    finally:
        _forget_environment()

    assert b"diagnose" in collector.everything
    assert b"frobnicator" in collector.everything
    for planted in (SECRET, "ghp_a1B2"):
        assert planted.encode() not in collector.everything


async def test_without_the_variables_nothing_is_watched(tmp_path: Path) -> None:
    airflow = MemoryAirflow()

    async with open_telemetry(make_settings(tmp_path), {}) as spans:
        assert spans == NoSpans()
        assert spans.watch_airflow(airflow) is airflow
        callbacks: list[BaseCallbackHandler] = list(spans.callbacks)
        assert callbacks == []


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        pytest.param({}, False, id="nothing is set"),
        pytest.param({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True, id="an endpoint"),
        pytest.param({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, True, id="one for traces"),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False, id="disabled"
        ),
        pytest.param(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"}, False, id="no traces"
        ),
    ],
)
def test_open_telemetry_follows_its_own_variables(environ: dict[str, str], wanted: bool) -> None:
    assert wants_spans(environ) is wanted


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [({}, False), ({"LANGSMITH_TRACING": "false"}, False), ({"LANGSMITH_TRACING": "true"}, True)],
)
def test_langsmith_follows_its_own_variables(environ: dict[str, str], wanted: bool) -> None:
    assert wants_langsmith(environ) is wanted
