"""Secrets that span lines: private keys, and YAML or JSON that puts a value on the line after its name."""

from __future__ import annotations

import re

from tools.redaction_rules import Rule, compiled, is_placeholder, line_end, masked, phrase

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
    rb"(?:\b(?i:name)[\"']?[ \t]*:[ \t]*[\"']?"
    + _KEY
    + rb"[\"']?,?|"
    + _KEY
    + rb"[\"']?[ \t]*:[ \t]*(?:[|>][+-]?\d?)?)[ \t]*\r?$"
)


def redact_blocks(text: bytes) -> bytes:
    """Private keys that run over many lines, their armour kept: every line stays a line."""
    parts: list[bytes] = []
    done = 0
    while (begin := _BEGIN.search(text, done)) is not None:
        end = line_end(text, begin.end())
        parts.append(text[done:end])
        done = end
        if _END.search(text[begin.end() : end]) is None:
            done = _redact_body(text, end, parts)
    return b"".join([*parts, text[done:]]) if parts else text


def _redact_body(text: bytes, done: int, parts: list[bytes]) -> int:
    """Append the redacted base64 lines that follow; returns where the block ends."""
    for _ in range(_MOST_LINES):
        if done >= len(text):
            break
        end = line_end(text, done + 1)
        line = text[done:end]  # with the line break before it
        closing = _END.search(line)
        redacted = _body_line(line[: closing.start()] if closing is not None else line)
        if redacted is None and closing is None:
            break
        if redacted is not None:
            parts += (redacted, line[closing.start() :] if closing is not None else b"")
            done = end
        if closing is not None:
            break
    return done


def _body_line(line: bytes) -> bytes | None:
    """A line of a key without its base64, whatever a logger printed before it; None for any other line."""
    words = line.split()
    token = words[-1] if words else b""
    found = _BODY.fullmatch(token)
    if found is not None and (len(words) == 1 or len(found.group(1)) >= 16):
        at = line.rindex(token) + found.start(1)
        return line[:at] + masked("private-key", found.group(1)) + line[at + len(found.group(1)) :]
    inside = not token or is_placeholder(token.strip(b"\"',()")) or _ARMOUR.search(line) is not None
    return line if inside else None
