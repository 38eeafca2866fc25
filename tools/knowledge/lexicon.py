"""Reads errors nobody told us about by their words: a subject, and what is said of it.

`AVAILABLE_CAPACITY_EXCEEDED`, `InsufficientNodeCapacity` and "not enough nodes are free" share words,
whatever printed them. The words and the rules over them are data: `_lexicon.yaml`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from graph.domain import RootCause
from graph.errors import KnowledgeInvalid
from tools.evidence import Piece
from tools.knowledge.entries import FOLDER, CauseDefaults, Entry, Strict, read_file

NAME = "_lexicon.yaml"
OF_CLASS = "class-words/"  #: an exception's class was read, not its message
READ_CHARS = 1_500  # of one piece
KNOWN_WORDS = 20_000  #: words remembered with their concepts

_SENTENCE = re.compile(r"(?<=[a-z\d\])'\"])[.;!?](?=\s|$)|\n| \| |\s--?\s|\s#+\s")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+(?:'[a-z]+)?|\d+")
_IDENTIFIER = re.compile(r"\b[A-Z][a-z]+(?:[A-Z][a-z\d]+)+\b|\b[A-Z\d]{2,}(?:_[A-Z\d]+)+\b")
_WRAPPER = re.compile(
    r"(?i)returned (?:a )?non-zero|non-zero exit|exit(?:ed)? (?:code|status)|return(?:ed)? code"
    r"|returned a failure|terminal state"
)
_DUMP = re.compile(
    r"\n?\bremote_pod: ?[{\[]|\n\{'api_version'"
)  #: a pod's whole state, printed after the message
_POOL = re.compile(
    r"\bHTTPS?ConnectionPool\([^)]*\)|\bConnection object\b"
)  #: a client's name for its target
_STATE = re.compile(r"\b(?:INTERNAL|\w*SERVER|UNKNOWN)_ERROR\b|\bInternalError\b")  #: how it ended, not why
_CLASS = re.compile(r"^(?:[\w$]+\.)*([A-Z]\w*)(?=: |$)")
#: classes of every program: their names say how it was raised, not why
_PLAIN_CLASS = re.compile(
    r"^(Key|Type|Value|Attribute|Index|Runtime|OS|IO|Lookup|Name|Assertion|Import|ModuleNotFound|Database"
    r"|Operational|Programming|Internal|Interface|Data|NotSupported|HTTP|Connection|JSONDecode|System|Syntax)Error$"
    r"|^(Airflow|Illegal|Runtime|Spark|Io|IO|SQL|Execution|Operation)?\w{0,8}Exception$"
)


class Rule(Strict):
    """A cause, and the concepts that together speak for it."""

    cause: RootCause
    all: tuple[str, ...] = Field(min_length=1, max_length=2)
    unless: tuple[str, ...] = ()
    scale: float = 1.0
    sentence: bool = True  #: else only an identifier says so: in a sentence the words name a setting


class _Strengths(Strict):
    code: float
    sentence: float
    # `class` is a word of the language
    of_class: float = Field(alias="class")


class Rules(Strict):
    """`_lexicon.yaml`."""

    concepts: dict[str, tuple[str, ...]]
    strengths: _Strengths
    gap: int
    rules: tuple[Rule, ...]


class _OwnFile(Strict):
    """A user's `_lexicon.yaml`: words join a concept or (with a leading minus) leave it; rules are added."""

    concepts: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Concept:
    """Where a concept stands in a sentence."""

    name: str
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Reading:
    """One sentence: its words, and the concepts in them."""

    words: list[str]
    concepts: list[Concept]


def written() -> Rules:
    """The shipped words and rules."""
    return read_file(FOLDER / NAME, Rules)


