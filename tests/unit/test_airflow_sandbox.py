"""The leash that ends everything it started, and a sandbox whose Airflow does not start."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from evals.faults.sandbox import LEASH, open_sandbox
from graph.errors import SandboxFailed

# A child that ends politely, and a grandchild in a process group of its own that nobody tells.
FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
print(child.pid, flush=True)
time.sleep(60)
"""


async def start_leash(logs: Path, **commands: list[str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(LEASH),
        str(logs),
        json.dumps(commands),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,
    )


async def first_line(log: Path) -> str:
    def text() -> str:
        return log.read_text() if log.exists() else ""

    async with asyncio.timeout(10):
        while True:
            if "\n" in (said := text()):
                return said.splitlines()[0]
            await asyncio.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").exists() or ") Z " not in Path(f"/proc/{pid}/stat").read_text()


async def test_everything_ends_when_the_holder_lets_go(tmp_path: Path) -> None:
    leash = await start_leash(tmp_path, family=[sys.executable, "-c", FAMILY])
    grandchild = int(await first_line(tmp_path / "family.log"))
    before = alive(grandchild)

    assert leash.stdin is not None
    leash.stdin.close()
    status = await asyncio.wait_for(leash.wait(), 10)

    assert (before, status, alive(grandchild)) == (True, 0, False)


async def test_one_command_that_ends_takes_the_others_with_it(tmp_path: Path) -> None:
    leash = await start_leash(
        tmp_path,
        family=[sys.executable, "-c", FAMILY],
        short=[sys.executable, "-c", "import sys, time; time.sleep(1); sys.exit(3)"],
    )
    grandchild = int(await first_line(tmp_path / "family.log"))

    assert await asyncio.wait_for(leash.wait(), 10) == 3
    assert not alive(grandchild)
    assert (tmp_path / "ended").read_text() == "short"


@pytest.mark.integration
async def test_a_port_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SandboxFailed, match="in use"):
        async with open_sandbox(home=tmp_path, dags=tmp_path, port=taken.getsockname()[1]):
            pytest.fail("it started")


@pytest.mark.integration
async def test_an_airflow_that_does_not_start_says_why(tmp_path: Path) -> None:
    env = {"AIRFLOW__CORE__EXECUTOR": "NoSuchExecutor"}
    with pytest.raises(SandboxFailed, match="NoSuchExecutor"):
        async with open_sandbox(home=tmp_path / "home", dags=tmp_path, env=env):
            pytest.fail("it started")
