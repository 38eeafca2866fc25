"""The second reader: what it reads, what its file holds, and when it may change an answer."""

from __future__ import annotations

from pathlib import Path

import pytest

from graph.domain import RootCause, TaskLog
from graph.errors import KnowledgeInvalid
from tools import evidence
from tools.diagnosis import Case
from tools.knowledge import KnowledgeBase, entries, learned
from tools.knowledge.lexicon import Lexicon
from tools.knowledge.pooling import Pool, rows

FULL, LOCKED = RootCause.STORAGE_EXHAUSTED, RootCause.LOCK_CONTENTION


@pytest.fixture(scope="module")
def base() -> KnowledgeBase:
    return KnowledgeBase.load()


def failed(message: str, *before: str) -> Case:
    said = "".join(f"[2026-03-02T04:10:04.000000Z] {line}\n" for line in before)
    end = "[2026-03-02T04:10:05.000000Z] ERROR - Task failed with exception\n"
    return Case(log=TaskLog(text=f"{said}{end}{message}"))


def test_a_file_holds_what_was_learned(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    learned_rows = {"full": (1.0, [2.0, -1.0]), "held": (1.0, [-1.0, 2.0])}
    path.write_bytes(learned.pack([FULL.value, LOCKED.value], [0.0, 0.1], learned_rows))

    margins = learned.load(path).margins({"full": 1.0, "unheard": 1.0})

    assert margins[FULL] == pytest.approx(2.0, abs=0.02)
    assert margins[LOCKED] == pytest.approx(-0.9, abs=0.02)


@pytest.mark.parametrize("data", [b"", b"no weights", b"AML1"], ids=["empty", "strange", "cut off"])
def test_a_broken_file_is_told_by_name(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(data)

    with pytest.raises(KnowledgeInvalid, match=r"weights\.bin"):
        learned.load(path)


def test_the_failure_and_what_stood_open_are_read() -> None:
    case = failed("OuterError: gave up", "ERROR - the volume is full")

    read = learned.passages(evidence.read(case.log))

    assert any(passage.text.startswith("OuterError: gave up") for passage in read)
    assert any("volume is full" in passage.text for passage in read)
    assert all(0 < passage.weight <= 1 for passage in read)


def test_words_pairs_and_concepts_are_features() -> None:
    lexicon = Lexicon.load(entries.load().causes)

    found = learned.features([learned.Passage(1, "quota exceeded 12345", 0.5)], lexicon)

    assert {"quota", "quota exceeded", "excee*", "#exceeded"} <= found.keys()
    assert "12345" not in found
    assert max(found.values()) == 0.5


def test_what_both_readers_say_is_likelier(base: KnowledgeBase) -> None:
    pool = Pool.load()
    alone = pool.chances([], {FULL: 0.6, LOCKED: 0.1})
    apart = pool.chances([], {FULL: 0.1, LOCKED: 0.6})

    assert alone[FULL] > 0.5 > apart[FULL]
    assert sum(alone.values()) == pytest.approx(1)
    assert rows([], {FULL: 0.6, LOCKED: 0.1})[FULL][:4] == (0.0, 0.0, 0.0, 0.0)


def test_what_only_words_say_is_cited_told_and_believed_less(base: KnowledgeBase) -> None:
    said = base.diagnose(Case(log=TaskLog(text="FluxError: credential of the caller lapsed")))

    assert said.root_cause is RootCause.AUTHENTICATION_FAILED
    assert said.confidence <= 0.85
    assert said.evidence[0].text.startswith("FluxError")
    assert "no entry knows it" in said.summary


def test_what_only_words_hint_at_is_not_said(base: KnowledgeBase) -> None:
    said = base.diagnose(Case(log=TaskLog(text="FluxError: Kontingent erschöpft, quota ausgebucht")))

    assert said.root_cause is RootCause.UNKNOWN
    assert said.ruled_out