class Lexicon:
    """Finds causes in the words of a piece of evidence."""

    def __init__(
        self, rules: Rules, causes: dict[RootCause, CauseDefaults], own: frozenset[str] = frozenset()
    ) -> None:
        self._written = rules
        self._own = own  # concepts with words of the user
        self._causes = causes
        self._words: dict[str, list[str]] = {}
        self._stems: list[tuple[str, str]] = []
        self._phrases: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for name, words in rules.concepts.items():
            for word in words:
                self._learn(name, word)
        self._known: dict[str, tuple[str, ...]] = {}

    @classmethod
    def load(cls, causes: dict[RootCause, CauseDefaults], extra_folder: Path | None = None) -> Lexicon:
        """The shipped words, and those of the user's folder."""
        rules = written()
        own = extra_folder / NAME if extra_folder is not None else None
        own_concepts: frozenset[str] = frozenset()
        if own is not None and own.exists():
            users = read_file(own, _OwnFile)
            rules, own_concepts = _joined(rules, users, own), frozenset(users.concepts)
        _check(rules)
        return cls(rules, causes, own_concepts)

    def read(self, piece: Piece) -> list[Entry]:
        """What the words of one piece speak for, as entries of middling strength."""
        strengths = self._written.strengths
        found: dict[RootCause, tuple[float, bool, bool, bool]] = {}
        for text, strength, sentence in _readable(piece, strengths):
            for words in _sentences(text):
                concepts = self._concepts(words)
                lasting = any(c.name == "lasting" for c in concepts)
                for rule in self._rules(concepts, sentence):
                    value = strength * rule.scale
                    if value > found.get(rule.cause, (0.0,))[0]:
                        own = not self._own.isdisjoint(rule.all)
                        found[rule.cause] = value, lasting, strength == strengths.of_class, own
        return [self._entry(cause, *told) for cause, told in found.items()]

    def sentences(self, text: str) -> Iterator[Reading]:
        """All words of a text, sentence by sentence, with the concepts in them."""
        for sentence in _SENTENCE.split(text):
            words = _spelled(word.lower() for word in _WORD.findall(sentence))
            if words:
                yield Reading(words, self._concepts(words))

    def _learn(self, name: str, word: str) -> None:
        parts = tuple(_spelled(word.split("+")))
        if len(parts) > 1:
            self._phrases.setdefault(parts[0], []).append((parts, name))
        elif word.endswith("*"):
            self._stems.append((word[:-1], name))
        else:
            self._words.setdefault(word, []).append(name)

    def _concepts(self, words: list[str]) -> list[Concept]:
        found: list[Concept] = []
        for index, word in enumerate(words):
            found += [Concept(name, index, index) for name in self._of_word(word)]
            for phrase, name in self._phrases.get(word, ()):
                last = index + len(phrase) - 1
                if last < len(words) and all(map(_fits, phrase, words[index : last + 1])):
                    found.append(Concept(name, index, last))
        return found

    def _of_word(self, word: str) -> tuple[str, ...]:
        known = self._known.get(word)
        if known is None:
            stems = [name for stem, name in self._stems if word.startswith(stem)]
            known = tuple(dict.fromkeys([*self._words.get(word, ()), *stems]))
            if len(self._known) < KNOWN_WORDS:
                self._known[word] = known
        return known

    def _rules(self, concepts: list[Concept], sentence: bool) -> Iterator[Rule]:
        places: dict[str, list[Concept]] = {}
        for concept in concepts:
            places.setdefault(concept.name, []).append(concept)
        for rule in self._written.rules:
            if sentence and not rule.sentence:
                continue
            if all(name in places for name in rule.all) and not any(n in places for n in rule.unless):
                first, second = places[rule.all[0]], places[rule.all[-1]]
                if len(rule.all) == 1 or any(self._close(a, b) for a in first for b in second):
                    yield rule

    def _close(self, one: Concept, other: Concept) -> bool:
        """Apart from each other, and not by many words."""
        gap = max(one.first, other.first) - min(one.last, other.last) - 1
        return 0 <= gap <= self._written.gap

    def _entry(self, cause: RootCause, strength: float, lasting: bool, of_class: bool, own: bool) -> Entry:
        held = self._causes[cause]
        return Entry(
            name=f"{OF_CLASS if of_class else 'words/'}{cause.value}",
            cause=cause,
            strength=strength,
            transient=held.transient and not lasting,
            remediation=held.alternatives[0] if held.transient and lasting else held.remediation,
            alternatives=tuple(dict.fromkeys([held.remediation, *held.alternatives])),
            wait=held.wait,
            says=held.says,
            unless=(),
            own=own,
        )


def _joined(shipped: Rules, own: _OwnFile, path: Path) -> Rules:
    concepts = dict(shipped.concepts)
    for name, words in own.concepts.items():
        dropped = {word[1:] for word in words if word.startswith("-")}
        if unknown := dropped - set(concepts.get(name, ())):
            raise KnowledgeInvalid(f"{path.name}: concept {name!r}: has no words {sorted(unknown)}")
        kept = [word for word in concepts.get(name, ()) if word not in dropped]
        concepts[name] = (*kept, *(word for word in words if not word.startswith("-")))
    # The user's rules come first: of two that fit equally well the first counts.
    return shipped.model_copy(update={"concepts": concepts, "rules": (*own.rules, *shipped.rules)})


def _check(rules: Rules) -> None:
    for number, rule in enumerate(rules.rules, 1):
        if unknown := {*rule.all, *rule.unless} - set(rules.concepts):
            raise KnowledgeInvalid(
                f"{NAME}: rule {number} ({rule.cause.value}): unknown concepts {sorted(unknown)}"
            )


def _fits(pattern: str, word: str) -> bool:
    return word.startswith(pattern[:-1]) if pattern.endswith("*") else pattern == word


def _readable(piece: Piece, strengths: _Strengths) -> Iterator[tuple[str, float, bool]]:
    """The parts of a piece that carry words: an exception's class, error codes, sentences."""
    text = _DUMP.split(piece.text[:READ_CHARS].partition("\n@")[0], maxsplit=1)[0]
    if match := _CLASS.match(text):
        name = match.group(1)
        text = text[match.end() :]
        if not _PLAIN_CLASS.match(name):
            yield name, strengths.code if "_" in name else strengths.of_class, False
    for match in _IDENTIFIER.finditer(text):
        if not _STATE.match(match.group()):
            yield match.group(), strengths.code, False
    yield _POOL.sub(" ", _STATE.sub(" ", text)), strengths.sentence, True


def _sentences(text: str) -> Iterator[list[str]]:
    for sentence in _SENTENCE.split(text):
        words = _spelled(word.lower() for word in _WORD.findall(_WRAPPER.sub(" ", sentence)))
        if words:
            yield words


def _spelled(words: Iterable[str]) -> list[str]:
    """`can't`, `cannot` and `can not` are one."""
    found: list[str] = []
    for word in words:
        if word.endswith("n't"):
            found += ["can" if word == "can't" else word[:-3], "not"]
        elif word == "cannot":
            found += ["can", "not"]
        else:
            found.append(word)
    return found
