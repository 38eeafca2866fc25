"""Secrets known by the name beside them: `password=…`, `"apiKey": "…"`, `--token …`, `IDENTIFIED BY '…'`."""

from __future__ import annotations

import re

from tools.redaction_rules import Match, Rule, compiled, is_placeholder, masked

#: kind -> names that end in it. The first kind whose name fits gives the placeholder its type.
KEY_KINDS: dict[str, bytes] = {
    "passphrase": rb"pass_?phrase|passcode",
    "password": rb"pass_?word|passwd|passwort|pwd|(?:\b|[_.-]|db|smtp|mail|user|root|admin|ftp|ldap)pass|pass_?wd|\bpw"
    rb"|contrase(?:n|\xc3\xb1)a|mot_?de_?passe|kennwort",
    "aws-secret-key": rb"aws_?secret(?:_?access)?_?key|secret_?access_?key",
    "aws-session-token": rb"aws_?(?:session|security)_?token|x-amz-security-token",
    "azure-account-key": rb"account_?key|storage_?key|shared_?access_?key",
    "azure-sas-token": rb"sas_?token|shared_?access_?signature",
    "client-secret": rb"client_?secret|consumer_?secret|app_?secret|oauth_?secret",
    "webhook-secret": rb"webhook_?secret|webhook_?token|signing_?secret",
    "private-key": rb"private_?key(?:_?id|_?content|_?data|_?b64|_?base64)?|ssh_?key|client-key-data|rsa_?key|pem_?key",
    "fernet-key": rb"fernet_?key",
    "encryption-key": rb"(?:encryption|crypt(?:o|er)?|cipher|aes|hmac|signing|master|session|secret|jwt)_?key",
    "api-key": rb"api_?key|app(?:lication)?_?key|auth_?key|access_?key|service_?key|subscription_?key|integration_?key"
    rb"|license_?key|ingest(?:ion)?_?key|write_?key|consumer_?key|deploy_?key|functions_?key|shared_?key|dd-api-key",
    "access-token": rb"access_?token|auth_?token|id_?token|bearer_?token|oauth_?token|security_?token|session_?token",
    "refresh-token": rb"refresh_?token",
    "token": rb"token|jwt|bearer",
    "credential": rb"credentials?|\b_auth|secret_?id|role_?secret",
    "cookie": rb"session_?cookie|set-cookie|cookie",
    "one-time-code": rb"otp_?(?:code|secret|seed)?|totp_?(?:secret|seed)?|mfa_?code|verification_?code|\bpin_?code",
    "secret": rb"secrets?(?:_?(?:value|string))?",
    # personal data, by the name of the column
    "ssn": rb"\bssn|social_?security(?:_?(?:no|number))?|tax_?id_?number",
    "card-number": rb"credit_?card(?:_?(?:no|number))?|card_?(?:no|number)|\bpan|cvv2?|cvc2?",
    "iban": rb"\biban|bank_?account(?:_?(?:no|number))?|account_?number",
    "phone": rb"phone(?:_?(?:no|number))?|\bmobile|telephone",
    "birth-date": rb"date_?of_?birth|birth_?date|birthday|\bdob",
    "passport": rb"passport(?:_?(?:no|number))?|drivers?_?licen[cs]e(?:_?(?:no|number))?|national_?id",
}

_WORDS = b"(?:" + b"|".join(KEY_KINDS.values()).replace(b"_?", b"[ _-]?") + b")"
_SUFFIX = rb"(?:[_.-]?(?:\d{1,3}|value|hash|enc|plain|prod|production|dev|test|staging|old|new|current|primary|secondary|b64|base64))?"
_KEY = rb"[\w.-]*" + _WORDS + _SUFFIX
_QUOTED = rb"\"(?:[^\"\\\n\r]|\\.)*\"?|'(?:[^'\\\n\r]|\\.)*'?|`[^`\n\r]*`?"
_ESCAPED = rb"\\+\"[^\"\\\n\r]*(?:\\+\")?|\\+'[^'\\\n\r]*(?:\\+')?|&quot;[^&\s]*(?:&quot;)?"
_BARE = rb"[^\s\"'`<>\x00-\x20\x7f][^\s\"'`<>\x00-\x20\x7f]*"
_VALUE = b"(" + _ESCAPED + b"|[A-Za-z]{1,2}(?:" + _QUOTED + b")|" + _QUOTED + b"|" + _BARE + b")"
_SEPARATOR = rb"(?:\\*[\"'`]|&quot;)?\]?[ \t]{0,16}(?:=>|:=|[=:]|%3[AaDd])[ \t]{0,8}"

