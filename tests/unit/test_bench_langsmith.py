"""The fault bench as a LangSmith experiment, on a scripted local endpoint: nothing leaves this machine."""

from __future__ import annotations

from collections import Counter

import pytest

from cli.eval_faults import Where, _experiment
from evals.faults.langsmith_run import dataset_name, experiment
from evals.langsmith_run import LangSmithUnavailable
from tests.unit.test_bench import make_result
from tests.unit.test_langsmith_run import scripted

RESULTS = [
    make_result("F01"),
    make_result("F01", repetition=2, objections=("ended as escalated, not healed",)),
    make_result("F26"),
    make_result("F26", repetition=2),
]


async def test_an_experiment_scores_every_repetition_of_every_fault() -> None:
    with scripted() as (script, client):
        name = await experiment(client, dataset_name("real"), RESULTS)

        scores = Counter((one["key"], float(one["score"])) for one in script.feedback)
        assert name.startswith("airmedic-faults-real")
        assert {one["inputs"]["fault"] for one in script.examples.values()} == {"F01", "F26"}
        assert scores["as_the_catalogue_says", 1.0] == 3
        assert scores["as_the_catalogue_says", 0.0] == 1
        assert scores["root_cause", 1.0] == 4


async def test_a_second_run_updates_the_dataset_and_does_not_double_it() -> None:
    with scripted() as (script, client):
        first = await experiment(client, dataset_name("memory"), RESULTS)
        again = await experiment(client, dataset_name("memory"), RESULTS[:1])

        assert first != again
        assert len(script.examples) == 2


async def test_a_broken_langsmith_is_told() -> None:
    with scripted() as (script, client):
        script.broken = True
        with pytest.raises(LangSmithUnavailable):
            await experiment(client, dataset_name("real"), RESULTS)


async def test_without_a_key_nothing_is_asked_of_anybody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("LANGSMITH_API_KEY", raising=False)
    with scripted() as (script, client):
        monkeypatch.setenv("LANGSMITH_ENDPOINT", str(client.api_url))
        await _experiment(RESULTS, Where.REAL)

        assert script.calls == []
    assert "nothing was sent" in capsys.readouterr().out
