"""The shape of a redaction rule, and the placeholders that rules leave behind.

Rules work on UTF-8 bytes with google-re2 in Latin-1 mode: linear in the text whatever a stranger wrote, and
faster than on characters. A convention keeps multi-byte characters whole: a class that holds non-ASCII bytes
is never cut off by a repetition count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import re2

_PLACEHOLDER = re.compile(rb"\[[a-z][a-z0-9]*(?:-[a-z0-9]+)*\]")
_BREAKS = re.compile(rb"\r\n|[\n\r\x0b\x0c\x1c-\x1e]|\xc2\x85|\xe2\x80[\xa8\xa9]")


class Match(Protocol):
    """What a rule reads of a match."""

    @property
    def string(self) -> bytes: ...
    def group(self, index: int = 0, /) -> bytes: ...
    def start(self, group: int = 0, /) -> int: ...
    def end(self, group: int = 0, /) -> int: ...


class Pattern(Protocol):
    """The part of a compiled pattern that rules use."""

    def search(self, text: bytes, pos: int | None = None) -> Match | None: ...
    def fullmatch(self, text: bytes) -> Match | None: ...
    def sub(self, repl: Callable[[Match], bytes], text: bytes) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Rule:
    """One family of secrets: where to look, and what to write instead."""

    name: str
    pattern: Pattern
    replace: Callable[[Match], bytes]
    trigger: bytes  #: matches wherever `pattern` does, as cheaply as possible; joined into one scan

    def apply(self, line: bytes) -> bytes:
        """The line with this family removed."""
        return self.pattern.sub(self.replace, line)


def compiled(source: bytes, *, captures: bool = True) -> Pattern:
    """A linear-time pattern over bytes."""
    options = _options()
    options.never_capture = not captures
    pattern: Pattern = re2.compile(source, options)
    return pattern


def _options() -> re2.Options:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    # With the default 8 MiB, the joined patterns make RE2 fall back to its slow engine.
    options.max_mem = 64 << 20
    options.log_errors = False
    return options


class Family:
    """Rules that are scanned for together: one automaton of all would have no end of states."""

    def __init__(self, *rules: Rule) -> None:
        self.rules = rules
        self._scan = compiled(b"|".join(b"(?:" + rule.trigger + b")" for rule in rules), captures=False)
        self._set = _rule_set(rules) if len(rules) > 3 else None

    def lines(self, text: bytes) -> Iterator[int]:
        """Where each line begins that holds anything of this family."""
        position = 0
        while (hit := self._scan.search(text, position)) is not None:
            # A pattern may begin with the line break before its line.
            first = hit.start() + (text[hit.start() : hit.start() + 1] == b"\n")
            yield text.rfind(b"\n", 0, first) + 1
            position = line_end(text, first)
            if position == len(text):
                return

    def clean(self, line: bytes) -> bytes:
        """The line without this family's secrets."""
        if self._scan.search(line) is None:
            return line
        # An empty answer means that the set's automaton ran out of memory: the scan found something.
        indices = sorted(self._set.Match(line)) if self._set is not None else ()
        for rule in [self.rules[index] for index in indices] or self.rules:
            line = rule.apply(line)
        return line


def _rule_set(rules: Sequence[Rule]) -> re2.Set:
    matcher = re2.Set.SearchSet(_options())
    for rule in rules:
        matcher.Add(rule.trigger)
    matcher.Compile()
    return matcher


def line_end(text: bytes, start: int) -> int:
    """Where the line that holds `start` ends."""
    end = text.find(b"\n", start)
    return len(text) if end < 0 else end


def is_placeholder(value: bytes) -> bool:
    """True for what a rule wrote earlier, so that redacting twice changes nothing."""
    return _PLACEHOLDER.fullmatch(value) is not None


def masked(kind: str, value: bytes) -> bytes:
    """The placeholder of a secret, followed by the line breaks it held: lines keep their numbers."""
    if is_placeholder(value):
        return value
    return b"[" + kind.encode() + b"]" + b"".join(_BREAKS.findall(value))


def phrase(kind: str, source: bytes, *, fits: Callable[[bytes], bool] | None = None) -> Rule:
    """A rule whose first group is the secret; what stands around it is kept."""

    def replace(match: Match) -> bytes:
        whole, secret = match.group(), match.group(1)
        if not secret or is_placeholder(secret) or (fits is not None and not fits(secret)):
            return whole
        begin = match.start(1) - match.start()
        return whole[:begin] + masked(kind, secret) + whole[begin + len(secret) :]

    return Rule(kind, compiled(source), replace, _head(source))


def _head(source: bytes) -> bytes:
    """The pattern up to the secret, where something telling stands before it. A class spells `(` as \\x28."""
    start = re.search(rb"(?<!\\)\((?!\?)", source)
    head = source[: start.start()] if start else source
    return head if len(head) > 24 and head.count(b"(") == head.count(b")") else source