_PAIR = compiled(rb"(?i)(" + _KEY + rb")(" + _SEPARATOR + rb")" + _VALUE)
_PAIR_TRIGGER = rb"(?i:" + _WORDS + _SUFFIX + _SEPARATOR + rb"[^\s=])"

#: Names that end in a secret word and hold none: paging cursors, names of things, limits.
_PLAIN_KEY = re.compile(
    rb"(?i)(?:page|continuation|continue|next|sync|resume|cursor|scroll|delta|pagination|invalid|unexpected|expected"
    rb"|max|min|eos|bos|pad|unk|mask|stop|prompt|completion|input|output|total|special|client_?request|idempotency"
    rb"|cancellation|unknown|missing|no|bad|next_?page|pre|post|compass|by)[ _-]?(?:token|pass|secret|pin)s?$"
    rb"|^(?:old)?pwd$|bypass$|compass$"
)
_CODE = re.compile(
    rb"(?:None|True|False|null|nil|undefined|NULL|true|false|str|bytes|int|bool|string|float|object|Any|SecretStr)\b[\[\],:)};|]*$"
    rb"|(?:Optional|Union|Annotated|Literal|list|dict|tuple|type|Secret)\["
    rb"|(?:self|cls|conn|os|settings|config|cfg|args|kwargs|params|request|env|hook|ctx|context|opts|options|this)[.\[]"
    rb"|[A-Za-z_][\w.]*\((?:.*)$"
    rb"|[a-z_]+(?:\.[a-z_]+)+[,;:)\]}]*$"
    rb"|\$[\{(]?[A-Za-z_]|\{\{|\{[\w.!:]*\}|%\(|%[sdrv]|<[\w -]*>?$|\?|:[a-z_]+$|=|\[\]|\{\}|\.\.\.|\(\)"
    rb"|[\W_]*$"
)
_PATH = re.compile(rb"(?:~|\.{0,2})(?:/[a-z_.-][a-z0-9_.-]*){2,}/?$|[\w./-]+\.(?:pem|key|json|ya?ml|crt|p12|txt|env|py|sql)$")
_PROSE = re.compile(rb"[A-Za-z]+[.,;:!?)]*$")
_END_OF_BARE = re.compile(rb"[;&,|](?=[\w.\"'\\ -]+[=:])|\\[nrt\"']|%26|%3B|[;,)}\]\\]+$")


def key_kind(key: bytes) -> str | None:
    """The kind of secret a name announces, or None."""
    if _PLAIN_KEY.search(key):
        return None
    for kind, pattern in _KEY_PATTERNS:
        if pattern.search(key) is not None:
            return kind
    return None


_KEY_PATTERNS = tuple(
    (kind, compiled(rb"(?i)(?:" + source.replace(b"_?", b"[ _-]?") + rb")" + _SUFFIX + rb"$"))
    for kind, source in KEY_KINDS.items()
)


def value_masked(kind: str, value: bytes) -> bytes:
    """A value without its secret; its quotes, and what a scheme like `Bearer` says, stay."""
    head, inner, tail = unquoted(value)
    if len(inner) < 3 or is_placeholder(inner) or not inner.strip(b"*xX.-"):
        return value
    return head + masked(kind, inner) + tail


def unquoted(value: bytes) -> tuple[bytes, bytes, bytes]:
    """Opening quote, what is inside, closing quote."""
    found = _QUOTES.match(value)
    if found is None:
        return b"", value, b""
    head, closing = found.group(0), found.group("quote")
    inner = value[len(head) :]
    if inner.endswith(closing):
        return head, inner[: len(inner) - len(closing)], closing
    return head, inner, b""


_QUOTES = re.compile(rb"[A-Za-z]{0,2}(?P<quote>\\*[\"']|`|&quot;)")


def _replace_pair(match: Match) -> bytes:
    key, separator, value = match.group(1), match.group(2), match.group(3)
    whole = match.group()
    kind = key_kind(key)
    if kind is None:
        return whole
    if _QUOTES.match(value):
        return whole[: -len(value)] + value_masked(kind, value) if _secret_like(value) else whole
    end = _END_OF_BARE.search(value, 1)
    bare, rest = (value[: end.start()], value[end.start() :]) if end else (value, b"")
    if len(bare) < 3 or _CODE.match(value) or _PATH.match(bare) or bare.lower() == key.lower():
        return whole
    if _is_number(bare) or is_placeholder(bare):
        return whole
    return key + separator + value_masked(kind, bare) + rest
