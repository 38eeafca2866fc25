"""The audit trail in the database: appended in the same transaction as what it records, never changed.

Whoever appends holds the head's row until it commits, so entries are in one order over all processes.
Append last in a transaction: the head is the last lock anybody takes.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any

from pydantic import JsonValue
from sqlalchemy import Executable, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.errors import SettingsInvalid, StoreUnavailable
from server.audit.chain import (
    NO_KEY,
    AuditEntry,
    AuditHead,
    AuditKeys,
    Break,
    ChainCheck,
    StoredEntry,
    body_of,
    canonical,
)
from server.db.database import store_errors
from server.db.packed import entry_of
from server.db.prepared import Prepared
from server.db.tables import table_of
from server.db.tables_people import AuditHeadRow, AuditRow
from tools.redaction import redact, redact_json

LONGEST = 4000  # characters of a before-image, an after-image or a list of arguments
LINES = 10  # evidence lines
LINE = 300  # characters of one
PAGE = 1000  # entries read at a time


def bounded(value: JsonValue) -> JsonValue:
    """The value without secrets; a large one is named by its digest and how it begins."""
    clean = redact_json(value)
    text = canonical(clean)
    if len(text) <= LONGEST:
        return clean
    name = hashlib.sha256(text.encode()).hexdigest()
    return {"sha256": name, "characters": len(text), "begins": text[:500]}


def _claim(_dialect: str, _names: tuple[str, ...]) -> Executable:
    table = table_of(AuditHeadRow)
    further = table.c.seq + bindparam("b_more", type_=table.c.seq.type)
    return update(table).where(table.c.id == 1).values(seq=further).returning(table.c.seq, table.c.mac)


def _move_head(_dialect: str, _names: tuple[str, ...]) -> Executable:
    table = table_of(AuditHeadRow)
    return update(table).where(table.c.id == 1).values(mac=bindparam("mac"))


ENTRIES = Prepared(lambda _dialect, _names: insert(AuditRow))
CLAIM, MOVE_HEAD = Prepared(_claim), Prepared(_move_head)


class AuditTrail:
    """Appends entries, and reads them back."""

    def __init__(self, engine: AsyncEngine, *, keys: AuditKeys, clock: Callable[[], datetime]) -> None:
        self._engine = engine
        self._keys = keys
        self._clock = clock
        self.newest: AuditHead | None = None  #: the last head this process wrote or read

    async def append(self, connection: AsyncConnection, entry: AuditEntry) -> AuditHead:
        """Append within the caller's transaction, as its last statement."""
        return await self.append_all(connection, [entry])

    async def append_all(self, connection: AsyncConnection, entries: Sequence[AuditEntry]) -> AuditHead:
        """Append several in their order; the head is locked and moved once."""
        found = await CLAIM.fetch(connection, {"b_more": len(entries)})
        if not found:
            # Fail closed: what cannot be recorded is not done.
            raise StoreUnavailable("the audit trail has lost its head; see `airmedic audit verify`")
        (last, mac), now, rows = found[0], self._clock(), []
        for seq, entry in enumerate(entries, last - len(entries) + 1):
            body = body_of(entry, seq=seq, at=now, key=self._keys.signing)
            chained = self._keys.mac(self._keys.signing, mac, body)
            assert chained is not None
            mac = chained
            rows.append(
                {
                    "seq": seq,
                    "at": now,
                    "kind": entry.kind,
                    "incident_id": entry.incident_id,
                    "body": body,
                    "mac": mac,
                }
            )
        await ENTRIES.run_many(connection, rows)
        await MOVE_HEAD.run(connection, {"mac": mac})
        self.newest = AuditHead(seq=last, mac=mac)
        return self.newest

    async def note(
        self, kind: str, *, by: str, incident_id: int | None = None, **data: JsonValue
    ) -> AuditHead:
        """Record something in a transaction of its own: a refusal, a start, a token."""
        clean = {name: bounded(value) for name, value in data.items()}
        entry = AuditEntry(kind=kind, by=redact(by)[:200], incident_id=incident_id, data=clean)
        with store_errors("writing the audit trail"):
            async with self._engine.begin() as connection:
                return await self.append(connection, entry)

    async def head(self) -> AuditHead | None:
        """The end of the chain as the database has it."""
        query = select(col(AuditHeadRow.seq), col(AuditHeadRow.mac)).where(col(AuditHeadRow.id) == 1)
        with store_errors("reading the audit trail"):
            async with self._engine.connect() as connection:
                found = (await connection.execute(query)).first()
        if found is None:
            return None
        self.newest = AuditHead(seq=int(found[0]), mac=str(found[1]))
        return self.newest

    async def entries(
        self, *, after: int = 0, since: datetime | None = None, incident_id: int | None = None
    ) -> AsyncIterator[StoredEntry]:
        """All entries in order, a page at a time."""
        row = AuditRow
        body = entry_of(col(row.body), sqlite=self._engine.dialect.name == "sqlite")
        while True:
            query = select(
                col(row.seq), col(row.at), col(row.kind), col(row.incident_id), body, col(row.mac)
            ).where(col(row.seq) > after)
            if since is not None:
                query = query.where(col(row.at) >= since)
            if incident_id is not None:
                query = query.where(col(row.incident_id) == incident_id)
            with store_errors("reading the audit trail"):
                async with self._engine.connect() as connection:
                    page = (await connection.execute(query.order_by(col(row.seq)).limit(PAGE))).all()
            for one in page:
                yield StoredEntry(*one)
            if len(page) < PAGE:
                return
            after = page[-1][0]

    async def verify(self, known: Sequence[AuditHead] = ()) -> tuple[ChainCheck, Break | None]:
        """Walk the whole chain. What was walked, and the first break."""
        # The head first: entries that are appended meanwhile then only make the chain longer.
        head = await self.head()
        check = ChainCheck(self._keys, known)
        async for entry in self.entries():
            if (found := check.feed(entry)) is not None:
                return check, found
            if head is not None and check.seq == head.seq:
                break
        return check, check.finish(head)

    async def check_key(self) -> None:
        """Refuse to go on without the key the trail has been chained under. Raises `SettingsInvalid`."""
        if self._keys.keyed or (head := await self.head()) is None or head.seq == 0:
            return
        async for entry in self.entries(after=head.seq - 1):
            if f'"key":"{NO_KEY}"' not in entry.body:
                raise SettingsInvalid(
                    "the audit trail was chained under a key: set AIRMEDIC_AUDIT_KEY to the same one again"
                )


