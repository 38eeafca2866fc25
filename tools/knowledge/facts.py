"""Facts a fix can use: how long to wait, which host, connection or variable. Never targets of an action."""

from __future__ import annotations

import re
from collections.abc import Iterable

from graph.domain import Facts

_WAITS = (
    re.compile(
        r"(?i)retry[-_ ]?after(?:-?ms)?[\"']?\s*[:=]?\s*[\"']?(\d+(?:\.\d+)?)\s*(ms|s|sec|m\b|min|h\b|hour)?"
    ),
    re.compile(
        r"(?i)(?:try again|retry|wait|available|reset[s]?)\s+(?:in|after|for|at least)?\s*(\d+(?:\.\d+)?)"
        r"\s*(ms|milli|s\b|sec|second|m\b|min|minute|h\b|hour)"
    ),
    re.compile(r"(?i)\bretryDelay[\"']?\s*[:=]\s*[\"']?(\d+(?:\.\d+)?)(s)"),
)
_HOSTS = (
    re.compile(r"host=['\"]([\w.-]+)['\"]"),
    re.compile(r"connection to server at \"([^\"]+)\""),
    re.compile(r"(?i)could not (?:resolve|translate) host(?: ?name)?:? \"?([\w.-]+)"),
    re.compile(r"(?i)\b(?:connect to|connecting to|connection to)\s+(?:host\s+)?'?([\w-]+(?:\.[\w-]+)+)"),
    re.compile(r"\b[a-z][a-z0-9+.-]*://(?:[^\s/@]*@)?([\w.-]+)"),
)
_CONN = re.compile(
    r"(?i)conn(?:ection)?[_ ]id[ =:]*[`'\"]([\w.-]+)[`'\"]|CONNECTION_NOT_FOUND[^\n]*?'conn_id': '([\w.-]+)'"
)
_VARIABLE = re.compile(
    r"(?i)\bVariable (?:with key )?['\"`]?([\w.-]+)['\"`]? (?:does not exist|not found)"
    r"|VARIABLE_NOT_FOUND[^\n]*?'key': '([\w.-]+)'"
)
MAX_WAIT = 24 * 3600.0  # seconds


def collect(texts: Iterable[str], everything: Iterable[str]) -> Facts:
    """Read the decisive texts first; a connection id may stand anywhere."""
    decisive = list(texts)
    return Facts(
        retry_after=_wait([*decisive]),
        host=_first(_HOSTS, decisive),
        conn_id=_first((_CONN,), [*decisive, *everything]),
        variable=_first((_VARIABLE,), decisive),
    )


def _first(patterns: Iterable[re.Pattern[str]], texts: list[str]) -> str | None:
    for pattern in patterns:
        for text in texts:
            if match := pattern.search(text):
                return next((group for group in match.groups() if group), None)
    return None


def _wait(texts: list[str]) -> float | None:
    """The longest wait asked for, in seconds."""
    waits = []
    for text in texts:
        for pattern in _WAITS:
            waits += [_seconds(m.group(1), m.group(2) or "s") for m in pattern.finditer(text)]
    return max((w for w in waits if 0 < w <= MAX_WAIT), default=None)


def _seconds(number: str, unit: str) -> float:
    unit = unit.lower()
    if unit.startswith(("ms", "milli")):
        return float(number) / 1000
    if unit.startswith("m"):
        return float(number) * 60
    return float(number) * (3600 if unit.startswith("h") else 1)
