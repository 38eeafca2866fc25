"""A user's folder extends and overrides what ships: entries, words, and what holds for a cause."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from graph.domain import Diagnosis, RootCause, TaskLog
from graph.errors import KnowledgeInvalid
from tools.diagnosis import Case
from tools.evidence import Piece
from tools.knowledge import KnowledgeBase, entries
from tools.knowledge.lexicon import Lexicon

FLUX = {"id": "flux", "cause": "lock_contention", "strength": "exact", "patterns": ["FLUX-[0-9]+"]}


def write(folder: Path, name: str, written: object) -> None:
    (folder / name).write_text(yaml.safe_dump(written))


def ask(folder: Path, error: str) -> Diagnosis:
    head = "[2026-03-02T04:00:00Z] ERROR - Task failed with exception\nTraceback (most recent call last):"
    log = f'{head}\n  File "/opt/airflow/dags/orders.py", line 12, in load\n{error}'
    return KnowledgeBase.load(folder).diagnose(Case(log=TaskLog(text=log)))


def test_an_entry_is_added(tmp_path: Path) -> None:
    write(tmp_path, "mine.yaml", {"family": "mine", "entries": [{**FLUX, "wait": 45}]})

    said = ask(tmp_path, "FluxError: FLUX-77 busy")

    assert said.root_cause is RootCause.LOCK_CONTENTION
    assert said.facts.wait == 45


def test_an_entry_of_the_same_name_takes_the_shipped_ones_place(tmp_path: Path) -> None:
    ours = {"id": "memory-py", "cause": "platform_error", "strength": "exact", "patterns": ["MemoryError"]}
    write(tmp_path, "mine.yaml", {"family": "python", "entries": [ours]})

    assert ask(tmp_path, "MemoryError").root_cause is RootCause.PLATFORM_ERROR


def test_a_shipped_entry_is_dropped(tmp_path: Path) -> None:
    before = {entry.name for entry in entries.load(tmp_path).entries}
    write(tmp_path, "mine.yaml", {"family": "mine", "drop": ["python/memory-py"]})

    assert before - {entry.name for entry in entries.load(tmp_path).entries} == {"python/memory-py"}


def test_words_join_a_concept(tmp_path: Path) -> None:
    sentence = "FluxError: Kontingent erschöpft, quota ausgebucht"
    before = ask(tmp_path, sentence)
    write(tmp_path, "_lexicon.yaml", {"concepts": {"exceeded": ["ausgebucht"]}})

    assert before.root_cause is not RootCause.RATE_LIMITED
    assert ask(tmp_path, sentence).root_cause is RootCause.RATE_LIMITED


def test_words_leave_a_concept(tmp_path: Path) -> None:
    causes = entries.load().causes
    said = Piece("line", 1, "all slots are saturated", 0.7)
    before = Lexicon.load(causes, tmp_path).read(said)
    write(tmp_path, "_lexicon.yaml", {"concepts": {"exceeded": ["-saturated"]}})

    assert [entry.cause for entry in before] == [RootCause.CAPACITY_UNAVAILABLE]
    assert Lexicon.load(causes, tmp_path).read(said) == []


def test_a_rule_is_added_with_its_own_concepts(tmp_path: Path) -> None:
    own = {
        "concepts": {"tape": ["tape", "cartridge"], "torn": ["torn", "snapped"]},
        "rules": [{"cause": "storage_exhausted", "all": ["tape", "torn"]}],
    }
    write(tmp_path, "_lexicon.yaml", own)

    assert ask(tmp_path, "FluxError: the tape has snapped").root_cause is RootCause.STORAGE_EXHAUSTED


def test_what_holds_for_a_cause_is_changed(tmp_path: Path) -> None:
    write(
        tmp_path, "_causes.yaml", {"causes": {"network_unreachable": {"wait": 77, "says": "our VPN again"}}}
    )

    said = ask(tmp_path, "ConnectionError: [Errno 111] Connection refused")

    assert said.facts.wait == 77
    assert said.summary.startswith("Our VPN again")


@pytest.mark.parametrize(
    ("name", "written", "words"),
    [
        pytest.param(
            "mine.yaml",
            {"family": "mine", "drop": ["python/no-such"]},
            ["mine.yaml", "python/no-such"],
            id="an entry to drop that does not exist",
        ),
        pytest.param(
            "mine.yaml",
            {"family": "mine", "entries": [FLUX, FLUX]},
            ["mine.yaml", "mine/flux"],
            id="an entry written twice",
        ),
        pytest.param(
            "mine.yaml",
            {"family": "mine", "entries": [{**FLUX, "wait": -1}]},
            ["mine.yaml", "'flux'", "wait"],
            id="a wait below zero",
        ),
        pytest.param(
            "_lexicon.yaml",
            {"rules": [{"cause": "timeout", "all": ["tape"]}]},
            ["_lexicon.yaml", "rule 1", "tape"],
            id="a rule over a concept that nobody defined",
        ),
        pytest.param(
            "_lexicon.yaml",
            {"rules": [{"cause": "gremlins", "all": ["disk"]}]},
            ["_lexicon.yaml", "rule 1", "cause"],
            id="a rule for an unknown cause",
        ),
        pytest.param(
            "_lexicon.yaml",
            {"concepts": {"disk": ["-floppy"]}},
            ["_lexicon.yaml", "'disk'", "floppy"],
            id="a word to leave that is not there",
        ),
        pytest.param(
            "_causes.yaml",
            {"causes": {"timeout": {"colour": "red"}}},
            ["_causes.yaml", "timeout", "colour"],
            id="an unknown key of a cause",
        ),
        pytest.param(
            "_causes.yaml", {"strengths": {"huge": 7}}, ["_causes.yaml", "huge"], id="a strength above one"
        ),
    ],
)
def test_a_malformed_file_stops_the_start(
    tmp_path: Path, name: str, written: object, words: list[str]
) -> None:
    write(tmp_path, name, written)
    with pytest.raises(KnowledgeInvalid) as caught:
        KnowledgeBase.load(tmp_path)
    for word in words:
        assert word in str(caught.value)


def test_a_folder_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(KnowledgeInvalid, match="no-such"):
        KnowledgeBase.load(tmp_path / "no-such")