# --- what is recorded -------------------------------------------------------------------------------------

# Lines of the agent log that are decisions, and so stand in the audit trail too.
DECISIONS = frozenset({"decided", "approved", "withdrawn", "ended", "fix_undone", "answer_refused"})
EDIT_REFUSED = "the edit was refused"


def audited(incident_id: int | None, events: Sequence[dict[str, Any]]) -> list[AuditEntry]:
    """The entries that these lines of the agent log are worth."""
    entries = []
    for event in events:
        data = event.get("data") or {}
        kind = event["name"]
        if kind == "noted" and str(data.get("reason", "")).startswith(EDIT_REFUSED):
            kind = "refused"
        elif kind not in DECISIONS:
            continue
        by = str(data.get("by") or (f"policy rule {data['rule']}" if data.get("rule") else "airmedic"))
        kept = {name: bounded(value) for name, value in data.items() if name != "diff"}
        entries.append(AuditEntry(kind=kind, by=by, incident_id=incident_id, data=kept))
    return entries


def write_entry(
    step: str,
    *,
    key: str,
    incident_id: int,
    by: str,
    **data: JsonValue,
) -> AuditEntry:
    """One step of one write to Airmedic's ledger."""
    kept = {name: bounded(value) for name, value in data.items() if value not in (None, "")}
    return AuditEntry(kind=f"write_{step}", by=by, incident_id=incident_id, data={"key": key, **kept})


def evidence_of(diagnosis: JsonValue) -> list[JsonValue]:
    """The log lines a diagnosis rests on, with their numbers."""
    lines = diagnosis.get("evidence") if isinstance(diagnosis, dict) else None
    found: list[JsonValue] = []
    for one in (lines if isinstance(lines, list) else [])[:LINES]:
        if isinstance(one, dict):
            found.append({"line": one.get("line"), "text": str(one.get("text", ""))[:LINE]})
    return found
