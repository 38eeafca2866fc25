"""A failure's signature: its error with the values masked, plus where. The key of memory."""

from __future__ import annotations

import re

from graph.domain import RootCause, TaskRef, digest

_MASKS = (
    (re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", re.IGNORECASE), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"), "<time>"),
    (re.compile(r"\b0x[0-9a-f]+\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"), "<ip>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)(?=[0-9a-f]*[a-f])[0-9a-f]{8,}\b", re.IGNORECASE), "<hex>"),
    (re.compile(r"(?:/[\w.@=+-]+){2,}/?"), "<path>"),
    (re.compile(r"\b\d+(?:[.,]\d+)*\b"), "<n>"),
)
_SPACE = re.compile(r"\s+")
TEMPLATE_CHARS = 300


def template(text: str) -> str:
    """The text without what changes from one failure to the next."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return _SPACE.sub(" ", text).strip()[:TEMPLATE_CHARS]


def signature(cause: RootCause, error: str, task: TaskRef | None) -> str:
    """Same error in the same task, same signature; values, times and paths do not matter."""
    where = [task.dag_id, task.task_id] if task is not None else []
    return digest([cause.value, template(error), where])
