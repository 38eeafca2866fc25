"""What commands print: words and JSON that drive no terminal, whoever had a hand in them."""

from __future__ import annotations

import json
import re

import typer

from tools.terminal import inert

# What JSON itself leaves as it is: the second set of control characters, and what turns the direction.
_LEFT = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


def say(text: object) -> None:
    """Print lines."""
    typer.echo(inert(text))


def complain(text: object) -> None:
    """Say what went wrong, beside what was asked for."""
    typer.echo(inert(f"airmedic: {text}"), err=True)


def spelled(value: object, *, indent: int | None = None) -> str:
    """As JSON, readable in every language; it reads back as the same value."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _LEFT.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
