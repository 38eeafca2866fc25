"""Random and stateful requests against the whole OpenAPI document: `python -m tests.acceptance.fuzz`.

The API runs here on a store of its own and the in-memory Airflow, with incidents in every state; Schemathesis
asks it over HTTP. Right is: no answer is a server error, none is undocumented, every body fits its schema.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import structlog
import typer
import uvicorn

from server.embedded import EmbeddedServer
from tests.unit.serving import Api, open_api

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
PHASES = "examples,coverage,fuzzing,stateful"
STREAMS_LAST = timedelta(milliseconds=50)
# A play opens a store and drives a graph to its end: a few say as much as many.
CONFIG = """[generation]
max-examples = {examples}

[phases.stateful]
max-steps = 10
generation.max-examples = {scenarios}

[[operations]]
include-operation-id = "play_failure"
generation.max-examples = 5
"""
CASES = re.compile(r"(?:Test cases|test cases):\s+([\d,]+) generated")
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


async def furnish(api: Api) -> None:
    """Incidents that ask, that were handed over, and that are closed."""
    asking = await api.fail("asks")
    for number in range(3):
        await api.fail(f"asks_{number}")
    given_up = await api.fail("given_up")
    answer = await api.decide(
        given_up, {"type": "reject", "version": (await api.incident(given_up))["version"]}
    )
    assert answer.status_code == 202, answer.text
    await api.drive()
    closed = await api.fail("closed")
    version = (await api.incident(closed))["version"]
    assert (await api.decide(closed, {"type": "reject", "version": version})).status_code == 202
    await api.drive()
    await api.http.post(f"/api/incidents/{closed}/close", json={"reason": "by hand"})
    await api.http.post("/api/feedback", json={"incident": asking, "rating": 4, "cause_right": True})


@asynccontextmanager
async def furnished(folder: Path) -> AsyncIterator[str]:
    """The API on a socket; its address."""
    given: dict[str, Any] = {
        "stream_limit": STREAMS_LAST,
        "demo": True,
        "rate_token": "off",
        "rate_address": "off",
        "rate_webhook": "off",
    }
    async with open_api(folder, background=True, **given) as api:
        await furnish(api)
        config = uvicorn.Config(
            api.app, host="127.0.0.1", port=0, log_config=None, access_log=False, ws="none", lifespan="off"
        )
        server = EmbeddedServer(config)
        serving = asyncio.create_task(server.serve())
        while not server.started:  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            await serving


async def fuzz(examples: int, *, seed: int | None, workers: int, phases: str) -> tuple[int, int]:
    """Run Schemathesis; its status and how many cases it made."""
    with tempfile.TemporaryDirectory(prefix="airmedic-fuzz-") as folder:
        await asyncio.to_thread(
            Path(folder, "schemathesis.toml").write_text,
            CONFIG.format(examples=examples, scenarios=max(10, examples // 10)),
        )
        async with furnished(Path(folder)) as address:
            command = [
                str(Path(sys.executable).with_name("st")), "run", f"{address}/openapi.json",
                "--phases", phases, "--checks", ",".join(CHECKS),
                "--workers", str(workers), "--continue-on-failure", "--request-timeout", "20",
                "--generation-database", "none", "--suppress-health-check", "all",
                *(() if seed is None else ("--seed", str(seed))),
            ]  # fmt: skip
            running = await asyncio.create_subprocess_exec(
                *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            assert running.stdout is not None
            said: list[str] = []
            while chunk := await running.stdout.read(65_536):  # a failure can be one very long line
                said.append(chunk.decode(errors="replace"))
                sys.stdout.write(said[-1])
            status = await running.wait()
    found = CASES.search(COLOURS.sub("", "".join(said)))
    return status, int(found.group(1).replace(",", "")) if found else 0


def main(
    examples: Annotated[int, typer.Option(min=1, help="random cases per operation")] = 330,
    at_least: Annotated[int, typer.Option(help="fail with fewer cases than that altogether")] = 10_000,
    seed: Annotated[int | None, typer.Option(help="the same cases again")] = None,
    workers: Annotated[
        int, typer.Option(min=1, max=16, help="Python 3.11 parses source in one thread only")
    ] = 1,
    phases: Annotated[str, typer.Option(help="of Schemathesis")] = PHASES,
) -> None:
    """Status 0 when every answer was right and there were enough of them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    begin = time.monotonic()
    status, cases = asyncio.run(fuzz(examples, seed=seed, workers=workers, phases=phases))
    typer.echo(f"fuzz: {cases} cases in {time.monotonic() - begin:.0f} s, Schemathesis status {status}")
    if cases < at_least:
        typer.echo(f"fuzz: fewer than {at_least} cases")
        raise typer.Exit(1)
    raise typer.Exit(status)


if __name__ == "__main__":
    typer.run(main)
