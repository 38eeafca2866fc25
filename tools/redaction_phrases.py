"""Secrets known by the phrase around them: URLs, headers, SQL, command lines, files of passwords."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import replace

from tools.redaction_rules import Rule, phrase

_Q = rb"\\*[\"']"  # a quote, escaped or not
_KEY = (
    rb"[\w.-]*(?:password|passwd|pwd|secret|token|api_?key|access_?key|secret_?key|private_?key|credentials?)"
)
_PORT = re.compile(rb"\d{1,5}(?:[/?#]|$)")
_SYMBOL = re.compile(rb"[!#$%^&*+~@]")
_PLAIN_WORD = re.compile(rb"[a-z_]+$|[A-Z_]+$|[\W_]*$")


def _no_port(secret: bytes) -> bool:
    """`host:8080/path@x` holds a port, no password; a mask of Airflow's (`***`) is none either."""
    return not _PORT.match(secret) and bool(secret.strip(b"*"))


def _has_digit(secret: bytes) -> bool:
    return any(48 <= byte <= 57 for byte in secret)


def _odd(secret: bytes) -> bool:
    """Not simply a word of prose or the name of a column."""
    return not _PLAIN_WORD.match(secret)


def _opaque(secret: bytes) -> bool:
    return _has_digit(secret) or len(secret) >= 32


def _random(secret: bytes) -> bool:
    """Looks made by a generator: a digit, and mixed case or a symbol."""
    letters = bytes(byte for byte in secret if bytes((byte,)).isalpha())
    mixed = letters != letters.lower() and letters != letters.upper()
    return len(secret) >= 8 and _has_digit(secret) and (mixed or bool(_SYMBOL.search(secret)))


