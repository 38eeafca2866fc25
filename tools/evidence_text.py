"""What a line says, as words: JSON opened, and counters of bad things that stand at zero left out."""

from __future__ import annotations

import json
import re

#: a counter of bad things that stands at zero reports no failure
_NONE_BAD = re.compile(
    r"(?i)\b(?:[\w-]*(?:bad|error|fail|reject|invalid|skip|drop|warn|missing|dup|null|conflict|retr|timeout|lost"
    r"|violation|mismatch|corrupt|denied)[\w-]*)(?:[ _](?:rows|records|lines|files|items|events|count|keys))?"
    r"[\"']?\s*[:=]\s*(?:0(?![\d.x/])|none\b|null\b|\[\]|\"\"|false\b)"
    r"|(?:\bmemory\.events:? ?)?\boom[_ -]?kill\w*[ :=]+0\b"
    r"|\b(?:0|no|zero|without(?: any)?) (?:[a-z]+ ){0,2}?(?:bad|errors?|failed|failures?|rejected|invalid"
    r"|warnings?|skipped|dropped|conflicts?|duplicates?|mismatch(?:es)?|violations?|issues?|problems?|retries"
    r"|changes)\b(?: (?:rows|records|lines|files|items|events|tests|tasks|validation|detected|found))?"
)


def words_of(text: str, *, counters: bool) -> str:
    """The text patterns see; `counters` when it may hold a counter at zero."""
    text = _json_text(text)
    return _NONE_BAD.sub(" ", text) if counters else text


def _json_text(text: str) -> str:
    """A JSON line as its message and error, so that patterns see words, not quotes."""
    start = text.find("{")
    if start < 0 or start > 200 or not text.rstrip().endswith("}"):
        return text
    try:
        data = json.loads(text[start:])
    except (ValueError, RecursionError):
        return text
    if not isinstance(data, dict):
        return text
    words = [text[:start], *(f"{key}: {_flat(value)}" for key, value in data.items())]
    return "\n".join(words)[:6_000]


def _flat(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
