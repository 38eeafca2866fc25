"""Personal data known by its shape and, where it has one, its check digit."""

from __future__ import annotations

import re

from tools.redaction_rules import Match, Rule, compiled, phrase

# Accounts of machines: they say which identity was refused, which a diagnosis needs.
_MACHINE_USERS = frozenset(
    b"git root airflow postgres mysql oracle ubuntu ec2-user centos debian admin hdfs hive spark hadoop "
    b"kafka noreply no-reply nobody www-data jenkins deploy etl sftp ftp svc service system daemon".split()
)
_MACHINE_DOMAINS = (b".gserviceaccount.com", b".svc", b".local", b".internal", b".cluster.local")
_EMAIL = rb"([A-Za-z0-9._%+'-]*[A-Za-z0-9_%+-])@((?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,})"
_EMAIL_TRIGGER = rb"[A-Za-z0-9_%+-]@[A-Za-z0-9-]+\.[A-Za-z0-9]"


def _replace_email(match: Match) -> bytes:
    """The domain stays: it is the host in `user@host`, and says whose mail bounced."""
    user, domain = match.group(1), match.group(2)
    if user.lower() in _MACHINE_USERS or domain.lower().endswith(_MACHINE_DOMAINS):
        return match.group()
    return b"[email]@" + domain


def _luhn(secret: bytes) -> bool:
    digits = [byte - 48 for byte in secret if 48 <= byte <= 57]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + doubled) % 10 == 0 and len(set(digits)) > 1


def _iban(secret: bytes) -> bool:
    plain = secret.replace(b" ", b"").decode("ascii")
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(char, 36)) for char in plain[4:] + plain[:4])) % 97 == 1


def _phone(secret: bytes) -> bool:
    """E.164 has eight to fifteen digits; unseparated ones need ten, or offsets like `+12345678` would go."""
    digits = sum(48 <= byte <= 57 for byte in secret)
    return 8 <= digits <= 15 and (digits >= 10 or bool(re.search(rb"[ ().-]", secret)))


_EDGE = rb"(?:^|[^\w.+/:-])"
_END = rb"(?:$|[^\w/:-])"
_CARD = (
    rb"(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6(?:011|5\d{2}|2\d{2})|35\d{2})(?:[ -]?\d{4}){3}"
    rb"|3[47]\d{2}[ -]?\d{6}[ -]?\d{5}|3(?:0[0-5]|[68]\d)\d[ -]?\d{6}[ -]?\d{4}"
)

EMAIL = Rule("email", compiled(_EMAIL), _replace_email, _EMAIL_TRIGGER)

PERSONAL: tuple[Rule, ...] = (
    phrase("card-number", _EDGE + b"(" + _CARD + b")" + _END, fits=_luhn),
    phrase("iban", rb"\b([A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?)\b", fits=_iban),
    phrase("ssn", _EDGE + rb"((?:00[1-9]|0[1-9]\d|[1-578]\d{2}|6[0-57-9]\d|66[0-57-9])-\d{2}-\d{4})" + _END),
    phrase("phone", rb"(?:^|[^\w.+-])(\+[1-9]\d{0,2}(?:[ .-]?\(?\d{1,5}\)?){2,6})" + _END, fits=_phone),
    phrase("phone", _EDGE + rb"((?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4})" + _END),
    phrase(
        "phone",
        rb"(?i)\b(?:phone|mobile|tel|telephone|fax|cell)(?:[ _-]?(?:no|number))?[\"']?\s*[:=]\s*[\"']?"
        rb"(\(?\d[\d ()./-]{6,18}\d)",
    ),
)
