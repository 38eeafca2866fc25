"""What a text must hold for a pattern to match it, read off the pattern: `(a|b)c?d+` needs `acd`, `ad`, …

Case is folded. What is not understood needs nothing: a pattern is tried once too often, never too rarely.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST = 16  #: strings a part of a pattern is spelled out into
#: in every other log, so that next to nothing is known of a text that holds one
COMMON = frozenset(
    {"airflow", "code", "error", "errors", "exception", "exit", "failed"}
    | {"message", "return", "returned", "state", "status"}
)

_PLAIN = re.compile(r"[^\\.^$*+?()\[\]{}|]+")
_GROUP = re.compile(r"\?(?:P?<\w+>|[imsU-]*(:|(?=\))))")
_TIMES = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_CLASS = re.compile(r"\[(\^?)(\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*)\]", re.DOTALL)
_FEW = re.compile(r"(?:\\[^\w]|[^\\\[-])+")  #: a class that lists its characters
_ESCAPED = re.compile(r"\\(.)")
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}

Strings = frozenset[str]
NOTHING: Strings = frozenset({""})


class _Unread(Exception):
    """Syntax that is not read here."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a pattern."""

    all: Strings | None  #: everything it matches, where that is little
    needs: Strings  #: one of these is in all it matches


_ANY = _Part(None, NOTHING)
_EMPTY = _Part(NOTHING, NOTHING)


def fold(text: str) -> bytes:
    """The text as literals are looked for in it."""
    return text.casefold().encode("utf-8", "replace")


def literals(pattern: str) -> frozenset[bytes]:
    """One of these is in every folded text the pattern matches; none when nothing is known of it."""
    try:
        needs = _Reader(pattern).read().needs
    except (_Unread, RecursionError):
        return frozenset()
    return frozenset() if "" in needs else frozenset(one.encode() for one in needs)


def _worth(strings: Strings) -> tuple[int, int]:
    """Long ones are rare, and a few are found less often than many; what every failure says tells little."""
    return min(len(one) if one.strip(" :=") not in COMMON else 2 for one in strings), -len(strings)


class _Reader:
    """Reads a pattern from left to right."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._at = 0

    def read(self) -> _Part:
        """All of it."""
        part = self._alternatives()
        if self._at < len(self._pattern):
            raise _Unread
        return part

    def _next(self) -> str:
        return self._pattern[self._at : self._at + 1]

    def _take(self, expected: re.Pattern[str]) -> re.Match[str] | None:
        if match := expected.match(self._pattern, self._at):
            self._at = match.end()
        return match

    def _alternatives(self) -> _Part:
        parts = [self._sequence()]
        while self._next() == "|":
            self._at += 1
            parts.append(self._sequence())
        everything: Strings | None = frozenset()
        for part in parts:
            everything = None if everything is None or part.all is None else everything | part.all
        if everything is not None and len(everything) > MOST:
            everything = None
        return _Part(everything, frozenset().union(*(part.needs for part in parts)))

    def _sequence(self) -> _Part:
        run, needs, whole = NOTHING, NOTHING, True
        while self._next() not in ("", "|", ")"):
            part = self._repeated(self._item())
            if part.all is not None and len(run) * len(part.all) <= MOST:
                run = frozenset(a + b for a in run for b in part.all)
                continue
            needs = max(needs, run, part.needs, key=_worth)
            run, whole = part.all or NOTHING, False
        return _Part(run if whole else None, max(needs, run, key=_worth))

    def _item(self) -> _Part:
        if plain := self._take(_PLAIN):
            return self._text(plain[0])
        match self._next():
            case "(":
                return self._group()
            case "[":
                return self._class()
            case "\\":
                return self._escape()
            case "{":  # not after anything it could repeat
                raise _Unread
            case found:
                self._at += 1
                return _spelled({found}) if found in "]}" else _EMPTY if found in "^$" else _ANY

    def _text(self, text: str) -> _Part:
        """Plain characters; a repetition is of the last one only."""
        if len(text) > 1 and self._next() in ("*", "+", "?", "{"):
            self._at -= 1
            text = text[:-1]
        return _spelled({text})

    def _group(self) -> _Part:
        self._at += 1
        if self._next() == "?" and not self._take(_GROUP):
            raise _Unread
        part = self._alternatives()
        if self._next() != ")":
            raise _Unread
        self._at += 1
        return part

    def _class(self) -> _Part:
        found = self._take(_CLASS)
        if found is None:
            raise _Unread
        if found[1] or not found[2].isascii() or not _FEW.fullmatch(found[2]):
            return _ANY
        return _spelled(set(_ESCAPED.sub(r"\1", found[2])))

    def _escape(self) -> _Part:
        what = self._pattern[self._at + 1 : self._at + 2]
        self._at += 2
        if what in _CONTROL:
            return _spelled({_CONTROL[what]})
        if what in "bBAz":
            return _EMPTY
        if what in "dDsSwW":
            return _ANY
        if not what.isascii() or what.isalnum():
            raise _Unread
        return _spelled({what})

    def _repeated(self, part: _Part) -> _Part:
        while (sign := self._next()) in ("*", "+", "?", "{"):
            if sign != "{":
                self._at += 1
                part = _times(part, least=int(sign == "+"), once=sign == "?")
            elif times := self._take(_TIMES):
                most = times[1] if times[2] is None else times[2]
                part = _times(part, least=int(times[1]), once=most == "1")
            else:
                raise _Unread
        return part


def _spelled(strings: set[str]) -> _Part:
    folded = frozenset(one.casefold() for one in strings)
    return _Part(folded, folded)


def _times(part: _Part, *, least: int, once: bool) -> _Part:
    """A part so many times; `once` is at most that."""
    if least == 0:
        return _Part(part.all | NOTHING, NOTHING) if once and part.all is not None else _ANY
    return part if once else _Part(None, part.needs)
