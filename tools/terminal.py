"""Text of strangers, made safe for a terminal."""

from __future__ import annotations


def inert(value: object) -> str:
    """Without the control characters by which a log line could drive the terminal."""
    return "".join(
        char if char in "\n\t" or char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)
    )
