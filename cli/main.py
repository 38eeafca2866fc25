"""The `airmedic` command. What is heavy is imported when its command runs, so `--help` is quick."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from cli import incidents
from cli.plainly import complain
from graph.errors import AirmedicError

WRONG_SETTINGS = 2

# Read by LangGraph when it is imported: no serializer in this process rebuilds unknown types.
os.environ["LANGGRAPH_STRICT_MSGPACK"] = "true"

app = typer.Typer(
    name="airmedic",
    help="The on-call medic for Apache Airflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

# Commands that are typer applications of their own: name, module (its `app`), what it does.
SUB_APPS: tuple[tuple[str, str, str], ...] = (
    ("diagnose", "cli.diagnose", "Say why a task failed, from its log alone."),
    ("eval", "cli.eval", "Measure diagnoses of labelled logs, and healing."),
    ("console", "cli.console", "Serve the operators' console apart from its server."),
    ("demo", "cli.demo", "Start a real Airflow, break a pipeline, and watch it heal."),
    ("migrate", "cli.migrate", "Bring the database up to date, or carry it over to Postgres."),
    ("bench", "cli.bench", "Measure Airmedic on this machine."),
    ("policy", "cli.policy", "Say what the policy allows, and why it decided so."),
    ("audit", "cli.audit", "Read the audit trail, and prove that nobody changed it."),
    ("token", "cli.tokens", "Make, list and revoke access tokens."),
)

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.callback()
def main() -> None:
    """What `serve` reads in `.env`, the other commands find there too: a server, a token, knowledge files."""
    if not Path(".env").exists():
        return
    from server.settings import env_file_values

    found = env_file_values()
    for name in ("AIRMEDIC_URL", "AIRMEDIC_TOKEN", "AIRMEDIC_API_TOKEN", "AIRMEDIC_KNOWLEDGE"):
        if (value := found.get(name)) and not os.environ.get(name):
            os.environ[name] = value


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="AIRMEDIC_HOST for this start")] = None,
    port: Annotated[int | None, typer.Option(help="AIRMEDIC_PORT for this start")] = None,
) -> None:
    """Watch over your Airflow, until Ctrl-C. In shadow mode, unless AIRMEDIC_HEALING=on."""
    from server.loop import start_up

    start_up()
    from cli.serve import run
    from server.settings import load_settings

    given: dict[str, Any] = {
        name: value for name, value in (("host", host), ("port", port)) if value is not None
    }
    try:
        run(load_settings(**given), say=typer.echo)
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(WRONG_SETTINGS) from exc


@app.command()
def worker() -> None:
    """Drive incidents, without an HTTP server. Any number of them share one Postgres database."""
    from server.loop import start_up

    start_up()
    from cli.worker import run
    from server.settings import load_settings

    try:
        run(load_settings(), say=typer.echo)
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(WRONG_SETTINGS) from exc


@app.command()
def doctor() -> None:
    """Find what is wrong between Airmedic and Airflow. Says what to do about it."""
    from cli.doctor import run

    raise typer.Exit(run(say=typer.echo))


incidents.add_commands(app)


def _add_sub_app(name: str, module: str, words: str) -> None:
    @app.command(name, help=words, context_settings=PASS_ON)
    def pass_on(context: typer.Context) -> None:
        sub_app: typer.Typer = import_module(module).app
        sub_app(args=context.args, prog_name=f"airmedic {name}")


for _name, _module, _words in SUB_APPS:
    _add_sub_app(_name, _module, _words)
