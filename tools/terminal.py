"""Text of strangers, made safe for a terminal."""

from __future__ import annotations


def inert(value: object) -> str:
    """Without the control characters by which a log line could drive the terminal."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )


def inert_line(value: object) -> str:
    """The same on one line: what is told in lines cannot tell one more."""
    return inert(value).replace("\n", " ")
