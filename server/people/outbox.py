"""Notices on their way: stored with the state they tell of, sent afterwards, once each.

A notice is claimed under a lease before it is sent and marked after the provider took it. A process that
dies in between leaves doubt whether the provider took it; it is then sent again when the lease is over.
Everywhere else once means once, over restarts and processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import structlog
from sqlalchemy import RowMapping, delete, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlmodel import col

from graph.domain import DomainType, Severity, Status
from graph.errors import AirmedicError
from server.audit.trail import AuditTrail
from server.db.database import store_errors
from server.db.prepared import Prepared, insert_once_in
from server.db.tables import IncidentRow
from server.db.tables_people import NoticeRow
from server.people.apprise_door import Door, Sent
from server.people.bundling import GATHER, MINUTE, Message, Waiting, messages, text_of
from server.people.notifier import Notice
from server.people.notify_file import Routing
from tools.gateway import AirflowGateway

log = structlog.get_logger("notify")

LEASE = timedelta(seconds=120)  # longer than all targets of one message may take
BACKOFF = (5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)  # seconds after the first, second, … failure
GIVE_UP = 10  # failures after which a notice is given up
AT_ONCE = 500  # notices looked at together
QUIET_STEP = timedelta(minutes=5)  # between two looks whether the quiet hours are over
ABOUT_QUESTIONS = ("approval_asked", "expiring")


POSTED = Prepared(lambda dialect, _names: insert_once_in(dialect, NoticeRow))


class OutboxState(DomainType):
    """How telling people goes, for status pages, metrics and the doctor."""

    waiting: int = 0
    failing: int = 0  #: of those that wait, how many failed at least once
    given_up: int = 0
    sent: int = 0
    last_error: str = ""


@dataclass
class _Going:
    """One message on its way: who hears of what, and who has."""

    claim: str
    members: Sequence[Waiting]
    targets: Mapping[int, tuple[str, ...]]
    message: Message
    footer: str
    failed: dict[int, str] = field(default_factory=dict)
    reached: dict[int, set[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.reached = {one.id: set(one.sent_to) for one in self.members}

    def left_for(self, url: str, name: str) -> list[Waiting]:
        """The notices this target should hear of and has not."""
        return [
            one for one in self.members if url in self.targets[one.id] and name not in self.reached[one.id]
        ]


def _log(sent: Sent, name: str, told: Sequence[Waiting]) -> None:
    words = {"target": name, "notices": len(told), "about": told[0].notice.event}
    if sent.ok:
        log.info("notice_sent", **words)
    else:
        log.warning("notice_failed", error=sent.why, **words)


class Outbox:
    """Takes notices in the transactions of others, and sends what is due."""

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        routing: Routing | None,
        door: Door | None,
        airflow: AirflowGateway,
        clock: Callable[[], datetime],
        link: str,
        owner: str,
        audit: AuditTrail | None = None,
    ) -> None:
        self._engine = engine
        self._routing = routing
        self._door = door
        self._airflow = airflow
        self._clock = clock
        self._link = link.rstrip("/")
        self._owner = owner
        self._audit = audit

    # --- coming in ---

    async def post(self, connection: AsyncConnection, notice: Notice) -> bool:
        """Store it within the caller's transaction. False when one with its key was there already."""
        now = self._clock()
        row = {
            "key": (notice.key or f"{notice.event}:{uuid4().hex}")[:200],
            "event": notice.event,
            "severity": notice.severity.value,
            "incident_id": notice.incident_id,
            "version": notice.version,
            "dag_id": notice.dag_id,
            "title": notice.title,
            "body": notice.body,
            "created_at": now,
            "due_at": now + (self._digest_wait(notice.event) or GATHER),
            "status": "unrouted" if self._routing is None else "due",
            "attempts": 0,
            "error": "",
        }
        return await POSTED.run(connection, row) > 0

    # --- going out ---

    async def deliver_due(self) -> int:
        """Send what is due now; the number of messages that went to somebody comes back."""
        if self._routing is None or self._door is None or not (due := await self._due()):
            return 0
        lately = await self._lately()
        sent = 0
        for message in messages(due, lately=lately, now=self._clock()):
            sent += await self._deliver(message, self._routing, self._door)
        return sent

    async def tell_at_once(self, notice: Notice) -> None:
        """Send past the outbox: for the one case in which there is no database to keep it."""
        if self._routing is None or self._door is None:
            return
        waiting = Waiting(id=0, notice=notice, created_at=self._clock(), attempts=0)
        title, body = text_of([waiting], digest=False, link=self._link)
        for url in self._routing.targets(notice):
            sent = await self._door.send(url, title=title, body=body, grave=True)
            log.info("notice_sent" if sent.ok else "notice_failed", notice=notice.event, error=sent.why)

    async def free_claims(self, *, dead: Callable[[str], bool]) -> None:
        """Give up the claims of processes that are known to be gone."""
        claims = select(col(NoticeRow.claim)).where(col(NoticeRow.claim).is_not(None)).distinct()
        with store_errors("reading notices"):
            async with self._engine.connect() as connection:
                held = [str(claim) for claim in (await connection.execute(claims)).scalars()]
        gone = [claim for claim in held if dead(claim.rpartition("/")[0])]
        if gone:
            freed = update(NoticeRow).where(col(NoticeRow.claim).in_(gone))
            await self._write(freed.values(claim=None, lease_until=None))

    async def _due(self) -> list[Waiting]:
        now, row = self._clock(), NoticeRow
        query = (
            select(row)
            .where(col(row.status) == "due", col(row.due_at) <= now + GATHER, self._free(now))
            .order_by(col(row.id))
            .limit(AT_ONCE)
        )
        with store_errors("reading notices"):
            async with self._engine.connect() as connection:
                found = (await connection.execute(query)).mappings().all()
        # What failed comes back at its time; what is fresh already counts as company.
        due = [one for one in (self._waiting(row) for row in found) if one.ripe or one.attempts == 0]
        if any(one.digest and one.ripe for one in due):
            due = await self._with_digest(due)
        return due

    async def _with_digest(self, due: list[Waiting]) -> list[Waiting]:
        """When one notice's wait for the digest is over, the others of the digest come along."""
        row, known = NoticeRow, {one.id for one in due}
        query = select(row).where(col(row.status) == "due", self._free(self._clock())).order_by(col(row.id))
        with store_errors("reading notices"):
            async with self._engine.connect() as connection:
                found = (await connection.execute(query.limit(AT_ONCE))).mappings().all()
        others = [one for one in map(self._waiting, found) if one.digest and one.id not in known]
        return due + [one for one in others if one.attempts == 0]

    @staticmethod
    def _free(now: datetime) -> Any:
        until = col(NoticeRow.lease_until)
        # Longer than a lease is one that a clock gave which was put back.
        return or_(until.is_(None), until < now, until > now + LEASE)

    def _waiting(self, row: RowMapping) -> Waiting:
        notice = Notice(
            event=row["event"],
            title=row["title"],
            body=row["body"],
            incident_id=row["incident_id"],
            key=row["key"],
            severity=Severity(row["severity"]),
            dag_id=row["dag_id"],
            version=row["version"],
        )
        return Waiting(
            id=row["id"],
            notice=notice,
            created_at=row["created_at"],
            attempts=row["attempts"],
            ripe=row["due_at"] <= self._clock(),
            digest=self._digest_wait(notice.event) is not None,
            sent_to=tuple(row["sent_to"] or ()),
        )

    def _digest_wait(self, event: str) -> timedelta | None:
        return None if self._routing is None else self._routing.wait_for_digest(event)

    async def _lately(self) -> dict[str, int]:
        now, row = self._clock(), NoticeRow
        query = (
            select(col(row.event), func.count(col(row.message).distinct()))
            .where(col(row.sent_at).between(now - MINUTE, now))
            .group_by(col(row.event))
        )
        with store_errors("reading notices"):
            async with self._engine.connect() as connection:
                return {str(event): int(count) for event, count in (await connection.execute(query)).all()}

    async def _deliver(self, message: Message, routing: Routing, door: Door) -> int:
        """Claim the message's notices, send them to their targets, and write down how it went."""
        claim = f"{self._owner}/{uuid4().hex[:12]}"
        mine = await self._claim(message, claim)
        now = self._clock()
        moot = await self._moot(mine)
        await self._mark(claim, moot, status="moot")
        quiet = [one.id for one in mine if routing.quiet_now(one.notice.severity, now)]
        await self._mark(claim, quiet, due_at=now + QUIET_STEP)
        left = [one for one in mine if one.id not in moot and one.id not in quiet]
        targets = {one.id: routing.targets(one.notice, await self._tags(routing, one.notice)) for one in left}
        await self._mark(claim, [one.id for one in left if not targets[one.id]], status="unrouted")
        sendable = [one for one in left if targets[one.id]]
        if not sendable:
            return 0
        footer = await self._footer() if message.digest else ""
        going = _Going(claim, sendable, targets, message, footer)
        count = await self._send(going, door)
        await self._close(going)
        return count

    async def _send(self, going: _Going, door: Door) -> int:
        count = 0
        for url in dict.fromkeys(url for one in going.members for url in going.targets[one.id]):
            name = door.name(url)
            told = going.left_for(url, name)
            if not told:
                continue
            title, body = text_of(told, digest=going.message.digest, link=self._link, footer=going.footer)
            sent = await door.send(url, title=title, body=body, grave=going.message.grave)
            _log(sent, name, told)
            for one in told:
                if sent.ok:
                    going.reached[one.id].add(name)
                else:
                    going.failed[one.id] = f"{name}: {sent.why}"
            # At once: a crash before the next target must not send this one again.
            await self._keep_reached(going, told)
            count += sent.ok
        return count

    async def _keep_reached(self, going: _Going, told: Sequence[Waiting]) -> None:
        until = self._clock() + LEASE
        for reached in {tuple(sorted(going.reached[one.id])) for one in told}:
            same = [one.id for one in told if tuple(sorted(going.reached[one.id])) == reached]
            await self._mark(going.claim, same, release=False, sent_to=list(reached), lease_until=until)

    async def _close(self, going: _Going) -> None:
        now, message = self._clock(), uuid4().hex
        done = [one.id for one in going.members if one.id not in going.failed]
        await self._mark(going.claim, done, status="sent", sent_at=now, message=message, error="")
        failed = [one for one in going.members if one.id in going.failed]
        for attempts in sorted({one.attempts + 1 for one in failed}):
            again = [one.id for one in failed if one.attempts + 1 == attempts]
            words = going.failed[again[0]][:500]
            if attempts >= GIVE_UP:
                log.error("notice_given_up", error=words, notices=len(again))
                await self._mark(going.claim, again, status="given_up", attempts=attempts, error=words)
                continue
            due = now + timedelta(seconds=BACKOFF[min(attempts, len(BACKOFF)) - 1])
            await self._mark(going.claim, again, due_at=due, attempts=attempts, error=words)

    async def _footer(self) -> str:
        """The audit trail's head goes where nobody who reaches our database can change it."""
        if self._audit is None:
            return ""
        try:
            head = await self._audit.head()
        except AirmedicError:
            return ""
        return f"audit trail head: {head}" if head is not None else ""

    async def _tags(self, routing: Routing, notice: Notice) -> tuple[str, ...] | None:
        if not routing.asks_tags or not notice.dag_id:
            return ()
        try:
            async with asyncio.timeout(5):
                return (await self._airflow.dag(notice.dag_id)).tags
        except (AirmedicError, TimeoutError):
            return None  # rather told once too many than not at all

    # --- rows ---

    async def _claim(self, message: Message, claim: str) -> list[Waiting]:
        now, row = self._clock(), NoticeRow
        ids = [one.id for one in message.members]
        taking = (
            update(row)
            .where(col(row.id).in_(ids), col(row.status) == "due", self._free(now))
            .values(claim=claim, lease_until=now + LEASE)
        )
        if not await self._write(taking):
            return []
        with store_errors("reading notices"):
            async with self._engine.connect() as connection:
                query = select(row).where(col(row.claim) == claim).order_by(col(row.id))
                return [self._waiting(one) for one in (await connection.execute(query)).mappings()]

    async def _moot(self, mine: Sequence[Waiting]) -> list[int]:
        """Questions that were answered or withdrawn before anybody was told of them."""
        asking = [one for one in mine if one.notice.event in ABOUT_QUESTIONS]
        if not asking:
            return []
        row = IncidentRow
        query = select(col(row.id), col(row.version)).where(
            col(row.id).in_([one.notice.incident_id for one in asking]),
            col(row.status) == Status.WAITING_DECISION.value,
        )
        with store_errors("reading incidents"):
            async with self._engine.connect() as connection:
                still = {(number, version) for number, version in (await connection.execute(query)).all()}
        return [one.id for one in asking if (one.notice.incident_id, one.notice.version) not in still]

    async def _mark(self, claim: str, ids: Sequence[int], *, release: bool = True, **values: object) -> None:
        """Change notices of ours; what somebody else has claimed since stays as it is."""
        if not ids:
            return
        freed: dict[str, object] = {"claim": None, "lease_until": None} if release else {}
        ours = update(NoticeRow).where(col(NoticeRow.id).in_(ids), col(NoticeRow.claim) == claim)
        await self._write(ours.values(**freed, **values))

    async def state(self) -> OutboxState:
        """How telling people goes."""
        return await read_state(self._engine)

    async def prune(self, before: datetime) -> int:
        """Forget notices that were dealt with before this moment."""
        row = NoticeRow
        return await self._write(delete(row).where(col(row.status) != "due", col(row.created_at) < before))

    async def _write(self, statement: Any) -> int:
        with store_errors("writing notices"):
            async with self._engine.begin() as connection:
                return max((await connection.execute(statement)).rowcount, 0)


async def read_state(engine: AsyncEngine) -> OutboxState:
    """How telling people goes."""
    row = NoticeRow
    query = select(col(row.status), func.count(), func.count(func.nullif(col(row.attempts), 0)))
    worst = select(col(row.error)).where(col(row.error) != "").order_by(col(row.id).desc()).limit(1)
    with store_errors("counting notices"):
        async with engine.connect() as connection:
            found = {
                str(status): (int(count), int(tried))
                for status, count, tried in (await connection.execute(query.group_by(col(row.status)))).all()
            }
            error = (await connection.execute(worst)).scalar_one_or_none()
    waiting, failing = found.get("due", (0, 0))
    return OutboxState(
        waiting=waiting,
        failing=failing,
        given_up=found.get("given_up", (0, 0))[0],
        sent=found.get("sent", (0, 0))[0],
        last_error=error or "",
    )
