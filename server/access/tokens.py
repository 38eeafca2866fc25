"""Access tokens: made, listed, revoked and found again. The database holds digests only."""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pydantic import JsonValue
from sqlalchemy import or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlmodel import col

from graph.domain import DomainType, Role
from graph.errors import TokenInvalid
from server.access.callers import Caller
from server.audit.chain import AuditEntry
from server.audit.trail import AuditTrail
from server.db.database import open_database, store_errors
from server.db.tables import EventRow
from server.db.tables_access import TokenRow

PREFIX = "airm_"
ALPHABET = string.digits + string.ascii_letters
RANDOM = 36  # characters: 214 bits, so the digest needs neither salt nor slowness
CHECKSUM = 6  # characters
SHOWN = 10  # characters of a token that lists show
TOKEN = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{RANDOM + CHECKSUM}}}")
# No blanks: a token can take no name that the server gives to others.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
TAKEN = frozenset({"airmedic"})  # signs what Airmedic does by itself
USED_EVERY = timedelta(minutes=1)  # how often `last_used_at` is written
DEFAULT_LIFE = timedelta(days=90)


def _checksum(text: str) -> str:
    number, spelled = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM):
        number, rest = divmod(number, len(ALPHABET))
        spelled += ALPHABET[rest]
    return spelled


def new_token() -> str:
    """A token nobody has yet. Its prefix and checksum let scanners tell it from other text."""
    text = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM))
    return PREFIX + text + _checksum(text)


def is_token(shown: str) -> bool:
    """Whether this can be one of our tokens at all; asked before the database is."""
    if TOKEN.fullmatch(shown) is None:
        return False
    text = shown.removeprefix(PREFIX)
    return _checksum(text[:RANDOM]) == text[RANDOM:]


def digest_of(shown: str) -> str:
    """What is stored of a token."""
    return hashlib.sha256(shown.encode()).hexdigest()


class AccessToken(DomainType):
    """What is known of a token."""

    id: int
    name: str
    role: Role
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None

    def state(self, now: datetime) -> str:
        """`valid`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "valid"

    def caller(self) -> Caller:
        """Who shows this token."""
        return Caller(name=self.name, role=self.role, id=f"token:{self.id}")


def _token_of(row: TokenRow) -> AccessToken:
    return AccessToken.model_validate({name: getattr(row, name) for name in AccessToken.model_fields})


def utc_now() -> datetime:
    """The clock of the command line."""
    return datetime.now(UTC)


class TokenStore:
    """The tokens in the database."""

    def __init__(
        self, engine: AsyncEngine, *, clock: Callable[[], datetime], audit: AuditTrail | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._audit = audit

    async def create(self, name: str, role: Role, *, life: timedelta | None) -> tuple[str, AccessToken]:
        """A new token, itself and what is kept of it. Raises `TokenInvalid`."""
        if NAME.fullmatch(name) is None or name.lower() in TAKEN:
            raise TokenInvalid(f"{name!r} cannot be a token's name: use up to 64 letters, digits and ._@+-")
        if life is not None and life <= timedelta():
            raise TokenInvalid("a token must live for some time")
        token, now = new_token(), self._clock()
        row = TokenRow(
            name=name,
            held_name=name,
            role=role.value,
            digest=digest_of(token),
            prefix=token[:SHOWN],
            created_at=now,
            expires_at=_end(now, life),
        )
        try:
            with store_errors("storing a token"):
                async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
                    session.add(row)
                    told = self._event("token_created", name=name, role=role.value, prefix=row.prefix)
                    await self._record(session, told)
        except IntegrityError as exc:
            raise TokenInvalid(f"a token is called {name!r} already; revoke it first") from exc
        return token, _token_of(row)

    async def revoke(self, which: str) -> AccessToken:
        """End a token by its name or by what the list shows of it. Raises `TokenInvalid`."""
        now = self._clock()
        named = or_(col(TokenRow.held_name) == which, col(TokenRow.prefix) == which)
        with store_errors("revoking a token"):
            async with AsyncSession(self._engine, expire_on_commit=False) as session, session.begin():
                query = select(TokenRow).where(named, col(TokenRow.revoked_at).is_(None))
                rows = list((await session.execute(query)).scalars())
                if len(rows) != 1:
                    raise TokenInvalid(f"no token in force is called {which!r}")
                rows[0].revoked_at, rows[0].held_name = now, None
                told = self._event("token_revoked", name=rows[0].name, prefix=rows[0].prefix)
                await self._record(session, told)
        return _token_of(rows[0])

    async def _record(self, session: AsyncSession, told: EventRow) -> None:
        """The line for the agent log, and the audit trail's entry, in the transaction of the change."""
        session.add(told)
        await session.flush()
        if self._audit is not None and isinstance(told.data, dict):
            entry = AuditEntry(kind=told.name, by=str(told.data.get("by")), data=told.data)
            await self._audit.append(await session.connection(), entry)

    def _event(self, event: str, **data: str) -> EventRow:
        given: dict[str, JsonValue] = {**data, "by": "the command line"}
        return EventRow(at=self._clock(), node="", name=event, level="warning", data=given)

    async def listed(self) -> list[AccessToken]:
        """All tokens ever made, oldest first."""
        with store_errors("reading tokens"):
            async with AsyncSession(self._engine) as session:
                rows = await session.execute(select(TokenRow).order_by(col(TokenRow.id)))
                return [_token_of(row) for row in rows.scalars()]

    async def exist(self) -> bool:
        """Whether a token was ever made. One that has run out still closes the door to those without."""
        with store_errors("reading tokens"):
            async with self._engine.connect() as connection:
                return (await connection.execute(select(col(TokenRow.id)).limit(1))).first() is not None

    async def let_in(self) -> bool:
        """Whether somebody could sign in with one of them now."""
        return any(token.state(self._clock()) == "valid" for token in await self.listed())

    async def find(self, shown: str) -> AccessToken | None:
        """The token that was shown, when it is in force."""
        now = self._clock()
        with store_errors("reading tokens"):
            async with AsyncSession(self._engine) as session:
                query = select(TokenRow).where(col(TokenRow.digest) == digest_of(shown))
                row = (await session.execute(query)).scalars().first()
                found = None if row is None else _token_of(row)
            if found is None or found.state(now) != "valid":
                return None
            if found.last_used_at is None or now - found.last_used_at >= USED_EVERY:
                async with self._engine.begin() as connection:
                    mine = update(TokenRow).where(col(TokenRow.id) == found.id)
                    await connection.execute(mine.values(last_used_at=now))
        return found


def _end(now: datetime, life: timedelta | None) -> datetime | None:
    try:
        return None if life is None else now + life
    except OverflowError as exc:
        raise TokenInvalid("a token cannot live that long; use never") from exc


async def has_valid_token(database_url: str, *, clock: Callable[[], datetime] = utc_now) -> bool:
    """Whether somebody could sign in with a stored token."""
    async with open_database(database_url) as engine:
        return await TokenStore(engine, clock=clock).let_in()
