"""Secrets inside base64: `user:password`, and JSON or text that holds a secret itself."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from tools.redaction_rules import Rule, phrase

# ASCII text in base64 has a shape: bytes below 0x80 leave few choices for the first three characters of every
# four. Three such groups in a row are rare in anything else, so the scan stays cheap and paths stay out.
_GROUP = rb"[C-DI-Za-f][ACQgwC-HS-Xi-ny-z0-3][ABEFIJMNQRUVYZcdghklopstwx014589][A-Za-z0-9+/_-]"
_SOURCE = rb"(?:^|[^A-Za-z0-9+/=_-])((?:" + _GROUP + rb"){3,}[A-Za-z0-9+/_-]*={0,2})"
_USER_PASSWORD = re.compile(r"[\w.@+$-]{1,64}:(?!//)[^\s:]{4,}")


def encoded_rule(changes: Callable[[str], bool]) -> Rule:
    """The rule; `changes` tells whether redaction would change the decoded text."""

    def fits(secret: bytes) -> bool:
        decoded = _decoded(secret)
        if decoded is None:
            return False
        return _USER_PASSWORD.fullmatch(decoded.strip()) is not None or changes(decoded)

    return phrase("encoded-secret", _SOURCE, fits=fits)


def _decoded(secret: bytes) -> str | None:
    plain = secret.rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    try:
        text = base64.b64decode(plain + b"=" * (-len(plain) % 4), validate=True).decode("utf-8")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return text if sum(char.isprintable() or char in "\n\r\t" for char in text) == len(text) else None
