"""Secrets are removed as text enters, so that no row, prompt, trace or screen has to remember to.

`redact` keeps lines (the diagnosis counts them), hosts, table names, codes, ids and times, and puts a typed
placeholder like `[password]` where a secret stood. Placeholders carry no digest: two workers, or two runs,
write the same text for the same log, a stored log keeps its digest, and nothing is left to guess a secret by.

One scan of the joined patterns finds the lines that hold anything; only those meet the single rules, again and
again until nothing changes, which makes redaction idempotent. Everything is linear in the text.
"""

from __future__ import annotations

from collections.abc import Iterator

import re2
from pydantic import JsonValue

from tools.redaction_blocks import OPENS_NEXT, TWO_LINES, redact_blocks
from tools.redaction_encoded import encoded_rule
from tools.redaction_pairs import FLAGS, KEY_KINDS, PAIRS, key_kind
from tools.redaction_personal import PERSONAL
from tools.redaction_phrases import PHRASES
from tools.redaction_rules import Rule, compiled, is_placeholder
from tools.redaction_tokens import TOKEN_KINDS, TOKENS

_MOST_ROUNDS = 8
_MOST_NESTING = 2


def redact(text: str) -> str:
    """Replace secrets and personal data by typed, stable placeholders; lines keep their numbers."""
    return _redacted(text, nesting=0)


def redact_json(value: JsonValue, *, key: str = "") -> JsonValue:
    """The same for structured content: every text in it, and every value whose key announces a secret."""
    kind = key_kind(key.encode("utf-8", "surrogatepass")) if key else None
    if isinstance(value, dict):
        return {name: redact_json(inner, key=name if _scalar(inner) or kind is None else key) for name, inner in value.items()}
    if isinstance(value, list):
        return [redact_json(inner, key=key) for inner in value]
    if isinstance(value, str):
        return redact(value) if kind is None else _whole(kind, value)
    if kind is not None and isinstance(value, int | float) and not isinstance(value, bool):
        return value if abs(value) < 1000 else f"[{kind}]"
    return value
