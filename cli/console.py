"""`airmedic console --api URL`: the operators' console apart from the server it speaks to."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import httpx
import typer

from cli.plainly import complain
from graph.errors import AirmedicError, SettingsInvalid

if TYPE_CHECKING:
    from fastapi import FastAPI

DEFAULT_API = "http://127.0.0.1:8642"
DEFAULT_PORT = 8643

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


@app.command()
def console(
    api: Annotated[str, typer.Option(envvar="AIRMEDIC_URL", help="where Airmedic answers")] = DEFAULT_API,
    host: Annotated[str, typer.Option(help="where the console listens")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="its port; 0 takes a free one")] = DEFAULT_PORT,
) -> None:
    """Serve the console of a remote Airmedic, until Ctrl-C; people sign in with a token of that server."""
    try:
        asyncio.run(serve_console(api, host=host, port=port))
    except KeyboardInterrupt:
        typer.echo("ended")
    except AirmedicError as exc:
        complain(exc)
        raise typer.Exit(2) from exc


async def serve_console(api: str, *, host: str, port: int) -> None:
    """Listen and serve until cancelled. Raises `SettingsInvalid` when it must not or cannot listen."""
    import uvicorn

    from cli.serve import address_of, bind
    from server.access.entry import is_loopback

    if not api.startswith(("http://", "https://")):
        raise SettingsInvalid(f"--api is {api!r}; it must start with http:// or https://")
    if not is_loopback(host) and not await _asks_for_a_token(api):
        raise SettingsInvalid(
            f"--host is {host!r}, which other machines can reach, and {api} asks nobody for a token: "
            "make one there first (`airmedic token create`)"
        )
    listening = bind(host, port)
    try:
        hosts = frozenset({"localhost", "127.0.0.1", "::1"}) if is_loopback(host) else None
        typer.echo(f"console at {address_of(listening)}/console, of the Airmedic at {api}")
        config = uvicorn.Config(console_app(api, hosts=hosts), log_config=None, access_log=False)
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:
        listening.close()


def console_app(api: str, *, hosts: frozenset[str] | None) -> FastAPI:
    """The application that serves only the console."""
    from fastapi import FastAPI
    from fastapi.responses import RedirectResponse

    from gradio_ui.app import PATH, mount

    served = FastAPI(openapi_url=None)
    mount(served, api_url=api, hosts=hosts)
    served.add_api_route("/", lambda: RedirectResponse(f"{PATH}/"), include_in_schema=False)
    return served


async def _asks_for_a_token(api: str) -> bool:
    async with httpx.AsyncClient(base_url=api.rstrip("/"), timeout=10.0) as http:
        try:
            answer = await http.get("/api/status")
        except httpx.HTTPError as exc:
            raise SettingsInvalid(f"no Airmedic answers at {api}: {exc}") from exc
    return answer.status_code == httpx.codes.UNAUTHORIZED
