"""Secrets that span lines: private keys, and YAML or JSON that puts a value on the line after its name."""

from __future__ import annotations

import re
from itertools import islice

from tools.redaction_rules import Rule, compiled, is_placeholder, masked, phrase

_KEY = (
    rb"[\w.-]*(?i:password|passwd|passphrase|pwd|secret|token|api_?key|access_?key|secret_?key|private_?key)"
)
_BEGIN = compiled(
    rb"-{4,5} ?BEGIN (?:[A-Z0-9]+ )*(?:PRIVATE KEY(?: BLOCK)?|PGP MESSAGE) ?-{4,5}|Private-Lines: ?\d+"
)
_END = compiled(rb"-{4,5} ?END (?:[A-Z0-9]+ )*(?:PRIVATE KEY(?: BLOCK)?|PGP MESSAGE) ?-{4,5}")
_ARMOUR = re.compile(rb"(?:Proc-Type|DEK-Info|Version|Comment|Hash|Charset|MessageID):")
_BODY = re.compile(rb"[\"'(]{0,2}([A-Za-z0-9+/=]+)(?:\\r)?(?:\\n)?[\"',)]{0,3}")
_MOST_LINES = 400  # an RSA key of 16,384 bits has about 200

_INLINE = (
    rb"-{4,5} ?BEGIN (?:[A-Z0-9]+ )*(?:PRIVATE KEY(?: BLOCK)?|PGP MESSAGE) ?-{4,5}"
    rb"((?:\\+[nr]|[ ]|(?:Proc-Type|DEK-Info|Version|Comment):[^\\\n]*\\)*"
    rb"(?:[A-Za-z0-9+/=]{24,}(?:\\+[nr]|[ ])*)+(?:[A-Za-z0-9+/=]+(?:\\+[nr])*)?)"
)
#: A private key flattened into one line, as JSON and repr() print it.
INLINE_KEY = phrase("private-key", _INLINE)

#: Applied to a name's line and the line after it.
TWO_LINES: tuple[Rule, ...] = (
    phrase(
        "secret",
        rb"(?i)\bname[\"']?[ \t]*:[ \t]*[\"']?"
        + _KEY
        + rb"[\"']?,?[ \t]*\r?\n[^\n]*?\bvalue[\"']?[ \t]*:[ \t]*[\"']?([^\s\"']+)",
    ),
    phrase(
        "secret",
        _KEY + rb"[\"']?[ \t]*:[ \t]*(?:[|>][+-]?\d?)?[ \t]*\r?\n[ \t]+"
        rb"[\"']?([^\s\"'#:\[{-][^\s\"':]*)[\"',]*[ \t\r]*$",
    ),
)
#: Says that the next line belongs to this one.
OPENS_NEXT = (
    rb"(?i:\bname[\"']?[ \t]*:[ \t]*[\"']?" + _KEY + rb"[\"']?,?[ \t]*\r?(?:\n|$)"
    rb"|" + _KEY + rb"[\"']?[ \t]*:[ \t]*(?:[|>][+-]?\d?)?[ \t]*\r?(?:\n|$))"
)


def redact_blocks(text: bytes) -> bytes:
    """Private keys that run over many lines, their armour kept: every line stays a line."""
    if _BEGIN.search(text) is None:
        return text
    lines = text.split(b"\n")
    index = 0
    while index < len(lines):
        begin = _BEGIN.search(lines[index])
        index += 1
        if begin is not None and _END.search(begin.string, begin.end()) is None:
            index = _redact_body(lines, index)
    return b"\n".join(lines)


def _redact_body(lines: list[bytes], first: int) -> int:
    """Redact the base64 lines from `first` on; the index of the line that ends the block."""
    for index in islice(range(first, len(lines)), _MOST_LINES):
        line = lines[index]
        end = _END.search(line)
        body = line[: end.start()] if end is not None else line
        token = body.split()[-1] if body.split() else b""
        found = _BODY.fullmatch(token)
        alone = body.strip() == token
        if found is not None and (alone or len(found.group(1)) >= 16):
            at = body.rindex(token) + found.start(1)
            lines[index] = (
                line[:at] + masked("private-key", found.group(1)) + line[at + len(found.group(1)) :]
            )
        elif (
            end is None and token and not is_placeholder(token.strip(b"\"',()")) and not _ARMOUR.search(line)
        ):
            return index
        if end is not None:
            return index + 1
    return min(first + _MOST_LINES, len(lines))
