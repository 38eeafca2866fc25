"""A benchmark that is ended ends what it has started."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ONE = """#!{python}
import sys, time
try:
    print("started", flush=True)
    time.sleep(60)
finally:
    print("cleaned up", flush=True)
"""
PARENT = """
import signal, sys
from cli import bench
signal.signal(signal.SIGTERM, bench._end)
sys.executable = sys.argv[1]
bench._run("any", [])
"""


def test_sigterm_lets_the_benchmark_clean_up(tmp_path: Path) -> None:
    one = tmp_path / "one"
    one.write_text(ONE.format(python=sys.executable))
    one.chmod(0o755)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(one)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"

    parent.send_signal(signal.SIGTERM)

    assert parent.communicate(timeout=30)[0] == "cleaned up\n"
    assert parent.returncode == 128 + signal.SIGTERM
