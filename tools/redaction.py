"""Secrets are removed as text enters, so that no row, prompt, trace or screen has to remember to.

`redact` keeps lines (the diagnosis counts them), hosts, table names, codes, ids and times, and puts a typed
placeholder like `[password]` where a secret stood. Placeholders carry no digest: two workers, or two runs,
write the same text for the same log, a stored log keeps its digest, and nothing is left to guess a secret by.

A few scans find the lines that hold anything; only those meet the single rules, until nothing changes any
more, which makes redaction idempotent. Everything is linear in the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from pydantic import JsonValue

from tools.redaction_blocks import INLINE_KEY, OPENS_NEXT, TWO_LINES, redact_blocks
from tools.redaction_encoded import encoded_rule
from tools.redaction_pairs import FLAGS, KEY_KINDS, PAIRS, hidden_text, key_kind
from tools.redaction_personal import EMAIL, PERSONAL
from tools.redaction_phrases import PHRASES, POSITIONS, URLS
from tools.redaction_rules import Family, Rule, compiled, line_end
from tools.redaction_tokens import ODD_TOKENS, TOKENS

_MOST_ROUNDS = 8


def redact(text: str) -> str:
    """Replace secrets and personal data by typed, stable placeholders; lines keep their numbers."""
    return _redacted(text, _FAMILIES)


def redact_all(texts: Sequence[str]) -> list[str]:
    """Each text without its secrets. Most hold none, and all are looked at in little more time than one."""
    # Lines are read one by one, a name's with the next: no text's last line may open another's first.
    joined = "\n\n".join(texts)
    return list(texts) if redact(joined) == joined else [redact(text) for text in texts]


def redact_json(value: JsonValue) -> JsonValue:
    """The same for structured content: every text in it, and every value whose key announces a secret."""
    texts: list[str] = []
    if _unannounced(value, texts):
        # Most values hold no secret, and a line is read in a text of many as it is read alone.
        text = "\n".join(texts)
        if redact(text) == text:
            return value
    return _json(value, kind=None)


def kinds() -> tuple[str, ...]:
    """Every kind of placeholder, each once."""
    rules: tuple[Rule, ...] = (
        *TOKENS,
        *ODD_TOKENS,
        *URLS,
        *PHRASES,
        *POSITIONS,
        *PERSONAL,
        EMAIL,
        *TWO_LINES,
        INLINE_KEY,
    )
    return tuple(dict.fromkeys([*(rule.name for rule in rules), *KEY_KINDS, "encoded-secret"]))


def _unannounced(value: JsonValue, texts: list[str]) -> bool:
    """Whether no key in it announces a secret; collects its texts, keys and all."""
    if isinstance(value, str):
        texts.append(value)
    elif isinstance(value, list):
        return all(_unannounced(inner, texts) for inner in value)
    elif isinstance(value, dict):
        texts.extend(value)
        return all(_announced(key) is None and _unannounced(inner, texts) for key, inner in value.items())
    return True


@lru_cache(maxsize=4096)
def _announced(key: str) -> str | None:
    return key_kind(_encode(key))


def _json(value: JsonValue, *, kind: str | None) -> JsonValue:
    if isinstance(value, dict):
        return {redact(key): _json(inner, kind=_announced(key) or kind) for key, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner, kind=kind) for inner in value]
    if isinstance(value, str):
        text = redact(value)
        return text if kind is None else _decode(hidden_text(kind, _encode(text)))
    if kind is None or isinstance(value, bool) or not isinstance(value, int | float) or abs(value) < 1000:
        return value
    return f"[{kind}]"


def _redacted(text: str, families: Sequence[Family]) -> str:
    data = _encode(text)
    clean = _clean(redact_blocks(data), families)
    return text if clean == data else _decode(clean)


def _clean(data: bytes, families: Sequence[Family]) -> bytes:
    """Find the lines that hold anything, and clean those."""
    found: dict[int, list[Family]] = {}
    for family in families:
        for begin in family.lines(data):
            found.setdefault(begin, []).append(family)
    parts: list[bytes] = []
    done = 0
    for begin in sorted(found):
        if begin < done:
            continue  # taken along with the line before
        fitting: Sequence[Family] = found[begin]
        end = line_end(data, begin)
        if end < len(data) and _OPENS_NEXT.search(data[begin:end]) is not None:
            end, fitting = line_end(data, end + 1), families
        parts += (data[done:begin], _clean_line(data[begin:end], fitting, families))
        done = end
    parts.append(data[done:])
    return b"".join(parts)


def _clean_line(line: bytes, fitting: Sequence[Family], families: Sequence[Family]) -> bytes:
    """Apply the rules until nothing changes: a secret removed can uncover the next."""
    for _ in range(_MOST_ROUNDS):
        before = line
        for family in fitting:
            line = family.clean(line)
        if line == before:
            break
        fitting = families
    return line


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decode(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_OPENS_NEXT = compiled(OPENS_NEXT, captures=False)


_PLAIN = (
    Family(*TOKENS, *ODD_TOKENS),
    Family(*URLS, INLINE_KEY, *PHRASES, *POSITIONS, *TWO_LINES),
    Family(*PERSONAL, PAIRS, FLAGS, EMAIL),
)


def _and_encoded(inside: tuple[Family, ...]) -> tuple[Family, ...]:
    """The families, and base64 around what `inside` would remove."""
    return (*_PLAIN, Family(encoded_rule(lambda text: _redacted(text, inside) != text)))


_FAMILIES = _and_encoded(_and_encoded(_PLAIN))
