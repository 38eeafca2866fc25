"""The fault bench as a LangSmith experiment: the same results, scored by the same figures.

Faults take minutes and need an Airflow of their own, so they are played first; the experiment's target hands
out what each fault did. Only with a key: without one nothing is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from langsmith import Client
from langsmith.utils import LangSmithError

from evals.faults.catalogue import CATALOGUE, FaultRow, causes
from evals.faults.results import Result, action_is_right, cause_is_right
from evals.langsmith_run import Evaluator, LangSmithUnavailable, upload
from graph.domain import Outcome


def dataset_name(airflow: str) -> str:
    """One dataset for the catalogue, whichever Airflow it is played on."""
    return f"airmedic-faults-{airflow}"


async def experiment(client: Client, name: str, results: Sequence[Result]) -> str:
    """Create or update the dataset, run the experiment in it, and return the experiment's name."""
    repetitions = max((one.repetition for one in results), default=1)
    left = {fault: [one for one in results if one.fault == fault] for fault in {one.fault for one in results}}

    def target(inputs: dict[str, Any]) -> dict[str, Any]:
        played = left[inputs["fault"]]
        # Asked once for each repetition.
        return (played.pop(0) if len(played) > 1 else played[0]).model_dump(mode="json", exclude={"story"})

    def work() -> str:
        try:
            examples = [_example(name, CATALOGUE[fault]) for fault in sorted(left)]
            upload(client, name, examples, about="Faults of an Airflow pipeline, and how each must end")
            ran = client.evaluate(
                target,
                data=[
                    one
                    for one in client.list_examples(dataset_name=name)
                    if one.inputs is not None and one.inputs["fault"] in left
                ],
                evaluators=list(EVALUATORS),
                experiment_prefix=name,
                max_concurrency=0,
                num_repetitions=repetitions,
            )
        except LangSmithError as exc:
            raise LangSmithUnavailable(f"LangSmith: {exc}") from exc
        return str(getattr(ran, "experiment_name", name))

    return await asyncio.to_thread(work)


def _example(name: str, row: FaultRow) -> dict[str, Any]:
    wanted = row.model_dump(mode="json", include={"ends_as", "actions", "mode", "data"})
    return {
        "id": uuid5(NAMESPACE_URL, f"{name}/{row.id}"),
        "inputs": {"fault": row.id, "title": row.title},
        "reference_outputs": {**wanted, "causes": [cause.value for cause in causes(row)]},
    }


def _score(key: str, holds: Callable[[Result], bool]) -> Evaluator:
    def evaluator(
        inputs: dict[str, Any], outputs: dict[str, Any], reference_outputs: dict[str, Any]
    ) -> dict[str, Any]:
        return {"key": key, "score": holds(Result.model_validate(outputs))}

    evaluator.__name__ = key
    return evaluator


def _healed(result: Result) -> bool:
    """The data check passes where the row can heal; elsewhere nothing was claimed."""
    claims = result.outcome is Outcome.HEALED
    return claims and result.data_agrees if Outcome.HEALED in result.row.ends_as else not claims


def _ends_right(result: Result) -> bool:
    return (result.outcome in result.row.ends_as) if result.row.ends_as else result.outcome is None


EVALUATORS: tuple[Evaluator, ...] = (
    _score("as_the_catalogue_says", lambda one: one.right),
    _score("root_cause", cause_is_right),
    _score("right_action", action_is_right),
    _score("harmless", lambda one: not one.harmful),
    _score("verified_heal", _healed),
    _score("ends_right", _ends_right),
)
