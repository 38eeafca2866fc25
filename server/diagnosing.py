"""Puts together who names the cause: memory, knowledge, and the language model when one is configured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pydantic import SecretStr

from graph.errors import SettingsInvalid
from server.settings import Settings
from tools.diagnosis import Case, Diagnostician
from tools.gateway import AirflowGateway
from tools.knowledge import KnowledgeBase, KnowledgeDiagnostician
from tools.llm import ModelDiagnostician
from tools.llm_endpoint import ModelSettings, open_model
from tools.llm_tools import ReadOnlyTool
from tools.llm_usage import Price
from tools.memory import Memory, Remembering

SOURCE_CHARS = 6000  # of a DAG's source that the model may read


@asynccontextmanager
async def open_diagnostician(
    settings: Settings, *, memory: Memory, airflow: AirflowGateway, knowledge: Diagnostician | None = None
) -> AsyncIterator[Diagnostician]:
    """Memory, then knowledge, then the model; without a model it is knowledge and memory alone."""
    knowledge = knowledge or KnowledgeDiagnostician(KnowledgeBase.load(settings.knowledge))
    chosen = model_settings(settings)
    if chosen is None:
        yield Remembering(knowledge, memory)
        return
    async with open_model(chosen) as endpoint:
        model = ModelDiagnostician(knowledge, endpoint, chosen, tools=read_only(airflow))
        yield Remembering(knowledge, memory, model=model)


def model_settings(settings: Settings) -> ModelSettings | None:
    """The model's settings; None when no model is named. `SettingsInvalid` when they are half given."""
    if settings.llm_model is None:
        return None
    if settings.llm_api_key is None and settings.llm_base_url is None:
        raise SettingsInvalid(
            "AIRMEDIC_LLM_MODEL is set: AIRMEDIC_LLM_API_KEY or AIRMEDIC_LLM_BASE_URL is missing"
        )
    prices = {}
    if settings.llm_price_input is not None and settings.llm_price_output is not None:
        prices[settings.llm_model] = Price(input=settings.llm_price_input, output=settings.llm_price_output)
    return ModelSettings(
        model=settings.llm_model,
        # Endpoints on one's own machine often want none, and the client insists on one.
        api_key=settings.llm_api_key or SecretStr("none"),
        base_url=settings.llm_base_url,
        prices=prices,
    )


def read_only(airflow: AirflowGateway) -> tuple[ReadOnlyTool, ...]:
    """What the model may look at beyond the log. It names no target: the incident does."""

    async def dag_source(case: Case) -> str:
        if case.task is None:
            return "not known"
        return (await airflow.dag_source(case.task.task.dag_id))[:SOURCE_CHARS]

    async def history(case: Case) -> str:
        lines = [f"{one.task.run_id}: {one.state}, try {one.try_number}" for one in case.context.history]
        return "\n".join(lines) or "no other runs"

    async def siblings(case: Case) -> str:
        return "\n".join(str(one.task) for one in case.context.siblings) or "nothing else failed"

    return (
        ReadOnlyTool("dag_source", "The source of the DAG file of the failed task.", dag_source),
        ReadOnlyTool("task_history", "How the same task ended in other runs, newest first.", history),
        ReadOnlyTool("sibling_failures", "What else failed in the same minutes.", siblings),
    )
