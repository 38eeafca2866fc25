"""Secrets known by the name beside them: `password=…`, `"apiKey": "…"`, `--token …`."""

from __future__ import annotations

import re
from functools import lru_cache

from tools.redaction_rules import Match, Rule, compiled, is_placeholder, masked

#: kind -> names that end in it (`_?`: also a space or hyphen). The first that fits types the value.
KEY_KINDS: dict[str, bytes] = {
    "passphrase": rb"pass_?phrase|passcode",
    "password": rb"pass_?word|passwd|passwort|pwd|pass_?wd|\bpw|kennwort"
    rb"|contrase(?:n|\xc3\xb1)a|mot_?de_?passe|(?:\b|[_.-]|db|smtp|mail|user|root|admin|ftp|ldap)pass",
    "aws-secret-key": rb"aws_?secret(?:_?access)?_?key|secret_?access_?key",
    "aws-session-token": rb"aws_?(?:session|security)_?token|x-amz-security-token",
    "azure-account-key": rb"account_?key|storage_?key|shared_?access_?key",
    "azure-sas-token": rb"sas_?token|shared_?access_?signature",
    "client-secret": rb"(?:client|consumer|app|oauth)_?secret",
    "webhook-secret": rb"webhook_?(?:secret|token)|signing_?secret",
    "private-key": rb"private_?key(?:_?id|_?content|_?data)?|(?:ssh|rsa|pem)_?key|client-key-data",
    "fernet-key": rb"fernet_?key",
    "encryption-key": rb"(?:encryption|crypto|cipher|aes|hmac|signing|master|session|secret|jwt)_?key",
    "api-key": rb"(?:api|app|application|auth|access|service|subscription|integration|license|ingestion|write"
    rb"|consumer|deploy|functions|shared)_?key",
    "access-token": rb"(?:access|auth|id|bearer|oauth|security|session)_?token",
    "refresh-token": rb"refresh_?token",
    "authorization": rb"authorization",
    "token": rb"token|jwt|bearer",
    "credential": rb"credentials?|\b_auth|secret_?id",
    "cookie": rb"cookie",
    "one-time-code": rb"\b[th]?otp(?:_?(?:code|secret|seed))?|mfa_?code|verification_?code|\bpin_?code",
    "secret": rb"secrets?(?:_?(?:value|string))?",
    # personal data, by the name of the field
    "ssn": rb"\bssn|social_?security(?:_?(?:no|number))?|tax_?id_?number",
    "card-number": rb"credit_?card(?:_?(?:no|number))?|card_?(?:no|number)|\bcv[vc]2?",
    "iban": rb"\biban|bank_?account(?:_?(?:no|number))?",
    "phone": rb"phone(?:_?(?:no|number))?|\bmobile_?(?:no|number)|telephone",
    "birth-date": rb"date_?of_?birth|birth_?date|birthday|\bdob",
    "identity-number": rb"passport(?:_?(?:no|number))|national_?id"
    rb"|driv(?:ers?|ing)_?licen[cs]e(?:_?(?:no|number))",
}


def _spelled(source: bytes) -> bytes:
    return source.replace(b"_?", b"[ _-]?")


_WORDS = b"(?:" + b"|".join(_spelled(source) for source in KEY_KINDS.values()) + b")"
_SUFFIX = (
    rb"(?:[_.-]?(?:\d{1,3}|value|base|hash|enc|plain|prod|production|dev|test|staging|old|new|b64|base64))?"
)
_QUOTED = rb"\"(?:[^\"\\\n\r]|\\.)*\"?|'(?:[^'\\\n\r]|\\.)*'?|`[^`\n\r]*`?"
_ESCAPED = rb"\\+\"[^\"\\\n\r]*(?:\\+\")?|\\+'[^'\\\n\r]*(?:\\+')?|&quot;[^&\s]*(?:&quot;)?"
_BARE = rb"[^\s\"'`<>\x00-\x20\x7f]+"
_VALUE = b"(" + _ESCAPED + b"|[A-Za-z]{0,2}(?:" + _QUOTED + b")|" + _BARE + b")"
_SEPARATOR = rb"(?:\\*[\"'`]|&quot;|%2[27])?\]?[ \t]*(?:=>|->|:=|[=:]|%3[AaDd](?:%2[27])?)[ \t]*"

