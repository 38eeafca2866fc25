"""`airmedic token`: make, list and revoke access tokens, directly in the database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from cli.plainly import complain
from graph.domain import Role
from graph.errors import AirmedicError, TokenInvalid
from server.access.tokens import AccessToken, TokenStore, utc_now
from server.audit.read import checked_trail
from server.db.database import open_database
from server.settings import load_database_url

FAILED = 2
NEVER = "never"
UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
LIFE = re.compile(r"([1-9][0-9]{0,5})([dhm])")

T = TypeVar("T")

app = typer.Typer(
    help="Access tokens: who shows one is known by its name and may do what its role allows.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@asynccontextmanager
async def open_tokens() -> AsyncIterator[TokenStore]:
    """The tokens in the database of AIRMEDIC_DATABASE_URL."""
    async with open_database(load_database_url()) as engine:
        trail = await checked_trail(engine)
        yield TokenStore(engine, clock=utc_now, audit=trail)


def _do(what: Callable[[TokenStore], Awaitable[T]]) -> T:
    async def run() -> T:
        async with open_tokens() as tokens:
            return await what(tokens)

    try:
        return asyncio.run(run())
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(FAILED) from exc


def life_of(spelled: str) -> timedelta | None:
    """How long a token lives: `90d`, `12h`, `30m`; None for `never`. Raises `TokenInvalid`."""
    if spelled == NEVER:
        return None
    found = LIFE.fullmatch(spelled)
    if found is None:
        raise TokenInvalid(f"--expires is {spelled!r}: write 90d, 12h, 30m or {NEVER}")
    return int(found.group(1)) * UNITS[found.group(2)]


@app.command()
def create(
    name: Annotated[str, typer.Option(help="who will use it; decisions are recorded under this name")],
    role: Annotated[Role, typer.Option(help="viewer reads; operator decides; admin sets")],
    expires: Annotated[str, typer.Option(help="how long it lives: 90d, 12h, 30m or never")] = "90d",
) -> None:
    """Make a token and print it once; only its digest is stored."""

    async def make(tokens: TokenStore) -> tuple[str, AccessToken]:
        return await tokens.create(name, role, life=life_of(expires))

    token, kept = _do(make)
    until = "never expires" if kept.expires_at is None else f"expires {kept.expires_at:%Y-%m-%d %H:%M} UTC"
    typer.echo(f"{kept.name} is {kept.role.value}; {until}. This is shown once:", err=True)
    typer.echo(token)


@app.command("list")
def list_tokens() -> None:
    """Every token: who, what they may do, until when, and when it was used last."""
    found, now = _do(lambda tokens: tokens.listed()), utc_now()
    table = Table("name", "role", "token", "state", "made", "expires", "used", box=None)
    for token in found:
        table.add_row(
            token.name,
            token.role.value,
            f"{token.prefix}…",
            token.state(now),
            f"{token.created_at:%Y-%m-%d}",
            "never" if token.expires_at is None else f"{token.expires_at:%Y-%m-%d}",
            "never" if token.last_used_at is None else f"{token.last_used_at:%Y-%m-%d %H:%M}",
        )
    Console().print(table if found else "no tokens; make one with `airmedic token create`")


@app.command()
def revoke(
    which: Annotated[str, typer.Argument(metavar="NAME", help="its name, or what the list shows of it")],
) -> None:
    """End a token. A running server refuses it within three seconds."""
    ended = _do(lambda tokens: tokens.revoke(which.removesuffix("…")))
    typer.echo(f"{ended.name} ({ended.role.value}, {ended.prefix}…) is revoked")
