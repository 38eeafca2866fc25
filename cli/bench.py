"""`airmedic bench`: measures Airmedic on this machine, each figure beside its baseline of the same run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Annotated

import typer

from cli.plainly import complain
from evals.benchmarks.crash.databases import WHEEL, Postgres, open_postgres
from evals.benchmarks.page import write_page
from evals.benchmarks.report import Report, machine
from evals.faults.leash import default_signals

WRONG, MISSED = 2, 1

Arguments = Callable[[Path, str], list[str]]


def _alone(folder: Path, _postgres: str) -> list[str]:
    return ["--report", str(folder)]


def _on_postgres(folder: Path, postgres: str) -> list[str]:
    return ["--report", str(folder), "--postgres", postgres]


def _listing(folder: Path, _postgres: str) -> list[str]:
    return ["--report", str(folder), "--incidents", "100000"]


def _crash(folder: Path, _postgres: str) -> list[str]:
    return ["--report", str(folder), "--minutes", "15"]


# name: module, its arguments, whether it needs a Postgres database
BENCHES: Mapping[str, tuple[str, Arguments, bool]] = MappingProxyType(
    {
        "heal": ("heal", _alone, False),
        "heal-postgres": ("heal", _on_postgres, True),
        "ingest": ("ingest", _alone, False),
        "latency": ("latency", _alone, False),
        "growth": ("growth", _alone, False),
        "parked": ("parked", _alone, False),
        "storm": ("storm", _alone, False),
        "workers": ("workers", _on_postgres, True),
        "takeover": ("takeover", _on_postgres, True),
        "crash": ("crash", _crash, False),
        "idle": ("idle", _alone, False),
        "list": ("listing", _listing, False),
        "scan": ("scan", _alone, False),
        "redaction": ("redaction", _alone, False),
        "profile": ("profile", _alone, False),
    }
)

ON_POSTGRES = tuple(name for name, (_, _, needs) in BENCHES.items() if needs)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def main(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"{', '.join(BENCHES)}, or all")] = "all",
    report: Annotated[Path, typer.Option(help="folder for JSON and page")] = Path(".airmedic/bench/figures"),
    postgres: Annotated[
        str,
        typer.Option(
            help=f"URL of an empty PostgreSQL database, for {', '.join(ON_POSTGRES)}; else one is started"
        ),
    ] = "",
    explain: Annotated[
        bool, typer.Option("--help", help="show this, or the options of the one that is named")
    ] = False,
) -> None:
    """Measure, print tables, and write JSON and one page; status 1 when a benchmark itself failed.

    Further options go to the one that is named: `airmedic bench crash --kills 2000`; `airmedic bench crash
    --help` lists them.
    """
    if explain:
        raise typer.Exit(_explain(context, name))
    if name == "all" and context.args:
        complain(f"name one benchmark to give it {context.args[0]}")
        raise typer.Exit(WRONG)
    if name != "all" and name not in BENCHES:
        complain(f"no benchmark {name!r}; there are {', '.join(BENCHES)}")
        raise typer.Exit(WRONG)
    signal.signal(signal.SIGTERM, _end)
    report.mkdir(parents=True, exist_ok=True)
    failed = []
    with ExitStack() as stack:
        database = _databases(postgres, stack)
        for one in BENCHES if name == "all" else [name]:
            module, arguments, needs = BENCHES[one]
            url = database() if needs else ""
            if url is None:
                typer.echo(f"{one}: left out, it needs --postgres URL: the PostgreSQL wheel is not installed")
                continue
            typer.echo(f"{one} …")
            if _run(module, [*arguments(report, url), *context.args]) != 0:
                failed.append(one)
    typer.echo(f"page: {write_page(_written(report), machine(), report)}")
    if failed:
        typer.echo(f"failed: {', '.join(failed)}", err=True)
        raise typer.Exit(MISSED)


def _databases(given: str, stack: ExitStack) -> Callable[[], str | None]:
    """The URL that was given; else an empty database for each who asks, on a server of this run."""
    servers: list[Postgres] = []

    def database() -> str | None:
        if given:
            return given
        if not servers:
            if find_spec(WHEEL) is None:
                return None
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="airmedic-bench-")))
            folder.chmod(0o755)  # PostgreSQL runs as somebody else when we are root
            servers.append(stack.enter_context(open_postgres(folder)))
        return servers[0].fresh()

    return database


def _explain(context: typer.Context, name: str) -> int:
    if name in BENCHES:
        return _run(BENCHES[name][0], ["--help"])
    typer.echo(context.get_help())
    return 0


def _run(module: str, arguments: list[str]) -> int:
    """Each in a process of its own: none measures what another left in memory.

    When this one is ended, that one ends the servers it has started before it goes.
    """
    command = [sys.executable, "-m", f"evals.benchmarks.{module}", *arguments]
    child = subprocess.Popen(
        command,
        env=os.environ | {"LANGGRAPH_STRICT_MSGPACK": "true"},
        preexec_fn=default_signals,  # a shell's background job is deaf to SIGINT, and what it starts
        start_new_session=True,  # Ctrl-C comes from here alone: told twice, it would leave its servers
    )
    try:
        return child.wait()
    except (KeyboardInterrupt, SystemExit):
        child.send_signal(signal.SIGINT)
        child.wait()
        raise


def _end(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def _written(folder: Path) -> list[Report]:
    reports = []
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text())
        found.pop("machine", None)
        reports.append(Report.model_validate(found))
    return reports
