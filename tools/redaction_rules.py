"""The shape of a redaction rule, and the placeholders that rules leave behind.

Rules work on UTF-8 bytes with google-re2 in Latin-1 mode: linear in the text whatever a stranger wrote, and
faster than on characters. A convention keeps multi-byte characters whole: a class that holds non-ASCII bytes
is never cut off by a repetition count.
"""

from __future__ import annotations

import re
from collections.abc import Callable
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
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = not captures
    # The joined patterns have many alternatives; with the default 8 MiB RE2 falls back to its slow engine.
    options.max_mem = 128 << 20
    options.log_errors = False
    pattern: Pattern = re2.compile(source, options)
    return pattern


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

    return Rule(kind, compiled(source), replace, source)
