"""A benchmark that is ended ends what it has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evals.faults.leash import default_signals

# Stands for the interpreter that a benchmark is started with.
ONE = """#!{python}
import time
try:
    print("started", flush=True)
    time.sleep(60)
finally:
    print("cleaned up", flush=True)
"""
COMMAND = "import sys; from cli import bench; sys.executable = sys.argv.pop(1); bench.app()"


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`airmedic bench scan`, in a group of its own, as a terminal would have it."""
    one = tmp_path / "one"
    one.write_text(ONE.format(python=sys.executable))
    one.chmod(0o755)
    parent = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(one), "scan", "--report", str(tmp_path / "figures")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
        process_group=0,
        preexec_fn=default_signals,  # these tests may run in a background job, which is deaf to SIGINT
    )
    assert parent.stdout is not None
    assert [parent.stdout.readline() for _ in range(2)] == ["scan \N{HORIZONTAL ELLIPSIS}\n", "started\n"]
    yield parent
    if parent.poll() is None:
        parent.kill()


def test_sigterm_lets_the_benchmark_clean_up(parent: subprocess.Popen[str]) -> None:
    parent.send_signal(signal.SIGTERM)

    assert parent.communicate(timeout=30)[0] == "cleaned up\n"
    assert parent.returncode == 128 + signal.SIGTERM


def test_ctrl_c_reaches_the_benchmark_once(parent: subprocess.Popen[str]) -> None:
    os.killpg(parent.pid, signal.SIGINT)

    assert "cleaned up" in parent.communicate(timeout=30)[0]
    assert parent.returncode not in (0, None)
