"""Teaches the second reader: `python -m evals.learning` writes `tools/knowledge/_learned.bin` anew.

It learns from labelled logs (`evals/cases`), from decisive passages of more labelled logs
(`evals/passages.jsonl`; `--add CASES.jsonl…` cuts them), and from what the knowledge base is written in: the
words of every entry's patterns and of every rule of the lexicon. The logs show how failures are told, the
entries what they are called. Printed is how many of unseen logs it names right, by cross-validation.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evals.cases import EvalCase, read_cases
from graph.domain import RootCause
from tools import evidence
from tools.knowledge import entries, learned
from tools.knowledge.learned import Passage
from tools.knowledge.lexicon import Lexicon, Rules, written
from tools.redaction import redact

HERE = Path(__file__).parent
PASSAGES = HERE / "passages.jsonl"
FOLDS = 5
OF_ENTRIES = 0.5  #: what an entry's words count beside a labelled log
AT_LEAST = 2  #: texts a pair must be in; a single word may be in one
REGULAR = 1.0
PAIRS = 15  #: examples drawn of a rule that asks for two concepts
KEPT = 0.04  #: weights below say nothing
#: what a pattern is written in beside words
_SYNTAX = re.compile(
    r"\\[bswdSWDB]|\(\?\w*:|\(\?\w+\)|\[[^\]]*\]|\{[^}]*\}|[.][*+?]|[()?+*^$]|\\"
)  # fmt: skip
MANY = 4  #: alternatives of one pattern that are read as one text


@dataclass(frozen=True, slots=True)
class Text:
    """What to learn from: passages and the cause they tell of."""

    cause: str
    read: tuple[Passage, ...]
    transient: bool
    log: bool = True  #: else words of the knowledge base
    other: str = ""  #: a second cause that is right, too


def of_case(case: EvalCase) -> Text:
    """The decisive passages of a labelled log."""
    read = learned.passages(evidence.read(case.to_case().log))
    other = case.alt_root_cause.value if case.alt_root_cause else ""
    return Text(
        case.root_cause.value if case.root_cause else "", tuple(read), bool(case.transient), other=other
    )


def logs(folder: Path = HERE) -> list[Text]:
    """Every labelled log of the project."""
    found = []
    for line in (folder / PASSAGES.name).read_text("utf-8").splitlines():
        cause, other, transient, told = json.loads(line)
        read = tuple(Passage(0, text, weight) for weight, text in told)
        found.append(Text(cause, read, transient, other=other))
    for path in sorted((folder / "cases").glob("*.jsonl")):
        found += [of_case(case) for case in read_cases(path) if case.labelled]
    return found


def add(paths: Sequence[Path], kept: Path = PASSAGES) -> int:
    """Cut the passages of more labelled logs, without what is personal or secret."""
    rows = kept.read_text("utf-8").splitlines() if kept.exists() else []
    for case in (case for path in paths for case in read_cases(path) if case.labelled):
        rows.append(row_of(of_case(case)))
    rows = list(dict.fromkeys(rows))
    kept.write_text("".join(f"{row}\n" for row in rows), "utf-8")
    return len(rows)


def row_of(text: Text) -> str:
    """A log's passages as a line of the file."""
    read = [[round(p.weight, 2), redact(p.text)] for p in text.read]
    return json.dumps([text.cause, text.other, text.transient, read], ensure_ascii=False)


def of_entries(knowledge: entries.Knowledge) -> Iterator[Text]:
    """Every pattern's words, each alternative a text of its own."""
    for pattern, owner in zip(knowledge.patterns, knowledge.owner, strict=True):
        words = _SYNTAX.sub(" ", pattern)
        parts = words.split("|") if words.count("|") < MANY else [words.replace("|", " . ")]
        entry = knowledge.entries[owner]
        for part in parts:
            yield Text(entry.cause.value, (Passage(0, part, 1.0),), entry.transient, log=False)


def of_rules(rules: Rules, causes: dict[RootCause, entries.CauseDefaults]) -> Iterator[Text]:
    """Every word of a rule's concept; of two concepts some pairs."""
    rng = random.Random(0)
    for rule in rules.rules:
        spoken = [[_plain(word) for word in rules.concepts[name]] for name in rule.all]
        told = spoken[0] if len(spoken) == 1 else [" ".join(map(rng.choice, spoken)) for _ in range(PAIRS)]
        passing = causes[rule.cause].transient
        for text in told:
            yield Text(rule.cause.value, (Passage(0, text, 1.0),), passing, log=False)


def _plain(word: str) -> str:
    return word.rstrip("*").replace("+*", "").replace("+", " ")


