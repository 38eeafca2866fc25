"""The arithmetic of the audit trail: what each entry's mac covers, and what a broken chain looks like.

mac(n) = HMAC-SHA256(key, mac(n-1) + newline + body(n)), where the body is canonical JSON that holds the
entry's number and the name of its key. Whoever lacks the key can change no entry, take none out and swap
none. A cut tail leaves a chain that is whole: only a head that was kept elsewhere shows it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import Field, JsonValue

from graph.domain import DomainType
from graph.errors import SettingsInvalid

GENESIS = "0" * 64  # the mac before the first entry
NO_KEY = "none"  # stands in an entry that was chained without a key
SHORT = 16  # characters


class AuditEntry(DomainType):
    """One thing to be recorded: what happened, who or what allowed it, and the particulars."""

    kind: str
    by: str
    incident_id: int | None = None
    data: dict[str, JsonValue] = Field(default_factory=dict)


class AuditHead(DomainType):
    """The end of the chain at one moment; kept elsewhere, it vouches for everything before it."""

    seq: int
    mac: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.mac}"

    @classmethod
    def parse(cls, text: str) -> AuditHead:
        """Read SEQ:MAC. Raises `SettingsInvalid`."""
        seq, _, mac = text.strip().partition(":")
        if not seq.isdecimal() or len(mac) != len(GENESIS) or set(mac) - set("0123456789abcdef"):
            raise SettingsInvalid(f"{text!r} is no head of an audit trail: it is written SEQ:MAC")
        return cls(seq=int(seq), mac=mac)


class AuditKeys:
    """The keys entries are chained under. The first signs; the others still verify what they signed."""

    def __init__(self, secrets: Sequence[str] = ()) -> None:
        if short := [one for one in secrets if len(one) < SHORT]:
            raise SettingsInvalid(
                f"AIRMEDIC_AUDIT_KEY is wrong: {len(short)} of its keys are shorter than {SHORT} characters "
                "(openssl rand -hex 32)"
            )
        self._keys = {_name_of(secret): secret.encode() for secret in secrets}
        self.signing = next(iter(self._keys), NO_KEY)  #: name of the key that signs

    @classmethod
    def parse(cls, text: str | None) -> AuditKeys:
        """Keys separated by commas, the newest first; none when there is no text."""
        return cls([one.strip() for one in (text or "").split(",") if one.strip()])

    @property
    def keyed(self) -> bool:
        """Whether there is a key at all."""
        return self.signing != NO_KEY

    def mac(self, name: str, previous: str, body: str) -> str | None:
        """The mac of an entry under the key of this name; None when we do not have it."""
        text = f"{previous}\n{body}".encode()
        if name == NO_KEY:
            return hashlib.sha256(text).hexdigest()
        key = self._keys.get(name)
        return None if key is None else hmac.new(key, text, hashlib.sha256).hexdigest()


def _name_of(secret: str) -> str:
    return hmac.new(secret.encode(), b"airmedic audit key", hashlib.sha256).hexdigest()[:8]


def canonical(value: object) -> str:
    """One spelling, in ASCII: every database gives back the bytes it was given."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def body_of(entry: AuditEntry, *, seq: int, at: datetime, key: str) -> str:
    """What the mac covers."""
    return canonical(
        {
            "seq": seq,
            "at": at.isoformat(),
            "kind": entry.kind,
            "by": entry.by,
            "incident": entry.incident_id,
            "key": key,
            "data": entry.data,
        }
    )


@dataclass(frozen=True)
class StoredEntry:
    """One row as it stands in the database."""

    seq: int
    at: datetime
    kind: str
    incident_id: int | None
    body: str
    mac: str


@dataclass(frozen=True)
class Break:
    """Where the chain is broken: the first entry that is not as it was written."""

    seq: int
    why: str


@dataclass
class ChainCheck:
    """Walks the chain from its first entry; `known` are heads that were kept elsewhere."""

    keys: AuditKeys
    known: Sequence[AuditHead] = ()
    seq: int = 0
    mac: str = GENESIS
    unkeyed: int = 0
    _keyed: bool = field(default=False, repr=False)

    def feed(self, row: StoredEntry) -> Break | None:
        """Check the next entry; what is wrong with the chain at this place."""
        wanted = self.seq + 1
        if row.seq != wanted:
            return Break(wanted, f"entry {wanted} is missing: entry {self.seq} is followed by {row.seq}")
        why = self._wrong(row)
        if why is not None:
            return Break(row.seq, f"entry {row.seq} {why}")
        self.seq, self.mac = row.seq, row.mac
        for head in self.known:
            if head.seq == row.seq and head.mac != row.mac:
                why = "is not the one whose head was kept: the trail was rewritten up to here"
                return Break(row.seq, f"entry {row.seq} {why}")
        return None

    def _wrong(self, row: StoredEntry) -> str | None:
        try:
            told = json.loads(row.body)
            name, seq = str(told["key"]), told["seq"]
            same = (told["kind"], told["incident"], datetime.fromisoformat(told["at"]))
        except (ValueError, KeyError, TypeError):
            return "was changed: it cannot be read"
        mac = self.keys.mac(name, self.mac, row.body)
        if mac is None:
            return f"was written under key {name}, which AIRMEDIC_AUDIT_KEY does not hold, or was changed"
        if not hmac.compare_digest(mac, row.mac):
            return "was changed, or another was put in its place"
        if seq != row.seq:
            return f"calls itself entry {seq}"
        if same != (row.kind, row.incident_id, row.at):
            return "has columns that differ from what was recorded"
        if name == NO_KEY and self._keyed:
            return "is without a key after entries that have one"
        self._keyed = self._keyed or name != NO_KEY
        self.unkeyed += name == NO_KEY
        return None

    def finish(self, head: AuditHead | None) -> Break | None:
        """After the last entry: is the tail there? `head` is what the database says the end is."""
        for known in self.known:
            if known.seq > self.seq:
                missing = self.seq + 1
                return Break(missing, f"entries {missing} to {known.seq} are missing: the tail was cut off")
        if head is None:
            return Break(self.seq + 1, "the row that holds the head is missing")
        if head.seq > self.seq:
            missing = self.seq + 1
            return Break(missing, f"entries {missing} to {head.seq} are missing: the tail was cut off")
        if (head.seq, head.mac) != (self.seq, self.mac):
            return Break(self.seq, f"the stored head names entry {head.seq}, the last one is {self.seq}")
        if self.keys.keyed and self.seq and not self._keyed:
            return Break(
                self.seq, "no entry has a key although AIRMEDIC_AUDIT_KEY is set: start Airmedic once with it"
            )
        return None
