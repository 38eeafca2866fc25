"""`airmedic migrate`: brings the database's schema up to date, or carries a SQLite store over to Postgres."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.plainly import complain
from graph.errors import AirmedicError, SettingsInvalid
from server.db.database import newest_version, open_database, schema_version
from server.settings import load_database_url

BEHIND, WRONG = 1, 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def main(
    check: Annotated[bool, typer.Option("--check", help="only say; status 1 when it is behind")] = False,
    source: Annotated[
        str, typer.Option("--from", help="sqlite:///FILE to carry over into the empty AIRMEDIC_DATABASE_URL")
    ] = "",
) -> None:
    """Bring the schema of AIRMEDIC_DATABASE_URL to this version's; `serve` and `worker` do it too."""
    try:
        url = load_database_url()
        if check:
            _check(url)
        elif source:
            _carry(source, url)
        else:
            asyncio.run(_upgrade(url))
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(WRONG) from exc


def _check(url: str) -> None:
    at, newest = asyncio.run(schema_version(url)), newest_version()
    typer.echo(f"schema at {at or 'nothing'}, newest {newest}")
    raise typer.Exit(0 if at == newest else BEHIND)


async def _upgrade(url: str) -> None:
    before, newest = await schema_version(url), newest_version()
    async with open_database(url):
        pass
    typer.echo(f"schema at {newest}" + ("" if before == newest else f", it was at {before or 'nothing'}"))


def _carry(source: str, url: str) -> None:
    from server.db.carry_over import carry_over

    if not source.startswith("sqlite:///"):
        raise SettingsInvalid("--from names a SQLite store, like sqlite:///airmedic.db")
    for name, count in asyncio.run(carry_over(source, url)).items():
        typer.echo(f"{name}: {count}")
    typer.echo("carried over; start Airmedic with the new AIRMEDIC_DATABASE_URL, and keep the old file")
