"""`airmedic audit`: the audit trail's head, whether the chain is whole, and the trail as a file."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from cli.plainly import complain, say, spelled
from graph.errors import AirmedicError, SettingsInvalid
from server.audit.chain import AuditHead, Break, ChainCheck, StoredEntry
from server.audit.read import heads_in, open_trail
from server.audit.trail import AuditTrail

BROKEN = 1
WRONG_SETTINGS = 2
COLUMNS = ("seq", "at", "kind", "by", "incident", "key", "data", "mac")

app = typer.Typer(
    help="The audit trail: who or what allowed each write to Airflow, and on what evidence.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
T = TypeVar("T")


class Format(StrEnum):
    """How the trail is written out."""

    JSONL = "jsonl"
    CSV = "csv"


def _run(doing: Callable[[AuditTrail], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with open_trail() as trail:
            return await doing(trail)

    try:
        return asyncio.run(opened())
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(WRONG_SETTINGS) from exc


@app.command()
def head() -> None:
    """Print the trail's end as SEQ:MAC; keep it elsewhere, and a cut tail shows against it."""
    found = _run(lambda trail: trail.head())
    if found is None:
        complain("the audit trail has lost its head; see `airmedic audit verify`")
        raise typer.Exit(BROKEN)
    typer.echo(str(found))


@app.command()
def verify(
    known: Annotated[
        list[str] | None, typer.Option("--head", help="a head you kept, SEQ:MAC; may be repeated")
    ] = None,
    log: Annotated[
        list[Path] | None,
        typer.Option("--log", help="a log file (pipeline.log, a mail) whose heads are checked too"),
    ] = None,
) -> None:
    """Find any edit, removal, truncation or reorder, and name the entry. Exit status 1 when broken."""
    try:
        heads = [AuditHead.parse(one) for one in known or ()]
        for file in log or ():
            heads += heads_in(file)
    except SettingsInvalid as exc:
        complain(exc)
        raise typer.Exit(WRONG_SETTINGS) from exc
    check, broken = _run(lambda trail: trail.verify(heads))
    for line in _words(check, broken, heads):
        say(line)
    if broken is not None:
        raise typer.Exit(BROKEN)


def _words(check: ChainCheck, broken: Break | None, heads: list[AuditHead]) -> list[str]:
    if broken is not None:
        sound = f"entries 1 to {check.seq} are as they were written" if check.seq else "nothing before it"
        return [f"BROKEN at entry {broken.seq}: {broken.why}", f"before it: {sound}"]
    lines = [f"whole: {check.seq} entries, head {check.seq}:{check.mac}"]
    if heads:
        lines.append(f"{len(heads)} kept heads agree with it")
    else:
        lines.append(
            "no kept head was given: a tail that was cut off before now would not show (--head, --log)"
        )
    if check.unkeyed:
        lines.append(f"{check.unkeyed} entries were chained without a key: only kept heads vouch for them")
    return lines


@app.command()
def export(
    form: Annotated[Format, typer.Option("--format")] = Format.JSONL,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="from this day on, UTC")
    ] = None,
    incident: Annotated[int | None, typer.Option(min=1, help="only this incident")] = None,
) -> None:
    """Write the trail to standard output, one entry a line."""
    start = None if since is None else since.replace(tzinfo=UTC)

    async def write(trail: AuditTrail) -> None:
        if form is Format.CSV:
            typer.echo(_csv(COLUMNS))
        async for entry in trail.entries(since=start, incident_id=incident):
            typer.echo(_row(entry) if form is Format.CSV else _line(entry))

    _run(write)


def _line(entry: StoredEntry) -> str:
    return spelled({**json.loads(entry.body), "mac": entry.mac})


def _row(entry: StoredEntry) -> str:
    told = {**json.loads(entry.body), "mac": entry.mac}
    told["data"] = spelled(told["data"])
    return _csv([_cell(told[name]) for name in COLUMNS])


def _cell(value: object) -> str:
    """A spreadsheet must not take a cell for a formula."""
    text = "" if value is None else str(value)
    return "'" + text if re.match(r"[=+\-@\t\r]", text) else text


def _csv(cells: tuple[str, ...] | list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()
