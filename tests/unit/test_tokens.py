"""Access tokens: what is stored of them, and when they open nothing any more. On both databases."""

from __future__ import annotations

import json
import string
import zlib
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from graph.domain import Role
from graph.errors import TokenInvalid
from server.access.tokens import PREFIX, TokenStore, digest_of, is_token, new_token
from server.audit.chain import AuditKeys
from server.audit.trail import AuditTrail
from tests.factories import Clock
from tools.redaction import redact

DAY = timedelta(days=1)


def checksum(text: str) -> str:
    """The last six characters of a token: the CRC of the others, in 62 digits, the least first."""
    number, digits = zlib.crc32(text.encode()), string.digits + string.ascii_letters
    return "".join(digits[number // 62**place % 62] for place in range(6))


@pytest.fixture
def tokens(engine: AsyncEngine, clock: Clock) -> TokenStore:
    return TokenStore(engine, clock=clock)


async def test_a_token_is_found_again_and_is_nowhere_in_the_database(
    tokens: TokenStore, engine: AsyncEngine
) -> None:
    token, made = await tokens.create("ada", Role.OPERATOR, life=90 * DAY)

    found = await tokens.find(token)

    assert found is not None
    assert (found.name, found.role, found.prefix) == ("ada", Role.OPERATOR, token[:10])
    assert found.caller().name == "ada"
    assert made.state(made.created_at) == "valid"
    async with engine.connect() as connection:
        (row,) = (await connection.execute(text("SELECT * FROM token"))).all()
        (event,) = (await connection.execute(text("SELECT name, data FROM event"))).all()
    assert digest_of(token) in row
    assert token not in str(row) + str(event)
    assert event[0] == "token_created"


@pytest.mark.parametrize("moment", ["expired", "revoked"])
async def test_a_token_that_ended_opens_nothing(tokens: TokenStore, clock: Clock, moment: str) -> None:
    token, _ = await tokens.create("ada", Role.VIEWER, life=DAY)
    if moment == "expired":
        clock.forward(86_400)
    else:
        await tokens.revoke("ada")

    assert await tokens.find(token) is None
    assert [one.state(clock()) for one in await tokens.listed()] == [moment]
    # Who relied on it is not let in without one.
    assert await tokens.exist()


async def test_a_token_without_an_end_lives_on(tokens: TokenStore, clock: Clock) -> None:
    token, _ = await tokens.create("ada", Role.ADMIN, life=None)
    clock.forward(86_400 * 4000)

    assert await tokens.find(token) is not None


async def test_a_revoked_name_can_be_given_again(tokens: TokenStore) -> None:
    old, _ = await tokens.create("ada", Role.VIEWER, life=DAY)
    with pytest.raises(TokenInvalid, match="called 'ada' already"):
        await tokens.create("ada", Role.VIEWER, life=DAY)
    await tokens.revoke(old[:10])

    new, _ = await tokens.create("ada", Role.VIEWER, life=DAY)

    assert await tokens.find(old) is None
    assert await tokens.find(new) is not None


async def test_only_a_token_in_force_is_revoked(tokens: TokenStore) -> None:
    await tokens.create("ada", Role.VIEWER, life=DAY)
    await tokens.revoke("ada")

    for which in ("ada", "nobody", ""):
        with pytest.raises(TokenInvalid, match="no token in force"):
            await tokens.revoke(which)


async def test_the_last_use_is_known_to_the_minute(tokens: TokenStore, clock: Clock) -> None:
    token, made = await tokens.create("ada", Role.VIEWER, life=DAY)
    assert made.last_used_at is None

    await tokens.find(token)
    first = clock()
    clock.forward(10)
    await tokens.find(token)
    assert (await tokens.listed())[0].last_used_at == first
    clock.forward(60)
    await tokens.find(token)

    assert (await tokens.listed())[0].last_used_at == clock()


@pytest.mark.parametrize(
    "name", ["", "a b", "local operator", "airmedic", "Airmedic", "x" * 65, "a\nb", "-a", "ädä"]
)
async def test_a_name_that_could_be_taken_for_another_is_refused(tokens: TokenStore, name: str) -> None:
    with pytest.raises(TokenInvalid, match="name"):
        await tokens.create(name, Role.VIEWER, life=DAY)


@pytest.mark.parametrize("life", [timedelta(), -DAY, timedelta.max])
async def test_a_life_that_cannot_be_is_refused(tokens: TokenStore, life: timedelta) -> None:
    with pytest.raises(TokenInvalid):
        await tokens.create("ada", Role.VIEWER, life=life)


def test_a_token_is_known_by_its_shape_and_checksum() -> None:
    made = {new_token() for _ in range(100)}

    assert len(made) == 100
    assert all(is_token(token) for token in made)
    token = made.pop()
    typo = token[:20] + ("a" if token[20] != "a" else "b") + token[21:]
    for other in (typo, token[:-1], token + "x", token.upper(), "airm_", "", token.replace("airm_", "arim_")):
        assert not is_token(other)


@pytest.mark.parametrize("line", ["{}", "using token {} now", "Authorization: Bearer {}", '{{"t":"{}"}}'])
def test_a_token_in_a_log_is_redacted(line: str) -> None:
    token = new_token()

    assert token[5:] not in redact(line.format(token))


@pytest.mark.parametrize(
    "random",
    [
        pytest.param("a" * 35, id="too short"),
        pytest.param("a" * 37, id="too long"),
        pytest.param("a" * 35 + "é", id="a letter that we never make"),
        pytest.param("a" * 35 + "-", id="a mark that we never make"),
        pytest.param("a" * 35 + "\n", id="a line's end"),
    ],
)
def test_a_checksum_alone_makes_no_token(random: str) -> None:
    """The checksum is no secret: anybody can make one for any text."""
    assert is_token(PREFIX + "a" * 36 + checksum("a" * 36))
    assert not is_token(PREFIX + random + checksum(random))
    assert not is_token(PREFIX + random + checksum(random[:36]))


async def test_what_is_done_to_tokens_is_in_the_audit_trail(engine: AsyncEngine, clock: Clock) -> None:
    trail = AuditTrail(engine, keys=AuditKeys(["k" * 32]), clock=clock)
    audited = TokenStore(engine, clock=clock, audit=trail)
    await audited.create("ada", Role.ADMIN, life=DAY)
    await audited.revoke("ada")

    entries = [json.loads(one.body) async for one in trail.entries()]
    assert [(one["kind"], one["data"]["name"]) for one in entries] == [
        ("token_created", "ada"),
        ("token_revoked", "ada"),
    ]
