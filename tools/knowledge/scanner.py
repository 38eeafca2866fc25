"""Thousands of patterns over one text in linear time: literals first, the few that may match after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import re2

from tools.knowledge.entries import options
from tools.knowledge.literals import fold, literals

SHARE = 200_000  #: bytes of literals per set
ROOM = 32 << 20  #: bytes; twice what so many literals take: the rest is for the way through them
KEPT = 2_000  #: compiled patterns; one is some kilobytes, and few are ever needed


class Scanner:
    """Which of many patterns a text holds. Linear time whatever the text: the engine is google-re2."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._patterns = patterns
        self._always: list[int] = []  #: patterns no literal is known of
        owners: dict[bytes, list[int]] = {}
        for index, pattern in enumerate(patterns):
            needs = literals(pattern)
            if not needs:
                self._always.append(index)
            for literal in needs:
                owners.setdefault(literal, []).append(index)
        self._owners = [tuple(found) for found in owners.values()]
        self._sets = list(_sets(list(owners)))
        self._kept = lru_cache(KEPT)(self._compiled)

    def matches(self, text: str) -> list[int]:
        """Indexes of the patterns found, in order."""
        folded, data = fold(text), text.encode("utf-8", "replace")
        possible = set(self._always)
        for first, part in self._sets:
            for hit in part.Match(folded) or ():
                possible.update(self._owners[first + hit])
        return [index for index in sorted(possible) if self._kept(index).search(data)]

    def pattern(self, index: int) -> Any:
        """One pattern, compiled."""
        return self._kept(index)

    def _compiled(self, index: int) -> Any:
        pattern = self._patterns[index]
        return re2.compile(pattern, options(pattern))


def _sets(every: Sequence[bytes]) -> Iterator[tuple[int, Any]]:
    """The number of the first literal of each set, and the set."""
    first, size = 0, 0
    for index, literal in enumerate(every):
        if size + len(literal) > SHARE and index > first:
            yield first, _set(every[first:index])
            first, size = index, 0
        size += len(literal)
    if first < len(every):
        yield first, _set(every[first:])


def _set(parts: Sequence[bytes]) -> Any:
    chosen = re2.Options()
    chosen.encoding = re2.Options.Encoding.LATIN1
    chosen.literal = True
    chosen.max_mem = ROOM
    found = re2.Set.SearchSet(chosen)
    for part in parts:
        found.Add(part)
    found.Compile()
    return found
