"""Makes text that strangers had a hand in harmless in mail and chat: no secret, mention, link or markup."""

from __future__ import annotations

import re
import unicodedata

from tools.redaction import redact

LONGEST_TITLE = 160  # characters
LONGEST_BODY = 1500
# C, Z: control, format (direction marks, zero width) and separator characters.
_INVISIBLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_SCHEME = re.compile(r":(?=//)")  # whatever stands before it: programs find an address in any company
_ACTIVE = re.compile(r"(?i)\b(mailto|javascript|data|tel|sms|file|vbscript):(?=\S)")
_WWW = re.compile(r"(?i)\bwww\.")
_SWAPS = str.maketrans({"<": "‹", ">": "›", "@": "(at)", "`": "'", "|": "¦"})
_LINK = re.compile(r"\](?=[(\[:])")  # what makes a link of [words]


def _visible(text: str) -> str:
    return "".join(one if one == "\n" or unicodedata.category(one) not in _INVISIBLE else " " for one in text)


def inert(text: str, *, longest: int = LONGEST_BODY) -> str:
    """The text redacted, without anything a mail or chat program would act on; names stay readable."""
    clean = redact(_visible(text))
    clean = _LINK.sub("] ", clean.translate(_SWAPS))
    clean = _WWW.sub("www[.]", _ACTIVE.sub(r"\1[:]", _SCHEME.sub("[:]", clean)))
    # Headings, quotes and lists of markdown begin a line; a mark before them keeps them text.
    lines = [re.sub(r"^\s*([#>*=~+-]+)", r"· \1", line.strip()) for line in clean.split("\n")]
    joined = "\n".join(line for line in lines if line)
    return joined if len(joined) <= longest else joined[: longest - 1].rstrip() + "…"


def inert_line(text: str, *, longest: int = LONGEST_TITLE) -> str:
    """The same on one line: for a title, which becomes a mail header."""
    return inert(" ".join(text.split()), longest=longest)