def _pair(feature: str) -> bool:
    return " " in feature or "+" in feature


class Taught:
    """Weights fitted on texts."""

    def __init__(self, found: Sequence[dict[str, float]], texts: Sequence[Text]) -> None:
        from sklearn.svm import LinearSVC

        spread = Counter(feature for one in found for feature in one)
        kept = sorted(f for f, count in spread.items() if count >= AT_LEAST or not _pair(f))
        self.words = {feature: column for column, feature in enumerate(kept)}
        self.rarity = {f: math.log(len(found) / spread[f]) / 6 for f in self.words}
        weights = [1.0 if text.log else OF_ENTRIES for text in texts]
        self.curve = LinearSVC(C=REGULAR, multi_class="crammer_singer", tol=1e-2, random_state=0)
        self.curve.fit(self.matrix(found), [text.cause for text in texts], sample_weight=weights)
        self.causes = [str(cause) for cause in self.curve.classes_]

    def matrix(self, found: Sequence[dict[str, float]]) -> Any:
        """One row a text, of length one."""
        from scipy.sparse import csr_matrix  # type: ignore[import-untyped]

        rows, columns, values = [], [], []
        for row, one in enumerate(found):
            known = [(self.words[f], w * self.rarity[f]) for f, w in one.items() if f in self.words]
            length = math.sqrt(sum(w * w for _, w in known)) or 1.0
            for column, weight in known:
                rows.append(row)
                columns.append(column)
                values.append(weight / length)
        return csr_matrix((values, (rows, columns)), shape=(len(found), len(self.words)))

    def margins(self, found: Sequence[dict[str, float]]) -> Any:
        """For each text, how far it is on each cause's side."""
        return self.curve.decision_function(self.matrix(found))

    def packed(self) -> bytes:
        """The file to ship."""
        matrix = self.curve.coef_.T
        rows = {}
        for feature, column in self.words.items():
            row = [float(w) if abs(w) > KEPT else 0.0 for w in matrix[column]]
            rows[feature] = (self.rarity[feature], row)
        return learned.pack(self.causes, list(self.curve.intercept_), rows)


def texts_of_knowledge(without: Sequence[str] = ()) -> list[Text]:
    """What the knowledge base says itself."""
    knowledge = entries.load()
    names = [knowledge.entries[owner].name for owner in knowledge.owner]
    kept = [n for n, name in enumerate(names) if not name.startswith(tuple(without))]
    patterns = tuple(knowledge.patterns[n] for n in kept)
    owner = tuple(knowledge.owner[n] for n in kept)
    part = entries.Knowledge(knowledge.entries, patterns, owner, knowledge.causes)
    return [*of_entries(part), *of_rules(written(), knowledge.causes)]


def crossed(texts: Sequence[Text], found: Sequence[dict[str, float]], count: int) -> tuple[list[str], Any]:
    """The margins of the first `count` logs by weights that were fitted without each and its neighbours."""
    parts, causes = [], []
    for fold in range(FOLDS):
        asked = range(count * fold // FOLDS, count * (fold + 1) // FOLDS)
        kept = [n for n in range(len(texts)) if n not in asked]
        taught = Taught([found[n] for n in kept], [texts[n] for n in kept])
        causes = taught.causes
        parts.append(taught.margins([found[n] for n in asked]))
    return causes, np.concatenate(parts)


def main() -> None:
    """Write the weights."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--add", nargs="+", type=Path, default=[], metavar="CASES")
    parser.add_argument("--unchecked", action="store_true", help="without cross-validation")
    chosen = parser.parse_args()
    if chosen.add:
        print(f"{add(chosen.add)} logs in {PASSAGES.name}")  # noqa: T201
    lexicon = Lexicon.load(entries.load().causes)
    texts = [*logs(), *texts_of_knowledge()]
    found = [learned.features(text.read, lexicon) for text in texts]
    taught = Taught(found, texts)
    learned.WEIGHTS.write_bytes(taught.packed())
    size = learned.WEIGHTS.stat().st_size // 1000
    print(f"{len(texts)} texts, {len(taught.words)} features, {size} kB")  # noqa: T201
    if not chosen.unchecked:
        causes, margins = crossed(texts, found, sum(text.log for text in texts))
        best = [causes[n] for n in margins.argmax(axis=1)]
        right = [said in (text.cause, text.other) for said, text in zip(best, texts, strict=False)]
        print(f"{sum(right) / len(right):.3f} of {len(right)} unseen logs named right")  # noqa: T201


if __name__ == "__main__":
    main()
