"""JSON that strangers spelled: Variables, notes, what a form sent."""

from __future__ import annotations

import json
from itertools import chain

from pydantic import JsonValue

DEEPEST = 100  # levels: nobody writes more, and what works on a value recursively bears them


def json_of(text: str | bytes) -> JsonValue:
    """The value that a text spells. Raises `ValueError`, also for what nests too deeply to be worked on."""
    try:
        found: JsonValue = json.loads(text)
    except RecursionError as exc:
        raise ValueError("it nests too deeply") from exc
    if _is_deep(found):
        raise ValueError("it nests too deeply")
    return found


def _is_deep(value: JsonValue) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        level = list(chain.from_iterable(map(_parts, level)))
        if not level:
            return False
    return True


def _parts(value: JsonValue) -> list[JsonValue]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []
