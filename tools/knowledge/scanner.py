"""Thousands of patterns over one text in linear time: literals first, the few that may match after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import re2

from tools.knowledge.entries import options

SHARE = 500  #: patterns per filter; re2 keeps a filter's literals in 8 MB


class Scanner:
    """Which of many patterns a text holds. Linear time whatever the text: the engine is google-re2."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._filters: list[tuple[int, Any]] = []
        for first in range(0, len(patterns), SHARE):
            part = re2.Filter()
            for pattern in patterns[first : first + SHARE]:
                part.Add(pattern, options(pattern))
            part.Compile()
            self._filters.append((first, part))

    def matches(self, text: str) -> list[int]:
        """Indexes of the patterns found, in order."""
        data = text.encode("utf-8", "replace")
        found: list[int] = []
        for first, part in self._filters:
            if hits := part.Match(data):
                found += [first + hit for hit in hits]
        return found

    def pattern(self, index: int) -> Any:
        """One pattern, compiled."""
        first, part = self._filters[index // SHARE]
        return part.re(index - first)
