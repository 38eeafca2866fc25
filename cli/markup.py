"""Words of strangers among the markup of `rich`."""

from __future__ import annotations

from rich.markup import escape

from tools.terminal import inert


def plain(text: object) -> str:
    """Neither markup nor anything that drives the terminal."""
    return escape(inert(text))
