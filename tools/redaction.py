"""Secrets are removed as text enters, so that no row, prompt, trace or screen has to remember to.

`redact` keeps lines (the diagnosis counts them), hosts, table names, codes, ids and times, and puts a typed
placeholder like `[password]` where a secret stood. Placeholders carry no digest: two workers, or two runs,
write the same text for the same log, a stored log keeps its digest, and nothing is left to guess a secret by.

One scan of the joined patterns finds the lines that hold anything; only those meet the single rules, until
nothing changes any more, which makes redaction idempotent. Everything is linear in the text.
"""

from __future__ import annotations

from collections.abc import Iterator

import re2
from pydantic import JsonValue

from tools.redaction_blocks import INLINE_KEY, OPENS_NEXT, TWO_LINES, redact_blocks
from tools.redaction_encoded import encoded_rule
from tools.redaction_pairs import FLAGS, KEY_KINDS, PAIRS, hidden_text, key_kind
from tools.redaction_personal import EMAIL, PERSONAL
from tools.redaction_phrases import PHRASES
from tools.redaction_rules import Rule, compiled
from tools.redaction_tokens import TOKEN_KINDS, TOKENS

_MOST_ROUNDS = 8
_MOST_NESTING = 2


def redact(text: str) -> str:
    """Replace secrets and personal data by typed, stable placeholders; lines keep their numbers."""
    return _redacted(text, nesting=0)


def redact_json(value: JsonValue) -> JsonValue:
    """The same for structured content: every text in it, and every value whose key announces a secret."""
    return _json(value, kind=None)


def kinds() -> tuple[str, ...]:
    """Every kind of placeholder, each once."""
    rules = (*PHRASES, *PERSONAL, EMAIL, *TWO_LINES, INLINE_KEY)
    return tuple(dict.fromkeys([*TOKEN_KINDS, *KEY_KINDS, *(rule.name for rule in rules), "encoded-secret"]))


def _json(value: JsonValue, *, kind: str | None) -> JsonValue:
    if isinstance(value, dict):
        return {redact(key): _json(inner, kind=_kind_of(key) or kind) for key, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner, kind=kind) for inner in value]
    if isinstance(value, str):
        text = redact(value)
        return text if kind is None else _decode(hidden_text(kind, _encode(text)))
    if kind is None or isinstance(value, bool) or not isinstance(value, int | float) or abs(value) < 1000:
        return value
    return f"[{kind}]"


def _kind_of(key: str) -> str | None:
    return key_kind(_encode(key))


def _redacted(text: str, *, nesting: int) -> str:
    data = _encode(text)
    clean = _clean(redact_blocks(data), nesting)
    return text if clean == data else _decode(clean)


def _clean(data: bytes, nesting: int) -> bytes:
    """Scan for lines that hold anything, and clean those."""
    parts: list[bytes] = []
    done, search_from = 0, 0
    while (hit := _SCAN.search(data, search_from)) is not None:
        # A pattern may begin with the line break before its line.
        first = hit.start() + (data[hit.start() : hit.start() + 1] == b"\n")
        begin = max(data.rfind(b"\n", 0, first) + 1, done)
        end = _line_end(data, first)
        if _OPENS_NEXT.search(data[begin:end]) is not None and end < len(data):
            end = _line_end(data, end + 1)
        parts += (data[done:begin], _clean_line(data[begin:end], nesting))
        done = search_from = end
        if end == len(data):
            break
    parts.append(data[done:])
    return b"".join(parts)


def _line_end(data: bytes, start: int) -> int:
    end = data.find(b"\n", start)
    return len(data) if end < 0 else end


def _clean_line(line: bytes, nesting: int) -> bytes:
    """Apply the rules that fit until nothing changes: a secret removed can uncover the next."""
    for _ in range(_MOST_ROUNDS):
        before = line
        for rule in _fitting(line):
            if nesting < _MOST_NESTING or rule.name != "encoded-secret":
                line = rule.apply(line)
        if line == before:
            break
    return line


def _fitting(line: bytes) -> Iterator[Rule]:
    indices = _SET.Match(line)
    # An empty answer means that the set's automaton ran out of memory: the scan found something here.
    return (_RULES[index] for index in (sorted(indices) if indices else range(len(_RULES))))


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _changes(text: str) -> bool:
    return _redacted(text, nesting=1) != text


def _rule_set(rules: tuple[Rule, ...]) -> re2.Set:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    options.max_mem = 128 << 20
    matcher = re2.Set.SearchSet(options)
    for rule in rules:
        matcher.Add(rule.trigger)
    matcher.Compile()
    return matcher


_RULES: tuple[Rule, ...] = (
    TOKENS,
    INLINE_KEY,
    *PHRASES,
    *TWO_LINES,
    *PERSONAL,
    PAIRS,
    FLAGS,
    encoded_rule(_changes),
    EMAIL,
)
_SET = _rule_set(_RULES)
_OPENS_NEXT = compiled(OPENS_NEXT, captures=False)
_SCAN = compiled(b"|".join([*(b"(?:" + rule.trigger + b")" for rule in _RULES), OPENS_NEXT]), captures=False)
