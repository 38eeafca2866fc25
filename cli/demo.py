"""`airmedic demo`: a real Airflow, a real pipeline that breaks, and Airmedic healing it while you watch."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import structlog
import typer
from fastapi import FastAPI
from rich.console import Console
from rich.table import Table

from cli.markup import plain
from cli.words import COLOURS, line_of
from evals.faults.catalogue import CATALOGUE, FaultRow
from evals.faults.injections import INJECTIONS
from evals.faults.play import Played, play
from evals.faults.stage import Arena, Ports, Stage, open_stage
from graph.domain import Answer, AnswerKind
from graph.errors import AirmedicError, DecisionConflict, SettingsInvalid
from server.record import AgentEvent, IncidentRecord

STORY = ("F43", "F01", "F07", "F22", "F26")
DEMO_HOME = Path(".airmedic/demo")


def chosen(ids: str) -> list[FaultRow]:
    """The rows to play, in the order given. Raises `SettingsInvalid` naming what cannot be played."""
    rows = CATALOGUE
    wanted = [one.strip().upper() for one in ids.split(",") if one.strip()]
    for one in wanted:
        if one not in rows:
            raise SettingsInvalid(
                f"--faults: there is no fault {one!r}; the catalogue has F01 to F{len(rows)}"
            )
        if one not in INJECTIONS:
            can = ", ".join(sorted(INJECTIONS))
            raise SettingsInvalid(f"--faults: {one} cannot be played live yet; these can: {can}")
    return [rows[one] for one in wanted]


class Show:
    """The live view: a line for each thing that happens."""

    def __init__(self, console: Console, *, yes: bool) -> None:
        self.console = console
        self.yes = yes

    def progress(self, message: str) -> None:
        self.console.print(f"[dim]…[/dim] {plain(message)}")

    def tell(self, event: AgentEvent) -> None:
        colour = COLOURS.get(event.node, "white")
        at = f"{event.at.astimezone():%H:%M:%S}"
        first, *rest = line_of(event) or [""]
        self.console.print(f"[dim]{at}[/dim] [{colour}]{event.node or 'runner':>8}[/{colour}] {plain(first)}")
        for line in rest:
            self.console.print(f"{'':18}{plain(line)}", style=_diff_style(line))

    async def ask(self, stage: Arena, incident: IncidentRecord) -> None:
        """Answer for the person with --yes; else the terminal asks, and API and CLI can answer too."""
        if not self.yes:
            words = f"approve incident {incident.id}? [y/n] (or: airmedic approve {incident.id})"
            self.console.print(f"[bold yellow]{words}[/bold yellow]")
            reply = await _typed_or_answered(stage, incident)
            if reply is None:
                return
            kind = AnswerKind.APPROVE if reply.lower() in {"y", "yes"} else AnswerKind.REJECT
        else:
            kind = AnswerKind.APPROVE
        answer = Answer(kind=kind, by="demo --yes" if self.yes else "terminal")
        try:
            await stage.service.store.answer(incident.id, version=incident.version, answer=answer)
        except DecisionConflict as exc:
            self.console.print(f"[yellow]{plain(exc)}[/yellow]")
        stage.service.runner.ring()


def _diff_style(line: str) -> str:
    text = line.strip()
    if text.startswith("+"):
        return "green"
    return "red" if text.startswith("-") else "dim"


async def _typed_or_answered(stage: Arena, incident: IncidentRecord) -> str | None:
    """What is typed in the terminal; None when the question was answered elsewhere first."""
    loop = asyncio.get_running_loop()
    typed: asyncio.Future[str] = loop.create_future()

    def read() -> None:
        if not typed.done():
            typed.set_result(sys.stdin.readline().strip())

    watching = sys.stdin.isatty()
    if watching:
        loop.add_reader(sys.stdin.fileno(), read)
    try:
        while not typed.done():
            now = await stage.service.store.incident(incident.id)
            if now.version != incident.version or now.status != incident.status:
                return None
            await asyncio.wait({typed}, timeout=0.5)
        return typed.result()
    finally:
        if watching:
            loop.remove_reader(sys.stdin.fileno())


async def run_demo(*, faults: str, once: bool, yes: bool, ports: Ports, home: Path, console: Console) -> int:
    """Play the story; 0 when every fault ended as the catalogue says and the warehouse agrees."""
    rows = chosen(faults)
    show = Show(console, yes=yes)
    async with open_stage(home, ports=ports, progress=show.progress, mount=_mount_console) as stage:
        _addresses(console, stage)
        results = []
        for row in rows:
            console.rule(f"[bold]{row.id}[/bold] {plain(row.title)}")
            results.append(await play(stage, row, tell=show.tell, ask=show.ask))
            _verdict(console, results[-1])
        console.print(table_of(results))
        if not once:
            console.print("The demo stays up; Ctrl-C ends it and everything it started.")
            await asyncio.Event().wait()
    return 0 if all(result.right for result in results) else 1


def _mount_console(app: FastAPI) -> None:
    from gradio_ui.app import mount

    mount(app)


def _addresses(console: Console, stage: Stage) -> None:
    console.print(f"Airmedic      {stage.url}/console")
    console.print(f"Airmedic API  {stage.url}/docs")
    login = f"user {stage.sandbox.username}, password {stage.sandbox.password}"
    console.print(f"Airflow       {stage.sandbox.url}  ({login})")


def _verdict(console: Console, played: Played) -> None:
    data = f"rows expected {played.data.expected}, found {played.data.found}"
    if played.right:
        outcome = played.incident.outcome if played.incident else "no incident"
        console.print(f"[bold green]as it should be[/bold green]: {outcome}; {data}")
        return
    for objection in played.objections:
        console.print(f"[bold red]wrong[/bold red]: {plain(objection)}; {data}")


def table_of(results: Sequence[Played]) -> Table:
    """The story in one table."""
    table = Table(title="What happened")
    for name in ("fault", "diagnosed cause", "decision (rule)", "fix", "outcome", "rows exp/found"):
        table.add_column(name)
    for name in ("first line s", "own s", "total s"):
        table.add_column(name, justify="right")
    table.add_column("as it should")
    for one in results:
        incident = one.incident
        decision = incident.decision if incident else None
        fix = ", ".join(dict.fromkeys(entry.action.name for entry in one.ledger)) or "none"
        table.add_row(
            one.row.id,
            str(incident.root_cause) if incident else "-",
            f"{decision.verdict} ({decision.rule})" if decision else "-",
            fix,
            str(incident.outcome) if incident else "no incident",
            f"{one.data.expected}/{one.data.found}",
            _seconds(one.timings.detect),
            _seconds(one.timings.own),
            _seconds(one.timings.total),
            "yes" if one.right else "NO",
        )
    return table


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def demo(
    faults: Annotated[str, typer.Option(help="what to play, in order, like F01,F07")] = ",".join(STORY),
    once: Annotated[
        bool, typer.Option("--once", help="leave at the end; status 0 if all went right")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="approve what policy asks")] = False,
    port: Annotated[int, typer.Option(help="Airmedic's port; 0 takes a free one")] = 0,
    airflow_port: Annotated[int, typer.Option(help="Airflow's port; 0 takes a free one")] = 0,
    source_port: Annotated[int, typer.Option(help="the demo source's port; 0 takes a free one")] = 0,
    home: Annotated[Path, typer.Option(help="where Airflow's database and the logs are kept")] = DEMO_HOME,
) -> None:
    """Start a real Airflow and Airmedic, break a pipeline, and heal it while you watch."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    # A pipe has no width of its own.
    console = Console(soft_wrap=True) if sys.stdout.isatty() else Console(soft_wrap=True, width=150)
    ports = Ports(airflow=airflow_port, airmedic=port, source=source_port)
    try:
        status = asyncio.run(
            run_demo(faults=faults, once=once, yes=yes, ports=ports, home=home, console=console)
        )
    except KeyboardInterrupt:
        console.print("ended; nothing is left running")
        status = 130
    except AirmedicError as exc:
        console.print(f"airmedic: {plain(exc)}", style="bold red")
        status = 2
    raise typer.Exit(status)