def _user_and_password(secret: bytes) -> bool:
    """A Basic credential decodes to `user:password`."""
    try:
        return b":" in base64.b64decode(secret + b"=" * (-len(secret) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False


def _generated(secret: bytes) -> bool:
    """A long value of letters and digits; the name of a file or of a table is none."""
    return len(secret) >= 16 and _random(secret)


URLS: tuple[Rule, ...] = (
    phrase(
        "password", rb"(?i)\b[a-z][a-z0-9+._-]*:(?://|%2F%2F)[^\s:/@\"'<>]*:([^\s/\"'<>?#]+)@", fits=_no_port
    ),
    phrase("password", rb"(?i)\b[a-z][a-z0-9+._-]*://[^\s:/@\"'<>]*:([^\s\"'<>@]+)@", fits=_no_port),
    phrase("token", rb"\b[a-z][a-z0-9+._-]*://([A-Za-z0-9_-]{20,})(?::|:x-oauth-basic)?@", fits=_has_digit),
    phrase("password", rb"(?i)\bjdbc:oracle:\w+:[\w$#]+/([^@\s\"']+)@"),
    phrase(
        "password",
        rb"(?i)\b(?:sqlplus|expdp|impdp|sqlldr|rman|cx_oracle|oracledb)\b[^\n]*?[\s\"'=]\w+/([^@\s\"'/]+)@",
    ),
)


def _placed(kind: str, source: bytes, *, fits: Callable[[bytes], bool] | None = None) -> Rule:
    """A phrase of which no part alone is telling, such as a path with an `@` in it."""
    return replace(phrase(kind, source, fits=fits), trigger=source)


# `scott/tiger@ORCL` away from its programs, and secrets that stand in a place, not beside a name
POSITIONS: tuple[Rule, ...] = (
    _placed(
        "password",
        rb"(?i)\b(?:oracle|ora-\d+|tns-\d+|sql\*net|logon|userid|oci)\b"
        rb"[^\n@]{0,40}?[\s\"'=:\x28]\w+/([^@\s\"'/]+)@(?://)?[A-Za-z]",
    ),
    _placed(
        "password",
        rb"(?i)\b(?:connect(?:ed|ing|ion)?|dsn|user|login|log on as|credentials?)\b"
        rb"[^\n@]{0,40}?[\s\"'=:\x28]\w+/([^@\s\"'/]+)@(?://)?[A-Za-z]",
        fits=_odd,
    ),
    _placed("password", rb"(?:^|[\s\"'=\x28])[A-Za-z][\w$]*/([^@\s\"'/]+)@(?://)?[A-Za-z_]", fits=_random),
    _placed(
        "password",
        rb"(?i)\bargs[\"']?[ \t]*[:=][ \t]*[\[\x28][^\n]{0,200}?[\"'],[ \t]*b?[\"']([^\"'\n]+)[\"']",
        fits=_random,
    ),
    _placed(
        "password",
        rb"(?i)\bargs[\"']?[ \t]*[:=][ \t]*[\[\x28][ \t]*b?[\"']"
        rb"(?:\w*user\w*|u|svc\w*|admin\w*|root|etl\w*|login\w*|sa|scott|system)"
        rb"[\"'],[ \t]*b?[\"']([^\"'\n]+)[\"']",
        fits=_odd,
    ),
    _placed(
        "password",
        rb"(?i)\b(?:login|connect|logon|authenticate|basic_?auth|digest_?auth|set_?password|plain)\x28[ \t]*"
        rb"(?:b?[\"'][^\"'\n]*[\"'][ \t]*,[ \t]*){1,3}b?[\"']([^\"'\n]+)[\"'][ \t]*[,\x29]",
        fits=_random,
    ),
    _placed(
        "api-key",
        rb"(?i)\b(?:with|using|by|the|this|via) key[ \t:=]+[\"']?([A-Za-z0-9_+=-]{16,})",
        fits=_generated,
    ),
)

PHRASES: tuple[Rule, ...] = (
    phrase(
        "signature",
        rb"(?i)[?&;](?:amp;)?(?:sig|signature|x-amz-signature|x-goog-signature|awsaccesskeyid|x-amz-credential|"
        rb"x-goog-credential|x-amz-security-token|hmac|code|key|apikey|appid|auth)=([^&\s\"'<>;]{6,})",
        fits=_odd,
    ),
    phrase(
        "authorization",
        rb"(?i)authorization" + rb"(?:" + _Q + rb")?[ \t]*[:=][ \t]*(?:b?" + _Q + rb")?"
        rb"(?:basic|bearer|token|apikey|key|negotiate|ntlm|splunk|geniekey|oauth|ssws|sharedkey|bot|client-id|jwt)"
        rb"[ \t]+([^\s\"'\\,;]+)",
    ),
    phrase(
        "authorization",
        rb"(?i)authorization(?:" + _Q + rb")?[ \t]*[:=][ \t]*(?:b?" + _Q + rb")?"
        rb"(?:digest|aws4-hmac-sha256|hmac-sha256|hawk|oauth|signature|macaroon)[ \t]+"
        rb"([^\n\r\"'\\]*[^\n\r\"'\\ ])",
    ),
    phrase("bearer-token", rb"(?i)\bbearer[ \t:]+([A-Za-z0-9._~+/=-]{12,})", fits=_opaque),
    phrase("basic-auth", rb"(?i)\bbasic[ \t]+([A-Za-z0-9+/]{6,}={0,2})", fits=_user_and_password),
    phrase("cookie", rb"(?i)\b(?:set-)?cookie2?[ \t]*:[ \t]*([\w.$-]+=[^\n\r\"'\\]*[^\n\r\"'\\ ])"),
    phrase(
        "session-id",
        rb"(?i)\b(?:jsessionid|phpsessid|asp\.net_sessionid|connect\.sid|sessid|sid)[=:]([^\s;&\"',]{8,})",
    ),
    # SQL
    phrase(
        "password", rb"(?i)\bidentified\s+(?:with\s+\S+\s+)?(?:by|as)\s+(?:password\s+)?[\"']?([^\s\"';,)]+)"
    ),
    phrase("password", rb"(?i)\bpassword\s*\(\s*'((?:[^'\n]|'')+)'\s*\)"),
    phrase("password", rb"(?i)\bpassword[ \t]+N?'((?:[^'\n\\]|''|\\.)+)'"),
    phrase("password", rb"(?i)\bpassword[ \t]+\"([^\"\n]+)\"", fits=_odd),
    phrase(
        "password",
        rb"(?i)\bpass(?:word|phrase|code)[ \t]+(?:is|was)[ \t:]+[\"']?([^\s\"',;]+[^\s\"',;.])",
        fits=_has_digit,
    ),
    phrase("password", rb"(?i)\bpgp_sym_(?:en|de)crypt\([^\n]*?,\s*'([^'\n]+)'"),
    # command lines
    phrase(
        "password",
        rb"\b(?:mysql|mysqldump|mysqladmin|mysqlimport|mariadb(?:-dump)?|mycli)\b[^\n|;]*?\s-p[\"']?([^\s\"']+)",
    ),
    phrase("password", rb"\bsshpass\s+-p\s*[\"']?([^\s\"']+)"),
    phrase("password", rb"\b(?:sqlcmd|bcp|isql|tsql|osql)\b[^\n|;]*?\s-P\s*[\"']?([^\s\"']+)"),
    phrase("password", rb"\b(?:redis-cli|valkey-cli)\b[^\n|;]*?\s-a\s+[\"']?([^\s\"']+)"),
    phrase(
        "password",
        rb"\b(?:mongo|mongosh|mongodump|mongorestore|mongoimport|mongoexport|(?:docker|podman|helm|nerdctl|az|oc|skopeo|crane)"
        rb"\b[^\n|;]*?login|beeline|impala-shell|snowsql|htpasswd|vncpasswd)\b[^\n|;]*?\s-p\s*[\"']?([^\s\"']+)",
    ),
    phrase(
        "password",
        rb"\b(?:curl|wget|http|https|xh|httpie|lftp|smbclient|aria2c)\b[^\n|;]*?\s"
        rb"(?:-u|-U|-a|--user|--proxy-user|--auth)[ =]?[\"']?[^\s:%\"'/,]+[:%,]([^\s\"'/][^\s\"']*)",
    ),
    phrase(
        "password",
        rb"\b(?:ldapsearch|ldapmodify|ldapadd|ldapwhoami|ipmitool)\b[^\n|;]*?\s-[wP]\s*[\"']?([^\s\"']+)",
    ),
    phrase("password", rb"\b(?:7z|7za|zip|unzip)\b[^\n|;]*?\s-[pP]\s?[\"']?([^\s\"'-][^\s\"']*)"),
    phrase(
        "passphrase",
        rb"(?:-pass(?:in|out)?|-storepass|-keypass|-srcstorepass|-deststorepass)\s+(?:pass:)?[\"']?([^\s\"':]+)(?:\s|$|[\"'])",
    ),
    phrase(
        "password",
        rb"\becho\s+(?:-n\s+)?[\"']?([^\s\"'|$]+)[\"']?\s*\|[^\n]*(?:--password-stdin|sudo\s+-S|passwd|base64)",
    ),
    # files of passwords
    phrase("password", rb"(?:^|[\s\"'])[\w.*-]+:(?:\d{3,5}|\*):[\w*.-]+:[\w*.@-]+:([^\s:\"']+)(?:$|[\s\"'])"),
    phrase("password", rb"(?i)\b(?:machine\s+\S+\s+|default\s+)?login\s+\S+\s+password\s+([^\s\"']+)"),
    # structures that put name and value apart
    phrase(
        "secret",
        rb"(?i)<(?:\w+:)?" + _KEY + rb"\b[^<>\n]*>\s*([^<\s][^<\n]*)</",
        fits=lambda s: not s.startswith(b"$"),
    ),
    phrase("secret", rb"(?i)<(?:name|key)>" + _KEY + rb"</(?:name|key)>\s*<value>([^<\n]+)</value>"),
    phrase(
        "secret",
        rb"(?i)(?:name|key)(?:"
        + _Q
        + rb")?\s*[:=]\s*(?:"
        + _Q
        + rb")?"
        + _KEY
        + rb"(?:"
        + _Q
        + rb")?\s*,\s*(?:"
        + _Q
        + rb")?"
        rb"value(?:" + _Q + rb")?\s*[:=]\s*(?:" + _Q + rb")?([^\s\"'\\,}]+)",
    ),
    phrase("secret", rb"(?i)\(\s*b?[\"']" + _KEY + rb"[\"']\s*,\s*b?[\"']([^\"'\n]+)[\"']\s*\)", fits=_odd),
    phrase(
        "aws-secret-key",
        rb"\[aws-access-key-id\][^A-Za-z0-9+/\n]{1,20}([A-Za-z0-9+/]{40})(?:[^A-Za-z0-9+/=]|$)",
    ),
    phrase("password", rb"(?i)\bpwd=(\{[^}\n]+\})"),
    phrase("secret", rb"(?i)\bdata(?:base)?_?source_?name=\S*?:([^@\s/]+)@tcp\("),
    phrase("password", rb"\b[\w.-]+:([^\s@/:\"'()]+)@(?:tcp|unix)\("),
    phrase("kubernetes-token", rb"(?i)\bkubeadm\s+join\b[^\n]*--token[ =](\S+)"),
    phrase(
        "signature",
        rb"(?i)\bx-(?:hub|slack|shopify|twilio|airmedic)-[\w-]*signature(?:-256)?[\"']?\s*[:=]\s*[\"']?([^\s\"',]{16,})",
    ),
    # names and values that stand apart in other ways
    phrase("password", rb"\bSecretStr\(b?[\"']([^\"'\n]+)"),
    phrase(
        "secret",
        rb"(?i)\bvalue[\"']?\s*:\s*[\"']([^\"'\n]+)[\"']\s*,\s*[\"']?name[\"']?\s*:\s*[\"']?" + _KEY + rb"\b",
    ),
    phrase("secret", rb"(?i)\b" + _KEY + rb":[ \t]*[\w\[\]. |]+=[ \t]*b?[\"']([^\"'\n]{3,})[\"']"),
    phrase("secret", rb"(?i)\b" + _KEY + rb"[ \t]+([^\s\"'=:/()\[\]{},;|<>]+)", fits=_random),
    phrase("password", rb"(?i)\bpass(?:word|phrase|code) for [^\s:]+:[ \t]*([^\s\"']+)", fits=_random),
    phrase(
        "password", rb"(?i)auth[ \t]*=?[ \t]*\([ \t]*[\"'][^\"'\n]*[\"'][ \t]*,[ \t]*[\"']([^\"'\n]+)[\"']"
    ),
    phrase("secret", rb"(?i)\|[ \t]*" + _KEY + rb"[ \t]*\|[ \t]*([^\s|]+)[ \t]*\|", fits=_odd),
    phrase(
        "secret",
        rb"(?i)\b(?:passwords|tokens|secrets|api_?keys)[\"']?[ \t]*[:=]"
        rb"[ \t]*[\[\x28{][ \t]*[\"']([^\"'\n]+)[\"']",
        fits=_random,
    ),
    phrase("secret", rb"(?i)<[^<>\n]*\b" + _KEY + rb"\b[^<>\n]*\bvalue=[\"']([^\"'\n]+)"),
)