_PAIR = compiled(rb"(?i)([\w.-]*" + _WORDS + _SUFFIX + rb")(" + _SEPARATOR + rb")" + _VALUE)
_PAIR_TRIGGER = rb"(?i:" + _WORDS + _SUFFIX + _SEPARATOR + rb"[^\s=])"
_FLAG = compiled(rb"(?i)((?:^|\s)--?[\w-]*" + _WORDS + _SUFFIX + rb")((?:[\"'],)?[ \t]+)" + _VALUE)
_FLAG_TRIGGER = rb"(?i:(?:^|\s)--?[\w-]*" + _WORDS + _SUFFIX + rb"(?:[\"'],)?[ \t]+[^\s])"

_KEY_PATTERNS = tuple(
    (kind, compiled(rb"(?i)(?:" + _spelled(source) + rb")" + _SUFFIX + rb"$"))
    for kind, source in KEY_KINDS.items()
)

# Names that end in a secret word and hold none: paging cursors, parser talk, the working directory.
_PLAIN_KEY = re.compile(
    rb"(?i)(?:page|continuation|continue|next|sync|resume|cursor|scroll|delta|invalid|unexpected|expected|eos|bos"
    rb"|max|min|pad|unk|mask|stop|prompt|completion|input|output|total|special|request|idempotency|cancellation"
    rb"|unknown|missing|bad|by)[ _-]?(?:token|pass|secret|pin|key)s?$"
)
_CODE = re.compile(
    rb"(?:None|True|False|null|nil|undefined|NULL|true|false|YES|NO|yes|no|str|bytes|int|bool|string|float|object"
    rb"|Any|SecretStr)(?:[^\w]|$)"
    rb"|[(\[{]*(?:self|cls|conn|os|settings|config|cfg|args|kwargs|params|request|env|hook|context|options|this)[.\[]"
    rb"|(?:Optional|Union|Annotated|Literal|list|dict|tuple|type|Secret)\[|(?:[a-z_]+\.)*[a-z_][a-z0-9_]*\("
    rb"|[a-z_]+(?:\.[a-z_]+)+[,;:)\]}]*$|\$\{?[A-Za-z_]\w*\}?[,;)]*$|\$\(|\{\{|\{[\w.!:]*\}[,;)]*$|%\(\w+\)s|%[sdrv]$"
    rb"|:[a-z_]+$|=[\w.]*$|[\W_]+$"
)
_PATH = re.compile(
    rb"(?:~|\.{0,2})(?:/[a-z_.-][a-z0-9_.-]*){2,}/?$|[\w./-]+\.(?:pem|key|json|ya?ml|crt|p12|env|py)$"
)
_WORD = re.compile(rb"[A-Za-z]+(?:[-_][A-Za-z]+)*[.,;:!?)]*$")
_NEXT_PAIR = re.compile(rb"[;&,|](?=[\w.\"'\\-]+[=:])|\\[nrt\"']|%2[267]|%3B")
_QUOTE = re.compile(rb"[A-Za-z]{0,2}(\\*[\"']|`|&quot;)")
_SCHEME_AND_PLACEHOLDER = re.compile(rb"[A-Za-z][A-Za-z0-9-]* \[[a-z0-9-]+\]")
_CLOSERS = b";,)}]\\"
_PROSE = frozenset(
    b"is was are has had not or and must flag option argument required cannot should will for from in of on "
    b"to the a an with failed missing invalid expired file".split()
)


@lru_cache(maxsize=512)
def key_kind(key: bytes) -> str | None:
    """The kind of secret a name announces, or None."""
    if _PLAIN_KEY.search(key):
        return None
    return next((kind for kind, pattern in _KEY_PATTERNS if pattern.search(key) is not None), None)


