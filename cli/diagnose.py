"""`airmedic diagnose FILE|-`: name the cause of any log, without Airflow."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from rich.console import Console

from cli.markup import plain
from cli.plainly import complain, spelled
from graph.domain import Diagnosis
from graph.errors import AirmedicError

WRONG_USE = 2
CHUNK = 1 << 20  # bytes

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class LogUnreadable(AirmedicError):
    """The file cannot be read."""


@app.command()
def diagnose(
    log: Annotated[str, typer.Argument(metavar="FILE|-", help="a task's log; - reads standard input")],
    as_json: Annotated[bool, typer.Option("--json", help="for machines")] = False,
    knowledge: Annotated[
        Path | None,
        typer.Option(envvar="AIRMEDIC_KNOWLEDGE", help="folder with knowledge files of your own"),
    ] = None,
) -> None:
    """Say why a task failed, from its log alone."""
    try:
        diagnosis = of_file(log, knowledge)
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(WRONG_USE) from exc
    if as_json:
        typer.echo(spelled(diagnosis.model_dump(mode="json"), indent=2))
    else:
        show(diagnosis, Console())


def of_file(name: str, knowledge: Path | None) -> Diagnosis:
    """Read, shorten, redact and diagnose."""
    from tools.diagnosis import Case
    from tools.evidence_lines import excerpt_of
    from tools.knowledge import KnowledgeBase
    from tools.log_file import read_log

    base = KnowledgeBase.load(knowledge)
    if name == "-":
        text = excerpt_of(_chunks(sys.stdin.buffer))
    else:
        try:
            with Path(name).open("rb") as file:
                text = excerpt_of(_chunks(file))
        except OSError as exc:
            raise LogUnreadable(f"{name}: {exc.strerror or exc}") from exc
    given = read_log(text)
    return given.counted(base.diagnose(Case(log=given.log)))


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def show(diagnosis: Diagnosis, console: Console) -> None:
    """The answer for a person."""
    asked, hint = diagnosis.facts.retry_after, diagnosis.facts.wait
    again = (
        "yes, the same task may succeed later"
        if diagnosis.transient
        else "no, running it again unchanged will not help"
    )
    console.print(f"[bold]{diagnosis.root_cause.value}[/bold]  confidence {diagnosis.confidence:.2f}")
    console.print(plain(diagnosis.summary))
    wait = f"; asked to wait {asked:g} s" if asked else f"; worth a wait of {hint:g} s" if hint else ""
    console.print(f"transient: {again}{wait if diagnosis.transient else ''}")
    for told in diagnosis.context:
        console.print(f"context: {plain(told)}")
    if diagnosis.evidence:
        console.print("evidence:")
        for line in diagnosis.evidence:
            console.print(f"  {line.line:>6}  {plain(line.text[:300])}", soft_wrap=True, highlight=False)
    if diagnosis.location is not None:
        place = diagnosis.location
        console.print(f"code: {plain(place.file)}:{place.line} {plain(place.function)}")
    for other in diagnosis.ruled_out:
        console.print(f"ruled out: {other.root_cause.value} ({plain(other.why)})")
    then = ", ".join(r.value for r in diagnosis.alternatives)
    console.print(f"what to do: {diagnosis.remediation.value}" + (f"; else {then}" if then else ""))
