"""The same target and scorers as a LangSmith experiment. Only with a key: without one nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from langsmith import Client
from langsmith.utils import LangSmithError

from evals.cases import EvalCase
from evals.scorers import Prediction, cites_existing_lines, right
from graph.errors import AirmedicError
from tools.diagnosis import Diagnostician

Evaluator = Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], dict[str, Any]]


class LangSmithUnavailable(AirmedicError):
    """LangSmith did not take the experiment; the figures of our own loop stand."""

    retryable = True


def dataset_name(path: Path) -> str:
    """One dataset per file of cases."""
    return f"airmedic-diagnosis-{path.stem}"


async def experiment(
    client: Client, name: str, cases: Sequence[EvalCase], diagnostician: Diagnostician
) -> str:
    """Create or update the dataset, run the experiment in it, and return the experiment's name."""
    loop = asyncio.get_running_loop()

    def target(inputs: dict[str, Any]) -> dict[str, Any]:
        case = EvalCase.model_validate(inputs)
        asked = case.to_case()
        answering = diagnostician.diagnose(asked)
        diagnosis = asyncio.run_coroutine_threadsafe(answering, loop).result()
        return Prediction.of(case.id, diagnosis, asked.log.text).model_dump(mode="json")

    def work() -> str:
        try:
            examples = [_example(name, case) for case in cases if case.labelled]
            upload(client, name, examples, about="Failed Airflow tasks with their root causes")
            results = client.evaluate(
                target, data=name, evaluators=list(EVALUATORS), experiment_prefix=name, max_concurrency=0
            )
        except LangSmithError as exc:
            raise LangSmithUnavailable(f"LangSmith: {exc}") from exc
        return str(getattr(results, "experiment_name", name))

    return await asyncio.to_thread(work)


def upload(client: Client, name: str, examples: Sequence[dict[str, Any]], *, about: str) -> None:
    """Bring the dataset up to date. Examples have stable ids: a second run updates, it doubles nothing."""
    if not client.has_dataset(dataset_name=name):
        client.create_dataset(name, description=about)
    known = {example.id for example in client.list_examples(dataset_name=name)}
    fresh = [one for one in examples if one["id"] not in known]
    changed = [one for one in examples if one["id"] in known]
    if fresh:
        client.create_examples(dataset_name=name, examples=fresh)
    if changed:
        client.update_examples(dataset_name=name, updates=changed)


def _example(name: str, case: EvalCase) -> dict[str, Any]:
    asked = case.to_case()
    labels = case.model_dump(
        mode="json", include={"root_cause", "alt_root_cause", "transient", "remediation", "decisive"}
    )
    inputs: dict[str, Any] = {"id": case.id, "log": asked.log.text, "log_content": list(asked.log.content)}
    if case.task_instance is not None:
        inputs["task_instance"] = case.task_instance.model_dump(mode="json")
    return {"id": uuid5(NAMESPACE_URL, f"{name}/{case.id}"), "inputs": inputs, "reference_outputs": labels}


def _labelled(inputs: dict[str, Any], reference_outputs: dict[str, Any]) -> EvalCase:
    return EvalCase.model_validate({**inputs, **reference_outputs})


def root_cause_right(
    inputs: dict[str, Any], outputs: dict[str, Any], reference_outputs: dict[str, Any]
) -> dict[str, Any]:
    """Strictly the label."""
    case, said = _labelled(inputs, reference_outputs), Prediction.model_validate(outputs)
    return {"key": "root_cause", "score": right(case, said, lenient=False)}


def root_cause_defensible(
    inputs: dict[str, Any], outputs: dict[str, Any], reference_outputs: dict[str, Any]
) -> dict[str, Any]:
    """The label or the other defensible one."""
    case, said = _labelled(inputs, reference_outputs), Prediction.model_validate(outputs)
    return {"key": "root_cause_lenient", "score": right(case, said, lenient=True)}


def transient_right(
    inputs: dict[str, Any], outputs: dict[str, Any], reference_outputs: dict[str, Any]
) -> dict[str, Any]:
    """Whether a retry would help."""
    return {"key": "transient", "score": outputs["transient"] == reference_outputs.get("transient")}


def lines_exist(
    inputs: dict[str, Any], outputs: dict[str, Any], reference_outputs: dict[str, Any]
) -> dict[str, Any]:
    """Every quoted line is in the log."""
    said = Prediction.model_validate(outputs)
    return {"key": "cited", "score": cites_existing_lines(str(inputs.get("log", "")), said)}


EVALUATORS: tuple[Evaluator, ...] = (root_cause_right, root_cause_defensible, transient_right, lines_exist)