def unquoted(value: bytes) -> tuple[bytes, bytes, bytes]:
    """Opening quote, what is inside, closing quote."""
    found = _QUOTE.match(value)
    if found is None:
        return b"", value, b""
    head, closing = found.group(0), found.group(1)
    inner = value[len(head) :]
    if inner.endswith(closing):
        return head, inner[: len(inner) - len(closing)], closing
    return head, inner, b""


def _replace_pair(match: Match) -> bytes:
    key, separator, value = match.group(1), match.group(2), match.group(3)
    kind = key_kind(key)
    if kind is None:
        return match.group()
    head, inner, tail = unquoted(value)
    if head:
        return key + separator + head + _hidden(kind, inner) + tail
    secret, rest = _bare_parts(value)
    if kind == "authorization" and _WORD.match(secret) and _following(match):
        return match.group()  # the scheme; what follows it is a phrase's business
    if _is_code(key, value, secret) or _is_prose(separator, secret, _following(match)):
        return match.group()
    return key + separator + _hidden(kind, secret) + rest


def _replace_flag(match: Match) -> bytes:
    key, separator, value = match.group(1), match.group(2), match.group(3)
    kind = key_kind(key)
    head, inner, tail = unquoted(value)
    if not head:
        inner, tail = _bare_parts(value)
    if (
        kind is None
        or (not head and inner.startswith(b"-"))
        or inner.lower() in _PROSE
        or (not head and _CODE.match(inner))
    ):
        return match.group()
    return key + separator + head + _hidden(kind, inner) + tail


def _hidden(kind: str, secret: bytes) -> bytes:
    """The placeholder, unless nothing is there to hide: masked by Airflow already, too short, a template."""
    if len(secret) < 3 or is_placeholder(secret) or not secret.strip(b"*xX.-") or secret.startswith(b"{{"):
        return secret
    if _SCHEME_AND_PLACEHOLDER.fullmatch(secret):
        return secret
    return masked(kind, secret)


def hidden_text(kind: str, secret: bytes) -> bytes:
    """A whole value under a telling key; the path of a key file is no secret."""
    return secret if _PATH.match(secret) else _hidden(kind, secret)


def _bare_parts(value: bytes) -> tuple[bytes, bytes]:
    """An unquoted value ends where the next pair begins, or before closing brackets at its end."""
    found = _NEXT_PAIR.search(value, 1)
    secret = value[: found.start()] if found else value
    stripped = secret.rstrip(_CLOSERS)
    if is_placeholder(stripped + b"]"):
        stripped += b"]"
    return stripped, value[len(stripped) :]


def _is_code(key: bytes, value: bytes, secret: bytes) -> bool:
    """Source code in a traceback, a template, or the path of a secret: nothing to hide."""
    if is_placeholder(secret) or (secret.isdigit() and len(secret) < 4):
        return True
    if secret.lower().strip(b"_") in key.lower() or _PATH.match(secret):
        return True
    if key.lower() in (b"pwd", b"oldpwd") and secret.startswith(b"/"):
        return True  # the shell's working directory
    return _CODE.match(value) is not None


def _following(match: Match) -> bytes:
    """The next word's beginning; a slice to the end would cost a copy of the line per match."""
    return match.string[match.end() : match.end() + 16].lstrip(b" \t")


def _is_prose(separator: bytes, secret: bytes, following: bytes) -> bool:
    """`Invalid token: unexpected end` tells a story; `token: abcdef` at the end of a line holds one."""
    if not separator.strip().endswith(b":") or not _WORD.match(secret):
        return False
    return following[:1].isalpha() or secret.lower() in _PROSE


PAIRS = Rule("pairs", _PAIR, _replace_pair, _PAIR_TRIGGER)
FLAGS = Rule("flags", _FLAG, _replace_flag, _FLAG_TRIGGER)
