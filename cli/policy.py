"""`airmedic policy`: checks a policy file and says in words what it means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.incidents import DEFAULT_URL, call
from cli.plainly import say
from graph.domain import Decision
from graph.errors import PolicyInvalid, SettingsInvalid
from tools.actions import ActionCatalogue
from tools.policy import explain as words
from tools.policy_file import load_policy
from tools.policy_rules import in_words
from tools.terminal import inert

WRONG_POLICY = 2

app = typer.Typer(
    help="What Airmedic may do by itself, and what it must ask about.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def policy() -> None:
    """What Airmedic may do by itself, and what it must ask about."""


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="a policy file; the one that ships without it")] = None,
) -> None:
    """Print the policy's rules in words, or everything that is wrong with it (exit status 2)."""
    try:
        found = load_policy(file, catalogue=ActionCatalogue.default())
    except (PolicyInvalid, SettingsInvalid) as exc:
        typer.echo(inert(exc), err=True)
        raise typer.Exit(WRONG_POLICY) from exc
    say("\n".join(in_words(found)))


@app.command()
def explain(
    incident: Annotated[int, typer.Argument(metavar="INCIDENT", min=1, help="the incident's number")],
    url: Annotated[str, typer.Option(envvar="AIRMEDIC_URL", help="where Airmedic answers")] = DEFAULT_URL,
    token: Annotated[
        str | None,
        typer.Option(envvar=["AIRMEDIC_TOKEN", "AIRMEDIC_API_TOKEN"], help="an access token for it"),
    ] = None,
) -> None:
    """Say which rule decided about an incident's plan, and why."""
    found = call(url, token, lambda client: client.incident(incident))
    if found["decision"] is None:
        typer.echo(f"incident {incident}: no plan is in hand, so policy was not asked")
        for line in found["checklist"]:
            say(f"  - {line}")
        return
    summary = found["plan"]["summary"] if found["plan"] else "no plan in hand"
    say(f"incident {incident}: {summary}")
    say(words(Decision.model_validate(found["decision"])))
