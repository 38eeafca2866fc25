"""`airmedic incidents`, `show`, `approve`, `edit`, `reject`, `respond` and `close`, through the HTTP API.

This module is imported for `airmedic --help`: what is heavy is imported when a command runs.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.plainly import complain, spelled
from graph.errors import AirmedicError

if TYPE_CHECKING:
    from cli.client import ApiClient

# Spelled out: the enumeration would load all types for `airmedic --help`.
STATUSES = "open, watching, waiting_decision, waiting_timer, waiting_outcome, escalated, closed"
DEFAULT_URL = "http://127.0.0.1:8642"

Number = Annotated[int, typer.Argument(metavar="ID", min=1, help="the incident's number")]
Url = Annotated[str, typer.Option(envvar="AIRMEDIC_URL", help="where Airmedic answers")]
Token = Annotated[
    str | None,
    typer.Option(
        envvar=["AIRMEDIC_TOKEN", "AIRMEDIC_API_TOKEN"], help="an access token for it", show_envvar=True
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask back")]
AsJson = Annotated[bool, typer.Option("--json", help="print what the API answered")]


def add_commands(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for command in (incidents, show, approve, edit, reject, respond, close, reopen, pause, resume):
        app.command()(command)


def call(url: str, token: str | None, doing: Callable[[ApiClient], Awaitable[Any]]) -> Any:
    """Run one exchange with the server; an error is one sentence and exit status 1."""
    from cli.client import open_client

    async def exchange() -> Any:
        async with open_client(url, token) as client:
            return await doing(client)

    try:
        return asyncio.run(exchange())
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(1) from exc


def _print_json(value: Any) -> None:
    typer.echo(spelled(value, indent=2))


def incidents(
    url: Url = DEFAULT_URL,
    token: Token = None,
    status: Annotated[list[str] | None, typer.Option(help=f"only these; may be repeated: {STATUSES}")] = None,
    dag: Annotated[str | None, typer.Option(help="only this DAG")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200)] = 30,
    as_json: AsJson = False,
) -> None:
    """List incidents, newest first."""
    wanted = tuple(status or ())
    page = call(url, token, lambda client: client.incidents(statuses=wanted, dag_id=dag, limit=limit))
    if as_json:
        _print_json(page)
        return
    from cli.incident_view import print_list

    print_list(page["items"], more=page["next"] is not None)


def show(number: Number, url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """Show one incident: what failed and why, what was done, how it went."""
    found = call(url, token, lambda client: client.incident(number))
    if as_json:
        _print_json(found)
        return
    from cli.incident_view import print_incident

    print_incident(found)


def approve(number: Number, url: Url = DEFAULT_URL, token: Token = None, yes: Yes = False) -> None:
    """Approve the plan an incident asks about."""
    _decide(number, {"type": "approve"}, url, token, ask="Approve" if not yes else None)


def edit(
    number: Number,
    arguments: Annotated[
        str,
        typer.Argument(
            metavar="JSON", help="one object per action, as a list; a single object for one action"
        ),
    ],
    url: Url = DEFAULT_URL,
    token: Token = None,
    yes: Yes = False,
) -> None:
    """Approve the plan with other arguments."""
    try:
        given = json.loads(arguments)
    except ValueError as exc:
        raise typer.BadParameter(f"not JSON: {exc}", param_hint="JSON") from exc
    args = [given] if isinstance(given, dict) else given
    if not isinstance(args, list) or not all(isinstance(one, dict) for one in args):
        raise typer.BadParameter("an object, or a list of objects", param_hint="JSON")
    ask = f"Approve with {json.dumps(args)}" if not yes else None
    _decide(number, {"type": "edit", "args": args}, url, token, ask=ask)


def reject(
    number: Number,
    reason: Annotated[str, typer.Argument(help="why; it is kept with the incident")] = "",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Reject the plan. The next one is looked for, or people take over."""
    _decide(number, {"type": "reject", "message": reason}, url, token)


def respond(
    number: Number,
    text: Annotated[str, typer.Argument(help="what you know; the next diagnosis reads it as evidence")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Tell what you know and have the failure diagnosed again. Approves nothing."""
    _decide(number, {"type": "respond", "message": text}, url, token)


def close(
    number: Number,
    reason: Annotated[str, typer.Argument(help="why")] = "",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Close an incident that was escalated to people."""
    closed = call(url, token, lambda client: client.close(number, reason))
    typer.echo(f"incident {closed['id']} is closed")


def reopen(
    number: Number,
    reason: Annotated[str, typer.Argument(help="why")] = "",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Give an escalated incident back to Airmedic. The code or the credentials were mended meanwhile."""
    opened = call(url, token, lambda client: client.reopen(number, reason))
    typer.echo(f"incident {opened['id']} is open again")


def pause(url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Kill switch: nothing is written to Airflow any more. `airmedic resume` takes it back."""
    call(url, token, lambda client: client.control({"paused": True}))
    typer.echo("paused: nothing is written to Airflow until `airmedic resume`")


def resume(url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Take the kill switch back: policy decides again."""
    now = call(url, token, lambda client: client.control({"paused": False}))
    mode = "shadow mode: nothing is touched" if now["shadow"] else "healing is on"
    typer.echo(f"resumed; {mode}")


def _decide(
    number: int, decision: dict[str, Any], url: str, token: str | None, *, ask: str | None = None
) -> None:
    """Answer the question as it stands now: the answer names the version and the plan that were shown."""
    found = call(url, token, lambda client: client.incident(number))
    question = found["question"]
    if not found["asks"] or question is None:
        complain(f"incident {number} asks nothing now; it is {found['status']}")
        raise typer.Exit(1)
    if ask is not None:
        from cli.incident_view import print_question

        print_question(found)
        if not typer.confirm(f"{ask} (incident {number}, version {found['version']})?"):
            typer.echo("nothing was decided")
            raise typer.Exit(1)
    bound = {**decision, "version": found["version"], "plan_id": question["plan_id"]}
    call(url, token, lambda client: client.decide(number, bound))
    typer.echo(f"incident {number}: {decision['type']} is recorded")
